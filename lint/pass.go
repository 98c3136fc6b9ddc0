package lint

import (
	"fmt"
	"strings"
	"time"

	"github.com/secure-streams/sspolicy/schema"
)

// A Pass is one run over a document. Rules read it and report to it, one at a time.
type Pass struct {
	Document *schema.Document // with the correctable syntax errors corrected
	Policy   *schema.Policy   // the view of Document
	LWS      []schema.Version // the versions to check for, at least one
	At       time.Time        // when certificates must be valid
	CertWarn time.Duration    // how long before its expiry a certificate is reported

	rule  *Rule // the rule being checked
	found []*schema.Diagnostic
	limit *schema.Limiter // of the rule; nil means no limit
	memo  map[any]any     // results of Memo functions
}

func newPass(d *schema.Document, o Options) *Pass {
	p := &Pass{Document: d, Policy: schema.NewPolicy(d), LWS: o.LWS, At: o.At, CertWarn: o.CertWarn, memo: map[any]any{}}
	if len(p.LWS) == 0 {
		p.LWS = []schema.Version{schema.Latest()}
	}
	if p.At.IsZero() {
		p.At = time.Now()
	}
	return p
}

// Reportf adds a diagnostic of the current rule. The caller may change the
// severity, related positions and fixes of the result.
func (p *Pass) Reportf(at schema.Span, format string, args ...any) *schema.Diagnostic {
	g := &schema.Diagnostic{Rule: p.rule.Name, Severity: p.rule.Severity, Span: at, Message: fmt.Sprintf(format, args...)}
	if p.limit != nil {
		if instead, keep := p.limit.Add(*g); !keep {
			return instead
		}
	}
	p.found = append(p.found, g)
	return g
}

// locate maps a diagnostic of the pass's document to d, the document before
// correction. It drops the fixes if d has syntax errors.
func (p *Pass) locate(d *schema.Document, g *schema.Diagnostic) {
	if !schema.HasErrors(d.Syntax) {
		return
	}
	g.Fixes = nil
	g.Span = d.Origin(g.Span)
	for i := range g.Related {
		g.Related[i].Span = d.Origin(g.Related[i].Span)
	}
}

// Versions lists the versions of the pass for which f returns true, for a message.
// It returns "" if there are none.
func (p *Pass) Versions(f func(schema.Version) bool) string {
	var list []string
	for _, v := range p.LWS {
		if f(v) {
			list = append(list, v.String())
		}
	}
	return strings.Join(list, ", ")
}

// Memo returns a function that calls f at most once per pass and returns that
// result. Rules use it to share expensive computations.
func Memo[T any](f func(*Pass) T) func(*Pass) T {
	key := new(byte) // unique
	return func(p *Pass) T {
		if v, ok := p.memo[key]; ok {
			return v.(T)
		}
		v := f(p)
		p.memo[key] = v
		return v
	}
}
