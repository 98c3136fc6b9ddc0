package starter

import (
	"crypto/x509"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/codegen"
	"github.com/secure-streams/sspolicy/internal/config"
	"github.com/secure-streams/sspolicy/internal/project"
	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

var authority = testcert.New("starter")

// each calls f with all options that Check accepts.
func each(f func(Options)) {
	for p := policy.Protocol(0); p.Named(); p++ {
		for _, server := range []bool{false, true} {
			for _, tls := range []bool{false, true} {
				o := Options{Protocol: p, Server: server, Stream: "example", Endpoint: "example.com", TLS: tls}
				if server && tls {
					pair := authority.Server(nil, "example.com").Certificates[0]
					o.Key = testcert.KeyDER(pair)
					o.Cert, _ = x509.ParseCertificate(pair.Certificate[0])
				}
				if o.Check() == nil {
					f(o)
				}
			}
		}
	}
}

// TestPolicy checks that each policy has no finding except one about a peer, for any
// version of lws that supports the protocol, and that its streamtype matches the options.
func TestPolicy(t *testing.T) {
	n := 0
	each(func(o Options) {
		n++
		text, found := o.Policy()
		for _, g := range found {
			if g.Rule != "h2-window" && !(g.Rule == "server-chain" && o.Key != nil) {
				t.Errorf("%+v: %v: %s [%s]", o, g.Span, g.Message, g.Rule)
			}
		}
		d := schema.Parse("policy.json", []byte(text))
		for _, v := range schema.Versions {
			if o.Protocol == policy.ProtocolH3 && v != schema.Latest() {
				continue
			}
			for _, g := range lint.Run(d, rules.All(), lint.Options{LWS: []schema.Version{v}}) {
				if g.Severity == schema.Error {
					t.Errorf("%+v: lws %v: %s [%s]", o, v, g.Message, g.Rule)
				}
			}
		}
		p, wrong := codegen.Compile(schema.NewPolicy(d))
		if schema.HasErrors(wrong) {
			t.Fatalf("%+v: %v", o, wrong)
		}
		st := p.StreamType("example")
		if st == nil || st.Protocol != o.Protocol || st.Server != o.Server || st.TLS != o.TLS || (st.ServerKey != nil) != (o.Key != nil) || st.Port != o.DefaultPort() {
			t.Errorf("%+v: %+v", o, st)
		}
		if formatted, err := schema.Format(d); err != nil || formatted != text {
			t.Errorf("%+v is not as fmt writes it:\n%s", o, formatted)
		}
	})
	if n != 18 {
		t.Errorf("%d policies", n)
	}
}

// TestNames checks that names that cannot be in a policy are lint errors rather than broken
// JSON.
func TestNames(t *testing.T) {
	for _, name := range []string{`a"b`, "a\nb", `\`, "ä", "a#b", "", strings.Repeat("x", 300)} {
		o := Options{Protocol: policy.ProtocolMQTT, Stream: name, Endpoint: name}
		text, _ := o.Policy()
		if d := schema.Parse("policy.json", []byte(text)); schema.HasErrors(d.Syntax) {
			t.Errorf("%q: %v", name, d.Syntax)
		}
	}
}

// TestConfiguration checks that the configuration is valid and lists every setting, with
// and without the examples in its comments.
func TestConfiguration(t *testing.T) {
	comment := regexp.MustCompile(`(?m)^(\s+)// (\s*["{}].*)$`)
	usual := Configuration(schema.Versions)
	for _, text := range []string{usual, comment.ReplaceAllString(usual, "$1$2")} {
		c, wrong := config.Parse(config.Name, []byte(text))
		for _, g := range wrong {
			t.Errorf("%v: %s\n%s", g.Span, g.Message, text)
		}
		for _, r := range c.Rules {
			outcomes := r.Test(time.Time{})
			if len(outcomes) != 2 {
				t.Errorf("%s has %d examples", r.Name, len(outcomes))
			}
			for _, o := range outcomes {
				if o.Problem != "" {
					t.Errorf("%s: %s: %s", r.Name, o.Name, o.Problem)
				}
			}
		}
		if (text != usual) != (len(c.Rules) == 1) {
			t.Errorf("%d rules", len(c.Rules))
		}
		if !slices.Equal(c.LWS, schema.Versions) {
			t.Errorf("versions %v", c.LWS)
		}
	}
	c, _ := config.Parse(config.Name, []byte(usual))
	if got, want := project.Options(c), project.Options(&config.Config{CertWarn: -1, LWS: schema.Versions}); !reflect.DeepEqual(got, want) || c.FailLevel != "warning" {
		t.Errorf("the configuration changes the defaults: %+v, want %+v", got, want)
	}
	d, _, _ := config.Document("config.schema.json", []byte(config.JSONSchema))
	for _, m := range d.Root.Members() {
		if m.Key != "properties" {
			continue
		}
		for _, setting := range m.Value.Members() {
			if !strings.Contains(usual, schema.Quote(setting.Key)) && setting.Key != "$schema" && setting.Key != "with" {
				t.Errorf("the configuration lacks %s", setting.Key)
			}
		}
	}
}
