package rules

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var knownVulnerable = &lint.Rule{
	Name:     "known-vulnerable",
	Severity: schema.Warning,
	Summary:  "the lws version that the policy is for has a known flaw in a protocol that the policy uses",
	Why: `A peer can crash, stop or corrupt the program. Use a release with the fix. Give the release to
--lws, such as 4.3.10; a line, such as 4.3, stands for its newest release. It is an info if only some builds of
lws have the flaw.`,
	LWS: `The fixes, and the releases with them, come from the git history of lws up to 5.0.0
("git tag --contains"). The flaws were not reproduced.`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ], "jitterpc": 20 } } ],
  "s": [ { "a": { "endpoint": "broker.example.com", "port": 8883, "tls": true, "protocol": "mqtt",
                  "mqtt_subscribe": "rooms/+/state", "opportunistic": true, "retry": "default" } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ], "jitterpc": 20 } } ],
  "s": [ { "a": { "endpoint": "192.0.2.1", "port": 22, "tls": true, "protocol": "raw", "opportunistic": true, "retry": "default" } } ] }`,
	Versions: []schema.Version{{Major: 4, Minor: 3}},
	Check: func(p *lint.Pass) {
		for i := range flaws {
			f := &flaws[i]
			affected := p.Versions(f.in)
			if affected == "" {
				continue
			}
			var g *schema.Diagnostic // one per flaw
			for _, d := range streams(p) {
				switch {
				case unclear(d) || !f.uses(d):
				case g == nil:
					g = p.Reportf(d.NameSpan, "lws %s: %s; fixed in %s (commit %s)", affected, f.what, f.releases(), f.commit)
					if strings.HasPrefix(f.what, "built with") {
						g.Severity = schema.Info // unknown here
					}
				default:
					g.Related = append(g.Related, schema.Related{Span: d.NameSpan, Message: d.String() + " is affected too"})
				}
			}
		}
	},
}

// A flaw is a vulnerability of lws that a peer can exploit.
type flaw struct {
	what   string
	commit string   // of the fix in the newest line
	fixed  []string // the first release of each line that has the fix, oldest first
	since  string   // the first line that is known to be affected; empty for all
	uses   func(*schema.Definition) bool
}

// in reports whether a version has the flaw.
func (f *flaw) in(v schema.Version) bool {
	newest := f.fixed[len(f.fixed)-1]
	if v.Has(newest) || f.since != "" && !v.Has(f.since) {
		return false
	}
	return !slices.ContainsFunc(f.fixed, func(release string) bool {
		return strings.HasPrefix(release, v.Line().String()+".") && v.Has(release)
	})
}

func (f *flaw) releases() string { return strings.Join(f.fixed, ", ") }

// flaws are the vulnerabilities that affect streams of a policy.
var flaws = []flaw{
	{"a broker can make lws loop without end by a packet of MQTT", "a06bb13e0", []string{"4.4.5", "4.5.8", "5.0.0"}, "", speaks("mqtt")},
	{"a broker can corrupt the connection with a PUBLISH packet that is too short", "a6629f9f2", []string{"5.0.0"}, "", speaks("mqtt")},
	{"the peer of an h2 connection can make lws allocate memory without a limit (HPACK)", "061adbccd", []string{"4.4.5", "4.5.8", "5.0.0"}, "", overH2},
	{"the peer of an h2 connection can use up memory and cause a use after free with CONTINUATION frames", "7a64c40cd", []string{"4.4.5", "4.5.8", "5.0.0"}, "", overH2},
	{"the peer of an HTTP connection can send a negative content-length", "cb29a5d54", []string{"4.4.5", "4.5.8", "5.0.0"}, "", speaks("h1", "h2", "ws")},
	{"an http server can make the size of a chunk overflow", "d4d863fd2", []string{"4.5.3", "5.0.0"}, "", connects("h1")},
	{"built with LWS_WITH_SYS_ASYNC_DNS, the answer of a name server can overflow a buffer", "2bb959856", []string{"4.3.7", "4.4.2", "4.5.0"}, "", looksUp},
	{"built with LWS_WITH_SYS_ASYNC_DNS, a repeated answer of a name server causes a use after free", "c45738b37", []string{"4.5.0"}, "", looksUp},
	{"built with LWS_WITH_SYS_ASYNC_DNS, a CNAME of a name server is read past its end", "ac0215ddb", []string{"4.4.5", "4.5.8", "5.0.0"}, "", looksUp},
	{"a client of a server that can be upgraded to another protocol causes a use after free", "2f082ec31", []string{"4.3.7", "4.4.2", "4.5.0"}, "", upgrades},
	{"the name of a rideshare overflows a buffer of the proxy and of its client", "0fd43cd9e", []string{"4.4.5", "4.5.8", "5.0.0"}, "4.4", proxied},
}

// speaks returns a function that reports whether a streamtype has one of these
// protocols on the network.
func speaks(protocols ...string) func(*schema.Definition) bool {
	return func(d *schema.Definition) bool {
		return slices.Contains(protocols, d.Protocol()) && !d.Bool("local_sink") && !strings.HasPrefix(d.Text("endpoint"), "file://")
	}
}

func connects(protocol string) func(*schema.Definition) bool {
	return func(d *schema.Definition) bool { return !d.Bool("server") && speaks(protocol)(d) }
}

// overH2 reports whether a streamtype makes h2 connections: lws agrees on h2 by
// TLS alone.
func overH2(d *schema.Definition) bool { return speaks("h2")(d) && d.Bool("tls") }

// looksUp reports whether a streamtype looks up the address of a host.
func looksUp(d *schema.Definition) bool {
	host := d.Text("endpoint")
	if e := parseEndpoint(host); e.overrides {
		host = e.host
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err != nil && host != "" && host != "localhost" && !strings.HasPrefix(host, "+") && !d.Bool("server") && speaks("h1", "h2", "h3", "ws", "mqtt", "raw")(d)
}

func upgrades(d *schema.Definition) bool {
	return d.Bool("server") && (d.Protocol() == "ws" || d.Protocol() == "h1" && d.Get("ws_subprotocol") != nil)
}

// proxied reports whether a streamtype is for the proxy of lws.
func proxied(d *schema.Definition) bool {
	return slices.ContainsFunc(d.Settings, func(s *schema.Setting) bool {
		return s.Key != nil && (strings.HasPrefix(s.Key.Name, "proxy_buflen") || strings.HasPrefix(s.Key.Name, "client_buflen"))
	})
}
