package rules

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

// streams returns the streamtypes of the policy.
func streams(p *lint.Pass) []*schema.Definition { return p.Policy.Section(schema.Streams) }

// resolution returns the definitions that lws uses for references.
var resolution = lint.Memo(func(p *lint.Pass) *schema.Resolution { return p.Policy.Resolve() })

// A nameSet is a set of names, which is small in nearly all policies. The zero value is
// ready to use.
type nameSet struct {
	few  []string
	many map[string]bool // all names, if there are many
}

func (s *nameSet) add(name string) {
	const few = 16
	switch {
	case s.has(name):
	case s.many != nil:
		s.many[name] = true
	case len(s.few) < few:
		s.few = append(s.few, name)
	default:
		s.many = map[string]bool{name: true}
		for _, n := range s.few {
			s.many[n] = true
		}
	}
}

func (s *nameSet) has(name string) bool {
	if s.many != nil {
		return s.many[name]
	}
	return slices.Contains(s.few, name)
}

// reset empties the set.
func (s *nameSet) reset() { s.few, s.many = s.few[:0], nil }

// rarities are unusual scalars that some rules check.
type rarities struct {
	escaped []scalar // strings with \u escapes, keys included
	long    []scalar // numbers of more than 20 characters
}

// A scalar is a scalar of the policy, or a key.
type scalar struct {
	kind schema.Kind
	at   schema.Span
	raw  string
}

// unusual returns the rarities of the policy.
var unusual = lint.Memo(func(p *lint.Pass) *rarities {
	r := &rarities{}
	eachScalar(&p.Policy.Document.Root, func(v scalar) {
		switch {
		case v.kind == schema.String && strings.Contains(v.raw, `\u`):
			r.escaped = append(r.escaped, v)
		case v.kind == schema.Number && len(v.raw) > 20:
			r.long = append(r.long, v)
		}
	})
	return r
})

// eachScalar calls f for each scalar in a value, and each key.
func eachScalar(v *schema.Value, f func(scalar)) {
	switch v.Kind {
	case schema.ObjectKind:
		for _, m := range v.Object.Members {
			f(scalar{m.NameKind, m.Name.Span, m.RawName()})
			eachScalar(&m.Value, f)
		}
	case schema.ArrayKind:
		for _, e := range v.Array.Elems {
			eachScalar(&e.Value, f)
		}
	default:
		f(scalar{v.Kind, v.Span, v.Raw()})
	}
}

// A credential is an entry of the certs section: a certificate or a private key.
type credential struct {
	der   []byte
	cert  *x509.Certificate // nil if it is not a certificate, or cannot be parsed
	isKey bool
	key   crypto.PublicKey // of a private key; nil if it cannot be read
	rest  []byte           // bytes after it in der
	err   error            // why it is neither a certificate nor a key
	loose bool             // lws may accept it
}

// read holds the credentials that have been read, by their definitions.
var read = lint.Memo(func(*lint.Pass) map[*schema.Definition]*credential {
	return map[*schema.Definition]*credential{}
})

// credentialOf returns the credential in an entry of the certs section, or nil
// if the entry is not base64.
func credentialOf(p *lint.Pass, d *schema.Definition) *credential {
	known := read(p)
	c, ok := known[d]
	if !ok && d.Value.Kind == schema.String {
		if der := decodeCert(d.Value.Text()); der != nil {
			c = readCredential(der)
		}
	}
	known[d] = c
	return c
}

// decodeCert is schema.DecodeCert with a fast path for plain base64. It accepts
// PEM too, which the rule cert-encoding reports.
func decodeCert(text string) []byte {
	der, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(der) == 0 {
		if replacement := pemText(text); replacement != "" {
			text = replacement
		}
		if der, err = schema.DecodeCert(text); err != nil {
			return nil
		}
	}
	return der
}

// privateKey reports whether DER has the form of a private key, which starts
// with its version: PKCS #1 and PKCS #8 with 0, SEC 1 with 1.
func privateKey(der []byte) bool {
	var seq asn1.RawValue
	if _, err := asn1.Unmarshal(der, &seq); err != nil || seq.Class != asn1.ClassUniversal || seq.Tag != asn1.TagSequence {
		return false
	}
	v1, next := bytes.CutPrefix(seq.Bytes, []byte{asn1.TagInteger, 1, 0})
	sec1, octets := bytes.CutPrefix(seq.Bytes, []byte{asn1.TagInteger, 1, 1})
	return next && len(v1) > 0 && (v1[0] == asn1.TagInteger || v1[0] == asn1.TagSequence|0x20) ||
		octets && len(sec1) > 0 && sec1[0] == asn1.TagOctetString
}

func readCredential(der []byte) *credential {
	c := &credential{der: der}
	if c.isKey = privateKey(der); c.isKey {
		if k, err := x509.ParsePKCS8PrivateKey(der); err == nil {
			c.key = public(k)
		} else if k, err := x509.ParseECPrivateKey(der); err == nil {
			c.key = public(k)
		} else if k, err := x509.ParsePKCS1PrivateKey(der); err == nil {
			c.key = public(k)
		}
		return c
	}
	var outer struct {
		Raw       asn1.RawContent
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	rest, err := asn1.Unmarshal(der, &outer)
	if err != nil {
		c.err = errors.New("its DER is not an X.509 certificate")
		return c
	}
	c.rest = rest
	if c.cert, err = x509.ParseCertificate(outer.Raw); err != nil {
		c.cert, c.loose = nil, true
		if !strings.Contains(err.Error(), "unsupported") {
			c.err = errors.New(strings.TrimPrefix(err.Error(), "x509: "))
		}
	}
	return c
}

func public(k any) crypto.PublicKey {
	if k, ok := k.(interface{ Public() crypto.PublicKey }); ok {
		return k.Public()
	}
	return nil
}

// selfIssued reports whether a certificate is its own issuer, as a root is.
func selfIssued(c *x509.Certificate) bool { return bytes.Equal(c.RawIssuer, c.RawSubject) }

// issued reports whether ca is the issuer of c, by names and key identifiers.
func issued(ca, c *x509.Certificate) bool {
	return bytes.Equal(ca.RawSubject, c.RawIssuer) &&
		(len(ca.SubjectKeyId) == 0 || len(c.AuthorityKeyId) == 0 || bytes.Equal(ca.SubjectKeyId, c.AuthorityKeyId))
}

// A use is the purpose of a certificate. Only certificates that a streamtype
// refers to have one.
type use struct {
	stores []*schema.Definition // the trust stores of clients that hold it
	cert   *schema.Definition   // the server that shows it
	key    *schema.Definition   // the server whose private key it is
}

// uses returns the uses of all entries of the certs section that have one.
var uses = lint.Memo(func(p *lint.Pass) map[*schema.Definition]*use {
	uses := map[*schema.Definition]*use{}
	of := func(d *schema.Definition) *use {
		if uses[d] == nil {
			uses[d] = &use{}
		}
		return uses[d]
	}
	r := resolution(p)
	reached := map[*schema.Definition]bool{}
	for _, ref := range p.Policy.References {
		d := r.Definition[ref]
		switch server := ref.From.Bool("server"); {
		case d == nil:
		case ref.Key.Name == "tls_trust_store" && !server:
			reached[d] = true
		case ref.Key.Name == "server_cert" && server:
			of(d).cert = ref.From
		case ref.Key.Name == "server_key" && server:
			of(d).key = ref.From
		}
	}
	for _, ref := range p.Policy.References {
		d := r.Definition[ref]
		if d == nil || ref.Key.Name != "stack" || !reached[ref.From] {
			continue
		}
		u := of(d)
		if n := len(u.stores); n == 0 || u.stores[n-1] != ref.From {
			u.stores = append(u.stores, ref.From)
		}
	}
	return uses
})

// servers returns the references of servers to their certificates and keys.
var servers = lint.Memo(func(p *lint.Pass) map[*schema.Definition][]*schema.Reference {
	servers := map[*schema.Definition][]*schema.Reference{}
	for _, r := range p.Policy.References {
		if (r.Key.Name == "server_cert" || r.Key.Name == "server_key") && r.From.Bool("server") {
			servers[r.From] = append(servers[r.From], r)
		}
	}
	return servers
})

// certs calls f for each certificate that a streamtype uses, in the order of
// the text.
func certs(p *lint.Pass, f func(d *schema.Definition, c *credential, u *use)) {
	used := uses(p)
	for _, d := range p.Policy.Section(schema.Certs) {
		if u := used[d]; u != nil {
			if c := credentialOf(p, d); c != nil {
				f(d, c, u)
			}
		}
	}
}

// largestStack is the maximum number of certificates that lws reads into a trust store.
const largestStack = 6

// stacked returns the certificates that lws reads into the trust stores that streamtypes
// use.
var stacked = lint.Memo(func(p *lint.Pass) map[*schema.Definition][]*schema.Definition {
	stacks := map[*schema.Definition][]*schema.Definition{}
	used := uses(p)
	for _, d := range p.Policy.Section(schema.Certs) {
		if u := used[d]; u != nil {
			for _, s := range u.stores {
				if len(stacks[s]) < largestStack {
					stacks[s] = append(stacks[s], d)
				}
			}
		}
	}
	return stacks
})

// compared counts the names that nearest has compared.
var compared = lint.Memo(func(*lint.Pass) *int { return new(int) })

// nearest returns the most similar name of a definition in a section, or "". It
// gives up in a policy with thousands of wrong names.
func nearest(p *lint.Pass, s schema.Section, name string) string {
	defs := p.Policy.Section(s)
	n := compared(p)
	if *n += len(defs); *n > 1<<20 {
		return ""
	}
	names := make([]string, len(defs))
	for i, d := range defs {
		names[i] = d.Name
	}
	return schema.Nearest(name, names)
}

// inside returns the span of the bytes from start to end of a string's text. If escapes
// hide their positions, it returns the span of the whole string.
func inside(v *schema.Value, start, end int) schema.Span {
	if v.Kind != schema.String || strings.IndexByte(v.Raw(), '\\') >= 0 {
		return v.Span
	}
	return schema.Span{Source: v.Span.Source, Start: v.Span.Start + 1 + start, End: v.Span.Start + 1 + end}
}
