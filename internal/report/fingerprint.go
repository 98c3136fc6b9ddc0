package report

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sort"
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

// Fingerprints returns a hash for each diagnostic that identifies it in later reports,
// even if it has moved: of its rule, the keys that lead to its position, and its text.
// A counter distinguishes diagnostics of a file that agree in these.
func Fingerprints(ds []schema.Diagnostic) []string {
	documents := map[*schema.Source]*schema.Document{}
	seen := map[string]int{}
	sums := make([]string, 0, len(ds))
	for _, d := range ds {
		s := clamp(d.Span)
		if documents[s.Source] == nil {
			documents[s.Source] = schema.Parse(s.Source.Name, []byte(s.Source.Text))
		}
		sum := hash(d.Rule, strings.Join(keyPath(documents[s.Source], s.Start), "\x00"), s.Text())
		n := seen[s.Source.Name+sum]
		seen[s.Source.Name+sum]++
		sums = append(sums, hash(sum, fmt.Sprint(n)))
	}
	return sums
}

// hash returns 32 hexadecimal digits for a list of texts.
func hash(texts ...string) string {
	h := sha256.New()
	for _, t := range texts {
		fmt.Fprintf(h, "%d:%s", len(t), t)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// keyPath returns the keys that lead to a position. It omits array indexes, which change
// when elements are added or removed.
func keyPath(d *schema.Document, offset int) []string {
	var keys []string
	for v := &d.Root; ; {
		switch {
		case v.Object != nil:
			ms := v.Object.Members
			i := sort.Search(len(ms), func(i int) bool { return ms[i].Name.Span.Start > offset }) - 1
			if i < 0 || offset >= ms[i].Span().End {
				return keys
			}
			keys = append(keys, ms[i].Key)
			v = &ms[i].Value
		case v.Array != nil:
			es := v.Array.Elems
			i := sort.Search(len(es), func(i int) bool { return es[i].Value.Span.Start > offset }) - 1
			if i < 0 || offset >= es[i].Value.Span.End {
				return keys
			}
			v = &es[i].Value
		default:
			return keys
		}
	}
}
