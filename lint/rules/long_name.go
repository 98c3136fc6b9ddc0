package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var longName = &lint.Rule{
	Name:       "long-name",
	ParserOnly: true,
	Severity:   schema.Error,
	Summary:    "a name is too long for lws's parser",
	Why: `The parser builds the path of each key, such as s[].NAME.metadata[].ITEM, in a buffer.
Streamtypes with names of at most 63 bytes work everywhere.`,
	LWS: `A path has up to 127 bytes, 124 if an array follows, in 4.1 to 4.3, and 191 or 188 from
4.4 on. With a longer one, 4.1 and 4.2 overwrite memory of the parser; later versions refuse the
policy. All versions lose the names of metadata if the name of the streamtype is over 112 bytes,
and the statuses of http_resp_map if it is over 107 (4.1.6 to 5.0.0; http_resp_map came with 4.2).`,
	Bad: `{ "s": [ { "the-stream-that-carries-the-reports-of-all-the-temperature-sensors-in-the-second-basement-of-the-southern-building":
             { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "POST", "http_url": "reports",
               "metadata": [ { "type": "content-type:" } ] } } ] }`,
	Good: `{ "s": [ { "reports-of-temperature":
             { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "POST", "http_url": "reports",
               "metadata": [ { "type": "content-type:" } ] } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range streams(p) {
			for _, s := range d.Settings {
				if most := longestStream[s.Member.Key]; most > 0 && len(d.Name) > most && len(s.Member.Value.Elems()) > 0 {
					p.Reportf(d.NameSpan, "this name has %d bytes: over %d bytes lws loses the items of %s", len(d.Name), most, s.Member.Key)
					break
				}
			}
		}
		var walk func(v *schema.Value, path int)
		walk = func(v *schema.Value, path int) {
			for _, m := range v.Members() {
				n := path + len(m.Key)
				array := m.Value.Kind == schema.ArrayKind
				if over := p.Versions(func(v schema.Version) bool { return n > longestPath(v, array) }); over != "" {
					most := n
					for _, v := range p.LWS {
						most = min(most, longestPath(v, array))
					}
					p.Reportf(m.Name.Span, "the path to %s has %d bytes, and lws %s has room for %d: shorten the names in it",
						schema.QuoteName(m.Key), n, over, most)
					continue
				}
				walk(&m.Value, n+len("."))
			}
			for _, e := range v.Elems() {
				after := path + len("[]")
				if e.Value.Kind == schema.ArrayKind {
					after-- // no dot, and the next "[]"
				}
				walk(&e.Value, after)
			}
		}
		walk(&p.Policy.Document.Root, 0)
	},
}

// longestStream is the longest name of a streamtype with a list.
var longestStream = map[string]int{"metadata": 112, "http_resp_map": 107}

// longestPath is the longest path to a key, or to one whose value is an array.
func longestPath(v schema.Version, array bool) int {
	longest := 191
	if before(4, 4)(v) {
		longest = 127
	}
	if array {
		longest -= 3
	}
	return longest
}
