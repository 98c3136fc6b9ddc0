package policytest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy"
	"github.com/secure-streams/sspolicy/faulttest"
	"github.com/secure-streams/sspolicy/internal/readfile"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/schema"
)

// Options configure the run of tests.
type Options struct {
	// Transports returns the transports of a run; see faulttest.Options.
	Transports func(hurry int) []transport.Transport

	// Hurry divides the times of faults; see faulttest.Options.
	Hurry int

	shortest time.Duration // minimum of a timeout after Hurry; see faulttest.Options
}

// A Result is the result of a test.
type Result struct {
	*Test
	Failures []Failure
	Elapsed  time.Duration

	got *observation // nil if the test could not run
}

// OK reports whether all expectations hold.
func (r *Result) OK() bool { return len(r.Failures) == 0 }

// workers is the number of concurrent tests, which mostly wait.
const workers = 16

// Run runs the tests of a file. The error reports files that cannot be read; a
// *sspolicy.Error has the findings of a policy with errors. A failed test under a fault is
// repeated after the others, since a loaded machine misses timeouts.
func (f *File) Run(ctx context.Context, o Options) ([]*Result, error) {
	s, err := f.load()
	if err != nil {
		return nil, err
	}
	authority := faulttest.NewAuthority()
	results := make([]*Result, len(f.Tests))
	var wg sync.WaitGroup
	slots := make(chan struct{}, workers)
	for i, t := range f.Tests {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			results[i] = s.run(ctx, t, o, authority)
		})
	}
	wg.Wait()
	for i, t := range f.Tests {
		if !results[i].OK() && t.Fault != nil && ctx.Err() == nil {
			o.shortest = faulttest.Patient
			results[i] = s.run(ctx, t, o, authority)
		}
	}
	return results, ctx.Err()
}

// A subject is the policy under test.
type subject struct {
	document *schema.Document // with overlays applied
	compiled *policy.Policy

	mu       sync.Mutex
	versions map[schema.Version]*version
}

// A version is the policy as read by a version of lws, or the reason why lws rejects it.
type version struct {
	policy  *policy.Policy
	refused string
}

// load reads and compiles the policy.
func (f *File) load() (*subject, error) {
	d, err := read(f.Policy)
	if err != nil {
		return nil, err
	}
	var fragments []*schema.Document
	for _, name := range f.Overlays {
		fragment, err := read(name)
		if err != nil {
			return nil, err
		}
		fragments = append(fragments, fragment)
	}
	p, err := sspolicy.Compile(d, lint.Options{}, fragments...)
	if err != nil {
		return nil, err
	}
	if len(fragments) > 0 {
		d = overlay.Apply(d, fragments, overlay.Options{}).Document
	}
	return &subject{document: d, compiled: p.Policy, versions: map[schema.Version]*version{}}, nil
}

func read(file string) (*schema.Document, error) {
	text, err := readfile.Any(file, schema.MaxSize)
	if err != nil {
		return nil, err
	}
	return schema.Parse(file, text), nil
}

// forVersion returns the policy as read by a version of lws.
func (s *subject) forVersion(v schema.Version) *version {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.versions[v]
	if known != nil {
		return known
	}
	known = &version{}
	s.versions[v] = known
	_, err := sspolicy.Compile(s.document, lint.Options{LWS: []schema.Version{v}})
	if known.policy = compileFor(s.document, v); err != nil || known.policy == nil {
		known.refused = fmt.Sprintf("lws %v refuses the policy: %v", v, err)
	}
	return known
}

// run runs a test.
func (s *subject) run(ctx context.Context, t *Test, o Options, authority *faulttest.Authority) *Result {
	start := time.Now()
	r := &Result{Test: t}
	got, at, err := s.observe(ctx, t, o, authority)
	r.Elapsed = time.Since(start)
	if err != nil {
		r.Failures = []Failure{{At: at, Problem: strings.TrimPrefix(err.Error(), "sspolicy: ")}}
		return r
	}
	r.got = got
	if t.expect == nil {
		if t.Fault == nil {
			r.Failures = []Failure{{At: t.At, Problem: "no expectations: --write fills them in"}}
		}
		return r
	}
	for _, f := range fields {
		want := t.expectation(f.name)
		if want == nil {
			continue
		}
		value, ok := f.get(got)
		if !ok {
			why := "this streamtype has none"
			if t.Fault != nil {
				why = "a test under a fault has none"
			}
			r.Failures = append(r.Failures, Failure{Field: f.name, At: want.Span, Problem: why})
			continue
		}
		r.Failures = append(r.Failures, f.compare(want, value)...)
	}
	return r
}

// observe returns the observed behaviour of the stream of a test, or an error and its
// position in the file.
func (s *subject) observe(ctx context.Context, t *Test, o Options, authority *faulttest.Authority) (*observation, schema.Span, error) {
	p := s.compiled
	if t.LWS != nil {
		v := s.forVersion(*t.LWS)
		if v.refused != "" {
			return nil, t.at["lws"], errors.New(v.refused)
		}
		p = v.policy
	}
	st := p.StreamType(t.Stream)
	if st == nil {
		var names []string
		for _, st := range p.StreamTypes {
			names = append(names, st.Name)
		}
		return nil, t.at["stream"], fmt.Errorf("%w %q%s", policy.ErrUnknownStreamType, t.Stream, didYouMean(t.Stream, names))
	}
	got := &observation{st: st, values: make([]policy.Value, len(st.Metadata)), proxy: p.Effective(t.Stream).SOCKS5Proxy}
	if st.TrustStore != nil {
		got.trust = st.TrustStore.Name
	}
	if t.LWS != nil {
		got.trust = trustFor(schema.NewPolicy(s.document), t.Stream)
	}
	for _, m := range t.Metadata {
		if i := policy.ItemIndex(st.Metadata, m.Name); i >= 0 {
			got.values[i] = policy.Value{Text: m.Value, Set: true}
		}
	}
	if t.Fault != nil {
		return s.fault(ctx, p, t, o, authority, got)
	}
	if !got.client() {
		return nil, t.at["stream"], fmt.Errorf("streamtype %q is a server or local: tests are about connections to a server", t.Stream)
	}
	err := got.observe(ctx, p, t.Metadata, o.Transports(1))
	if wrong, ok := errors.AsType[*metadataError](err); ok {
		return nil, wrong.item.At, err
	}
	return got, t.at["stream"], err
}

// fault runs the stream against the fault of a test. Unless the test expects
// states, the catalogue determines them.
func (s *subject) fault(ctx context.Context, p *policy.Policy, t *Test, o Options, authority *faulttest.Authority, got *observation) (*observation, schema.Span, error) {
	report, err := faulttest.Run(ctx, p, t.Stream, t.Fault, faulttest.Options{
		Args: t.Args, Transports: o.Transports, Hurry: o.Hurry, Shortest: o.shortest, Authority: authority,
	})
	if err != nil {
		return nil, t.at["fault"], err
	}
	if !report.OK && t.expectation("states") == nil {
		return nil, t.at["fault"], fmt.Errorf("%s; the states are %s", report.Problem, report.Got)
	}
	got.states = report.Got
	return got, t.at["fault"], nil
}
