package cookies

import (
	"net/http"
	"strings"
)

// parseSetCookie parses a Set-Cookie header as browsers do (RFC 6265bis section
// 5.6): name and value may contain spaces, commas, quotes and bytes above 0x7f,
// which http.ParseSetCookie rejects or changes. It rejects a cookie without a name,
// or with a control character.
func parseSetCookie(line string) (*http.Cookie, bool) {
	if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return nil, false
	}
	pair, attributes, _ := strings.Cut(line, ";")
	name, value, found := strings.Cut(pair, "=")
	name, value = strings.Trim(name, " \t"), strings.Trim(value, " \t")
	if !found || name == "" || strings.Contains(name+value, "\t") { // like curl, whose files separate fields by tabs
		return nil, false
	}
	c, err := http.ParseSetCookie("x=y;" + attributes)
	if err != nil {
		return nil, false
	}
	c.Name, c.Value = name, value
	return c, true
}
