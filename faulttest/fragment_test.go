package faulttest_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/secure-streams/sspolicy"
	"github.com/secure-streams/sspolicy/codegen"
	"github.com/secure-streams/sspolicy/faulttest"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

// corpus returns the policies of the fixtures, and those of the corpus if one is set, that
// compile.
func corpus(t *testing.T) map[string]*sspolicy.Policy {
	files, _ := filepath.Glob("../fixtures/*.json")
	if dir := os.Getenv("SSPOLICY_CORPUS"); dir != "" {
		more, _ := filepath.Glob(filepath.Join(dir, "lws", "*.json"))
		files = append(files, more...)
	}
	all := map[string]*sspolicy.Policy{}
	for _, f := range files {
		if p, err := sspolicy.Load(f, sspolicy.Options{}); err == nil {
			all[f] = p
		}
	}
	if len(all) == 0 {
		t.Fatal("no policies")
	}
	return all
}

// TestFragment checks that a fragment changes a policy as Apply changes its compiled form.
func TestFragment(t *testing.T) {
	authority := faulttest.NewAuthority()
	n := 0
	for file, p := range corpus(t) {
		for _, st := range p.Policy.StreamTypes {
			for _, f := range []*faulttest.Fault{faulttest.Reset, faulttest.SOCKSRefused, faulttest.NoNetwork, faulttest.DNSNXDomain, faulttest.TLSExpired} {
				if ok, _ := f.Fits(st); !ok {
					continue
				}
				n++
				d, err := faulttest.Open(p.Policy, st.Name, f, faulttest.Options{Authority: authority})
				if err != nil {
					t.Errorf("%s: %v", file, err)
					continue
				}
				d.Close()
				text := d.Fragment(p.Policy)
				r := overlay.Apply(p.Document, []*schema.Document{schema.Parse("fragment", text)}, overlay.Options{})
				if r.Document == nil {
					t.Errorf("%s: %v\n%s", file, r.Diagnostics, text)
					continue
				}
				got, diags := codegen.Compile(schema.NewPolicy(r.Document))
				if schema.HasErrors(diags) {
					t.Errorf("%s: %v\n%s", file, diags, text)
					continue
				}
				want := d.Policy
				for _, want := range want.StreamTypes {
					got := got.StreamType(want.Name)
					// Apply writes settings that a streamtype inherits from the policy to
					// the streamtype.
					if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(policy.StreamType{}, "SOCKS5Proxy"), cmpopts.EquateEmpty()); diff != "" {
						t.Errorf("%s: %s of %s differs:\n%s", file, want.Name, f.Name, diff)
					}
				}
				if got, want := got.Effective(st.Name).SOCKS5Proxy, want.Effective(st.Name).SOCKS5Proxy; got != want {
					t.Errorf("%s: %s of %s: proxy %q, want %q", file, st.Name, f.Name, got, want)
				}
			}
		}
	}
	t.Logf("%d fragments", n)
}
