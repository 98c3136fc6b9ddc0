package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

// expanded are the keys in whose values lws replaces ${name} by metadata.
var expanded = map[string]bool{
	"endpoint": true, "http_url": true, "mqtt_topic": true, "mqtt_subscribe": true,
	"mqtt_will_topic": true, "mqtt_will_message": true, "mqtt_birth_topic": true, "mqtt_birth_message": true,
}

// longestSymbol is the longest name in ${name}.
const longestSymbol = 31

// A symbol is a "$" that lws does not keep as it is.
type symbol struct {
	start, end int
	name       string // of ${name}
	problem    string // what is wrong with its form
}

// symbols finds the symbols of a string as lws does (lws_strexp_expand): they
// cannot be escaped, and "${" extends to the next "}".
func symbols(s string) []symbol {
	var found []symbol
	for i := 0; ; {
		at := strings.IndexByte(s[i:], '$')
		if at < 0 {
			return found
		}
		i += at
		switch rest := s[i+1:]; {
		case rest == "":
			return append(found, symbol{start: i, end: i + 1, problem: `lws drops a "$" at the end`})
		case rest[0] == '$':
			found = append(found, symbol{start: i, end: i + 2, problem: `lws makes one "$" more of "$$"`})
			i += 2
			for i < len(s) && s[i] == '$' {
				i++
			}
			if i < len(s) && s[i] == '{' {
				i-- // the last one of them starts a symbol
			}
			found[len(found)-1].end = i
		case rest[0] != '{':
			i++
		default:
			end := strings.IndexByte(rest, '}')
			if end < 0 {
				return append(found, symbol{start: i, end: len(s), problem: `"${" is not closed: lws drops it and all that follows`})
			}
			sym := symbol{start: i, end: i + 1 + end + 1, name: rest[1:end]}
			switch {
			case sym.name == "":
				sym.problem = "there is no name in ${}"
			case len(sym.name) > longestSymbol:
				sym.problem = "the name in ${} is longer than 31 bytes, which lws cannot look up"
			}
			found = append(found, sym)
			i = sym.end
		}
	}
}

// eachSymbol calls f for the symbols in the settings of a client streamtype.
func eachSymbol(s *schema.Definition, f func(k *schema.Key, v *schema.Value, sym symbol)) {
	if s.Bool("server") {
		return
	}
	protocol := s.Protocol()
	for _, set := range s.Settings {
		v := &set.Member.Value
		if v.Kind != schema.String || set.Key == nil || !expanded[set.Key.Name] || !set.Key.Serves(protocol) {
			continue
		}
		text := v.Text()
		if len(text) > schema.MaxString {
			continue // a bad-length, of which lws keeps another part
		}
		for _, sym := range symbols(text) {
			f(set.Key, v, sym)
		}
	}
}

// metadata returns the items of a streamtype's metadata. There may be several
// lists, which lws joins.
func metadata(s *schema.Definition) []*schema.Member {
	var items []*schema.Member
	for _, set := range s.Settings {
		if set.Key != nil && set.Key.Name == "metadata" {
			for _, e := range set.Member.Value.Elems() {
				items = append(items, e.Value.Members()...)
			}
		}
	}
	return items
}
