package codegen

import (
	"cmp"
	"fmt"
	"io"
)

// A CJSONForm is a form of the C source that CJSON writes.
type CJSONForm int

// The forms of C source.
const (
	CJSONHeader  CJSONForm = iota // a header that defines a string
	CJSONInclude                  // the text between the braces of a definition
)

// CJSON writes a policy in JSON as a C string, for pss_policies_json of
// lws_context_creation_info. It ignores o.Target and o.Entry.
func CJSON(w io.Writer, json string, form CJSONForm, o COptions) error {
	if err := CheckSymbols(o.Prefix, ""); err != nil {
		return err
	}
	o.Prefix = cmp.Or(o.Prefix, defaultPrefix)
	text := cString(json)
	if len(json) >= maxCString {
		text = cChars(json)
	}
	c := &cFile{o: o}
	if form == CJSONInclude {
		_, err := fmt.Fprintf(w, "%s\n%s\n", c.comment(), text)
		return err
	}
	_, err := io.WriteString(w, c.comment()+c.guard("POLICY_JSON_H", fmt.Sprintf(
		"\n/* For pss_policies_json of lws_context_creation_info. */\nstatic const char %spolicy_json[] = {\n%s\n};\n", o.Prefix, text)))
	return err
}
