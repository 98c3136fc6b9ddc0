package lint_test

import (
	"fmt"
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/schema"
)

// A program can check policies with its own rules in addition to those of sspolicy.
// Comments may suppress a name with a slash even if the rule is not known.
func Example_ownRule() {
	ownHosts := &lint.Rule{
		Name:     "corp/own-hosts",
		Severity: schema.Warning,
		Summary:  "a streamtype connects to a host outside of our domain",
		Check: func(p *lint.Pass) {
			for _, s := range p.Policy.Section(schema.Streams) {
				endpoint := s.Get("endpoint")
				if endpoint != nil && !strings.HasSuffix(endpoint.Member.Value.Text(), ".example.com") {
					p.Reportf(endpoint.Member.Value.Span, "%s connects to %s", s, endpoint.Member.Value.Text())
				}
			}
		},
	}
	d := schema.Parse("policy.json", []byte(`{"s": [
  {"news": {"endpoint": "news.example.com", "port": 443, "tls": true, "http_method": "GET", "http_url": "today"}},
  {"test": {"endpoint": "localhost", "port": 80, "http_method": "GET", "http_url": "today"}}
]}`))
	for _, g := range lint.Run(d, rules.All(), lint.Options{Rules: []*lint.Rule{ownHosts}}) {
		if g.Severity > schema.Info {
			fmt.Printf("%v: %v: %s [%s]\n", g.Span, g.Severity, g.Message, g.Rule)
		}
	}
	// Output:
	// policy.json:3:25: warning: streamtype "test" connects to localhost [corp/own-hosts]
}
