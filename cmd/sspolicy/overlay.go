package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/secure-streams/sspolicy"
	"github.com/secure-streams/sspolicy/internal/report"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

type overlayCmd struct {
	Files    []string `arg:"" name:"file" help:"The policy, and the fragments to apply, in this order. A fragment may come first if it names its base in x-sspolicy, or the configuration does."`
	Output   string   `short:"o" placeholder:"OUT" help:"Write to this file instead of standard output."`
	Diff     bool     `xor:"what" help:"Print the changes as a unified diff instead of the result."`
	Explain  bool     `xor:"what" help:"Print each setting that changes, with its position in the base and the fragment, instead of the result."`
	Format   string   `enum:"text,json,patch" default:"text" help:"text prints the result (the default), json the changes as JSON, patch a JSON Patch (RFC 6902)."`
	Mode     modeFlag `default:"author" placeholder:"MODE" help:"How fragments are applied: author, as their author means them (the default), or lws=VERSION, as lws_ss_policy_overlay of lws 4.1 to 5.0 does."`
	AllowNew bool     `help:"Let fragments add streamtypes."`
	colorFlag
}

// A modeFlag selects how fragments are applied. The zero version stands for author.
type modeFlag struct{ lws schema.Version }

// UnmarshalText parses the value of a flag.
func (m *modeFlag) UnmarshalText(text []byte) error {
	version, ok := strings.CutPrefix(string(text), "lws=")
	switch {
	case ok:
		return m.lws.UnmarshalText([]byte(version))
	case string(text) == "author":
		return nil
	}
	return fmt.Errorf("unknown mode %q: want author or lws=VERSION", text)
}

// Help returns the description for "sspolicy overlay --help".
func (overlayCmd) Help() string {
	return `A fragment is a policy that holds only what differs: {"s": [{"mintest": {"port": 1}}]}. A setting replaces that of the base or is added; null removes it. Metadata items and statuses of http_resp_map are replaced one by one. A backoff scheme, certificate, trust store, auth scheme or metric policy is added, or replaces the one of its name. Refuses a result with errors. With --mode lws=VERSION, prints the result in any case, and fails if lws refuses or misreads a fragment.`
}

// Validate checks the flags.
func (c *overlayCmd) Validate() error {
	if c.Format != "text" && (c.Diff || c.Explain) {
		return fmt.Errorf("--format %s: --diff and --explain print text", c.Format)
	}
	if c.AllowNew && c.Mode.lws != (schema.Version{}) {
		return fmt.Errorf("--allow-new is for --mode author")
	}
	for _, f := range c.Files[1:] {
		if f != "-" && identity(f) == identity(c.Output) {
			return fmt.Errorf("--output: %s is a fragment", c.Output)
		}
	}
	return nil
}

// Run executes the command.
func (c *overlayCmd) Run(p *program) error {
	base, fragments, err := p.assemble(c.Files[0], c.Files[1:])
	if err != nil {
		return err
	}
	switch {
	case len(fragments) == len(c.Files) && c.Output != "" && identity(c.Files[0]) == identity(c.Output):
		return usage("--output: %s is a fragment", c.Output)
	case len(fragments) == 0:
		return usage("%s: want a fragment too, or one whose base x-sspolicy or the configuration names", displayName(c.Files[0]))
	}
	var o lint.Options
	if c.Mode.lws != (schema.Version{}) {
		o.LWS = []schema.Version{c.Mode.lws}
	}
	r := sspolicy.Overlay(base, fragments, overlay.Options{AllowNew: c.AllowNew, LWS: c.Mode.lws}, o)
	found := aboutOverlay(base, r.Diagnostics)
	if err := report.Write(p.stderr, report.FormatText, found); err != nil {
		return err
	}
	failed := schema.HasErrors(found)
	if r.Document == nil || failed && c.Mode.lws == (schema.Version{}) {
		return errFindings
	}
	if err := c.write(p, base, r); err != nil {
		return err
	}
	if failed {
		return errFindings
	}
	return nil
}

// aboutOverlay returns the diagnostics that matter for an overlay: errors, warnings
// in fragments, and infos about fragments, each text once per fragment.
func aboutOverlay(base *schema.Document, found []schema.Diagnostic) []schema.Diagnostic {
	type info struct {
		in   *schema.Source
		text string
	}
	had := map[info]bool{}
	return slices.DeleteFunc(slices.Clone(found), func(d schema.Diagnostic) bool {
		switch d.Severity {
		case schema.Error:
			return false
		case schema.Warning:
			return d.Span.Source == base.Source
		}
		i := info{d.Span.Source, d.Message}
		again := had[i]
		had[i] = true
		return again || !strings.HasPrefix(d.Rule, "overlay-")
	})
}

// write writes the result in the form that the flags select.
func (c *overlayCmd) write(p *program, base *schema.Document, r overlay.Result) error {
	switch {
	case c.Diff:
		name := diffName(base.Source.Name)
		return c.diff(p, c.Output, "a/"+name, base.Source.Text, "b/"+name, r.Document.String())
	case c.Explain:
		return p.output(c.Output, func(w io.Writer) error { return explainChanges(w, r.Changes) })
	case c.Format == "json":
		return p.output(c.Output, func(w io.Writer) error { return report.Encode(w, newChangesJSON(r.Changes)) })
	case c.Format == "patch":
		return p.output(c.Output, func(w io.Writer) error { return report.Encode(w, overlay.Patch(base, r.Document)) })
	}
	return p.output(c.Output, write(r.Document.String()))
}

// explainChanges writes a line for each change.
func explainChanges(w io.Writer, changes []overlay.Change) error {
	var b strings.Builder
	for _, c := range changes {
		fmt.Fprintf(&b, "%v: %s: ", c.By, c.Path())
		switch {
		case c.Before == nil && c.Key == "": // a definition, which the policy does not have
			fmt.Fprintf(&b, "add %s", short(c.After))
		case c.Before == nil:
			fmt.Fprintf(&b, "add %s (to %v)", short(c.After), c.Definition)
		case c.After == nil:
			fmt.Fprintf(&b, "remove %s (at %v)", short(c.Before), c.Before.Span)
		default:
			fmt.Fprintf(&b, "%s -> %s (at %v)", short(c.Before), short(c.After), c.Before.Span)
		}
		if c.Why != "" {
			fmt.Fprintf(&b, ": %s", c.Why)
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, harmless(b.String()))
	return err
}

// short returns a value as one line of limited length.
func short(v *schema.Value) string {
	const most = 80
	text := string(overlay.Plain(v))
	if utf8.RuneCountInString(text) > most {
		text = string([]rune(text)[:most]) + "…"
	}
	return text
}

// changesVersion is the version of the JSON form of changes.
const changesVersion = 1

type changesJSON struct {
	Version int          `json:"version"`
	Changes []changeJSON `json:"changes"`
}

type changeJSON struct {
	Path    string          `json:"path"`              // such as s.api.port
	Section string          `json:"section,omitempty"` // empty for a setting of the policy
	Name    string          `json:"name,omitempty"`    // of the definition
	Key     string          `json:"key,omitempty"`     // empty if the whole definition changes
	Item    string          `json:"item,omitempty"`    // of a list by name
	Before  json.RawMessage `json:"before,omitempty"`
	After   json.RawMessage `json:"after,omitempty"`
	At      placeJSON       `json:"at"` // the value before, or the definition that it is added to
	By      placeJSON       `json:"by"` // the fragment
	Why     string          `json:"why,omitempty"`
}

type placeJSON struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
}

func (p placeJSON) String() string {
	return fmt.Sprintf("%s:%d:%d", harmless(p.File), p.Line, p.Column)
}

func newPlaceJSON(s schema.Span) placeJSON {
	at := s.Position()
	return placeJSON{s.Source.Name, at.Line, at.Column}
}

func newChangesJSON(changes []overlay.Change) changesJSON {
	j := changesJSON{Version: changesVersion, Changes: []changeJSON{}}
	for _, c := range changes {
		at := c.Definition
		if c.Before != nil {
			at = c.Before.Span
		}
		j.Changes = append(j.Changes, changeJSON{
			Path: c.Path(), Section: string(c.Section), Name: c.Name, Key: c.Key, Item: c.Item,
			Before: overlay.Plain(c.Before), After: overlay.Plain(c.After),
			At: newPlaceJSON(at), By: newPlaceJSON(c.By), Why: c.Why,
		})
	}
	return j
}
