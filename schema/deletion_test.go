package schema

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestDeletions deletes each quote, comma, colon and bracket of real policies in turn, and
// applies the fixes of the syntax errors. The result means the same as the policy, or the
// text is unchanged. SSPOLICY_CORPUS adds more policies. DELETIONS is the approximate
// number of places for each character.
func TestDeletions(t *testing.T) {
	most, err := strconv.Atoi(cmp.Or(os.Getenv("DELETIONS"), "5"))
	if err != nil || most < 1 {
		t.Fatal("DELETIONS is not a positive number")
	}
	for k, file := range policies(t) {
		most := most
		if !strings.HasPrefix(file, "..") && most < 10 {
			most = 1 // SSPOLICY_CORPUS has many policies
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		d := Parse("p", text)
		if len(d.Syntax) > 0 || len(text) > 16<<10 {
			continue // the intended meaning is unknown
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			means := compact(&d.Root)
			var table strings.Builder
			for _, c := range `",:{}[]` {
				right, alone, findings := 0, 0, 0
				step := 1 + strings.Count(string(text), string(c))/most
				n := k
				for i := range text {
					if text[i] != byte(c) || inComment(d, i) {
						continue
					}
					if n++; n%step != 0 {
						continue
					}
					broken := Parse("p", slices.Delete(slices.Clone(text), i, i+1))
					if !HasErrors(broken.Syntax) {
						continue // the deletion was in a string
					}
					var edits []Edit
					for _, g := range broken.Syntax {
						if len(g.Fixes) > 0 {
							edits, _ = MergeEdits(edits, g.Fixes[0].Edits)
						}
					}
					findings = max(findings, len(broken.Syntax))
					after := Parse("p", []byte(ApplyEdits(broken.Source, edits)))
					switch {
					case len(edits) == 0:
						alone++
						if testing.Verbose() {
							l, at := d.Source.Line(i)
							t.Logf("alone %q at %v: %v  | %s", c, d.Source.Position(i), broken.Syntax[0].Message, l[:i-at]+"^"+l[i-at:])
						}
					case len(after.Syntax) == 0 && compact(&after.Root) == means:
						right++
					default:
						t.Errorf("without the %q at %v the fix makes it worse: %v %q", c, d.Source.Position(i), broken.Syntax[0].Span, edits)
						for _, e := range edits {
							l, at := broken.Source.Line(e.Span.Start)
							t.Logf("%v: %q -> %q in %s|%s", e.Span, e.Span.Text(), e.NewText, l[:e.Span.Start-at], l[e.Span.Start-at:])
						}
					}
				}
				fmt.Fprintf(&table, "  %c right %d alone %d findings %d", c, right, alone, findings)
			}
			t.Log(table.String())
		})
	}
}

// TestTwoQuotes deletes two quotation marks on different lines, which nearly always gives
// two findings.
func TestTwoQuotes(t *testing.T) {
	two, more := 0, 0
	for _, file := range policies(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		d := Parse("p", text)
		if len(d.Syntax) > 0 || len(text) > 8<<10 || len(d.Source.Comments) > 0 {
			continue
		}
		var quotes []int
		for i := range text {
			if text[i] == '"' {
				quotes = append(quotes, i)
			}
		}
		for n := 0; n < 12 && len(quotes) > 12; n++ {
			i, j := quotes[n*len(quotes)/24], quotes[len(quotes)/2+n*len(quotes)/24]
			if d.Source.Position(i).Line == d.Source.Position(j).Line {
				continue
			}
			broken := Parse("p", []byte(string(text[:i])+string(text[i+1:j])+string(text[j+1:])))
			if len(broken.Syntax) <= 2 {
				two++
			} else if more++; testing.Verbose() {
				t.Logf("%s: %v and %v: %d findings", filepath.Base(file), d.Source.Position(i), d.Source.Position(j), len(broken.Syntax))
			}
		}
	}
	t.Logf("%d with two findings, %d with more", two, more)
	if two < 20*more {
		t.Errorf("%d of %d have more than two findings", more, two+more)
	}
}

func inComment(d *Document, offset int) bool {
	return slices.ContainsFunc(d.Source.Comments, func(s Span) bool { return s.Start <= offset && offset < s.End })
}

// policies returns the policies of the fixtures, and those in SSPOLICY_CORPUS.
func policies(t *testing.T) []string {
	files, err := filepath.Glob("../fixtures/*.json")
	if err != nil {
		t.Fatal(err)
	}
	if corpus := os.Getenv("SSPOLICY_CORPUS"); corpus != "" {
		err := filepath.WalkDir(corpus, func(path string, e fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ".json") {
				files = append(files, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}
