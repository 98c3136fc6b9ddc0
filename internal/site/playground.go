package main

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
)

// ruleOf returns the rule that a file describes.
func ruleOf(source string) (string, bool) {
	name, ok := strings.CutPrefix(source, "docs/rules/")
	return strings.TrimSuffix(name, ".md"), ok && name != "README.md"
}

// heading matches the headings of the examples of a rule.
var heading = regexp.MustCompile(`(?m)^## (Wrong|Right)\b.*$`)

// withPlayground adds links to the playground to the examples on the page of a rule.
func withPlayground(rule string, content []byte) ([]byte, error) {
	r := rules.Lookup(rule)
	if r == nil {
		return nil, fmt.Errorf("docs/rules/%s.md: there is no such rule", rule)
	}
	var err error
	out := heading.ReplaceAllFunc(content, func(line []byte) []byte {
		example := r.Good
		if bytes.HasPrefix(line, []byte("## Wrong")) {
			example = r.Bad
		}
		to, encodeErr := playgroundLink(r, example)
		if encodeErr != nil {
			err = encodeErr
		}
		return fmt.Appendf(nil, "%s\n\n[Open in the playground](../playground/#%s)", line, to)
	})
	return out, err
}

// playgroundLink returns the fragment of a URL that opens an example. link.js of the
// playground reads it.
func playgroundLink(r *lint.Rule, example string) (string, error) {
	state := map[string]string{"policy": strings.TrimLeft(example, "\n")}
	if r.Base != "" {
		state = map[string]string{"policy": strings.TrimLeft(r.Base, "\n"), "fragment": strings.TrimLeft(example, "\n"), "view": "overlay"}
	}
	if len(r.Versions) > 0 {
		state["lws"] = r.Versions[0].Line().String()
	}
	text, err := json.Marshal(state)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		return "", err
	}
	if _, err := w.Write(text); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	return "1." + base64.RawURLEncoding.EncodeToString(b.Bytes()), nil
}
