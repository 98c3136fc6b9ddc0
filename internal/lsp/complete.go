package lsp

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/internal/config"
	"github.com/secure-streams/sspolicy/internal/explain"
	"github.com/secure-streams/sspolicy/schema"
)

// A cursor is the context of a completion: the open brackets before an offset, with their
// keys, and the word that ends there. It depends only on the text before the offset, since
// the text around it is unfinished.
type cursor struct {
	frames []frame // open objects and arrays, the outermost first
	start  int     // offset of the word
	quoted bool    // the word is a string
}

// A frame is an open object or array.
type frame struct {
	bracket byte
	key     string // of the current member, in an object
	value   bool   // a value is next, not a key
	keys    []string
}

// newCursor scans text up to offset.
func newCursor(text string, offset int) *cursor {
	c := &cursor{start: offset}
	top := func() *frame {
		if len(c.frames) == 0 {
			return &frame{value: true}
		}
		return &c.frames[len(c.frames)-1]
	}
	text = text[:offset]
	for at := 0; at < len(text); {
		switch b := text[at]; {
		case b == '#':
			end := strings.IndexByte(text[at:], '\n')
			if end < 0 {
				return nil // inside a comment
			}
			at += end
		case b == '"':
			end := stringEnd(text, at)
			if end < 0 {
				c.start, c.quoted = at, true
				return c
			}
			if f := top(); f.bracket == '{' && !f.value {
				f.key = schema.Unquote(text[at:end])
				f.keys = append(f.keys, f.key)
			}
			at = end
		case b == '{' || b == '[':
			c.frames = append(c.frames, frame{bracket: b, value: b == '['})
			at++
		case b == '}' || b == ']':
			if len(c.frames) > 0 {
				c.frames = c.frames[:len(c.frames)-1]
			}
			at++
		case b == ':':
			top().value = true
			at++
		case b == ',':
			if f := top(); f.bracket == '{' {
				f.value, f.key = false, ""
			}
			at++
		case b == ' ' || b == '\t' || b == '\n' || b == '\r':
			at++
		default:
			end := at + 1
			for end < len(text) && strings.IndexByte(" \t\r\n,:[]{}\"#", text[end]) < 0 {
				end++
			}
			if end == len(text) {
				c.start = at
			}
			at = end
		}
	}
	return c
}

// stringEnd returns the offset after the string at an offset, or after its line if the
// string is not closed. It returns -1 if the text ends first.
func stringEnd(text string, at int) int {
	for i := at + 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		case '\n':
			return i
		}
	}
	return -1
}

// completion completes keys, values, names and metadata.
func (s *server) completion(_ context.Context, snap *snapshot, p positionParams) (any, error) {
	offset := snap.text.offset(p.Position)
	text := snap.text.content
	if snap.isConfig() {
		text = string(config.Standardize([]byte(text)))
	}
	c := newCursor(text, offset)
	if c == nil || len(c.frames) == 0 {
		return []completionItem{}, nil
	}
	o := &completer{server: s, snap: snap, cursor: c, offset: offset, items: []completionItem{}}
	if snap.isConfig() {
		o.config()
	} else {
		o.all()
	}
	return o.items, nil
}

// A completer collects completions.
type completer struct {
	*server
	snap   *snapshot
	cursor *cursor
	offset int
	items  []completionItem
}

// all adds the completions at the cursor of a policy.
func (o *completer) all() {
	f := o.cursor.frames
	in := &f[len(f)-1]
	section := schema.Section(f[0].key)
	_, keyed := keyedSections[section]
	definition := 2 // index of the frame of a definition with settings
	if keyed {
		definition = 3
	}
	switch depth := len(f) - 1; {
	case depth == 0 && !in.value:
		o.keys(schema.Top, nil, in)
	case depth == 0:
		o.values(schema.LookupKey(schema.Top, in.key), nil)
	case section.Noun() == "":
		if section == "x-sspolicy" && depth == 1 && !in.value {
			o.add(completionItem{Label: "base", Kind: kindProperty, Detail: "the policy that this fragment is for"}, `"base": "`, `"`)
		}
	case depth == 1 && in.bracket == '[':
		o.skeletons(section, keyed)
	case depth == 2 && keyed && !in.value:
		o.skeletons(section, false)
	case depth == definition && in.bracket == '{' && !in.value:
		o.keys(section, o.definition(), in)
	case depth == definition && in.bracket == '{':
		o.values(schema.LookupKey(section, in.key), o.definition())
	case depth > definition && f[definition].bracket == '{':
		k := schema.LookupKey(section, f[definition].key)
		switch {
		case k == nil:
		case in.bracket == '[':
			o.values(k, o.definition())
		case in.value && in.bracket == '{': // for example the value of a metadata item
		case !in.value && k.Name == "http_resp_map":
			for _, status := range []string{"401", "403", "404", "429", "500", "503"} {
				o.add(completionItem{Label: status, Kind: kindValue}, `"`+status+`": `, "")
			}
		}
	}
}

// keyedSections are the sections whose entries have the form {"name": {...}}.
var keyedSections = map[schema.Section]bool{schema.Retry: true, schema.Certs: true, schema.Streams: true}

// definition returns the definition that contains the cursor, or nil.
func (o *completer) definition() *schema.Definition {
	var found *schema.Definition
	for _, d := range o.snap.scan().policy.Definitions {
		if d.Value.Span.Start < o.offset && o.offset <= d.Value.Span.End {
			found = d
		}
	}
	return found
}

// add adds an item that replaces the word at the cursor with before and after. The cursor
// moves between them.
func (o *completer) add(item completionItem, before, after string) {
	content := o.snap.text.content
	end := o.offset
	for end < len(content) && wordByte(content[end]) {
		end++
	}
	if o.cursor.quoted && strings.HasPrefix(content[end:], `"`) {
		end++
	}
	rest := strings.TrimLeft(content[end:], " \t\r\n")
	if strings.HasPrefix(rest, ":") && strings.Contains(before, `":`) { // the key of a member
		before, _, _ = strings.Cut(before, `":`)
		before, after = before+`"`, ""
	} else if strings.HasPrefix(rest, `"`) || strings.HasPrefix(rest, "{") && item.Kind == kindSnippet {
		after += ","
	}
	text := before + after
	switch {
	case !o.server.snippets:
		text = plainSnippet(text)
	case item.Kind != kindSnippet:
		text = escapeSnippet(before) + "$0" + escapeSnippet(after)
		fallthrough
	default:
		item.InsertTextFormat = formatSnippet
	}
	start := o.cursor.start
	if o.cursor.quoted && strings.HasPrefix(text, `"`) {
		start, text = start+1, text[1:] // clients match the label against the replaced text
	}
	item.TextEdit = &textEdit{o.snap.text.span(start, end), text}
	o.items = append(o.items, item)
}

func wordByte(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || b == '_' || b == '-' || b >= 0x80
}

func escapeSnippet(s string) string {
	return strings.NewReplacer(`\`, `\\`, "$", `\$`, "}", `\}`).Replace(s)
}

// keys adds the keys of a section that an object lacks.
func (o *completer) keys(section schema.Section, d *schema.Definition, in *frame) {
	protocol, server, known := "", false, d != nil
	if known && section == schema.Streams {
		protocol, server = d.Protocol(), d.Bool("server")
		if base := o.base(o.snap); base != nil && d.Get("protocol") == nil {
			if of := lookup(section, d.Name, base); of != nil {
				protocol, server = of.Protocol(), of.Bool("server")
			}
		}
	}
	present := slices.Clone(in.keys)
	if known {
		for _, set := range d.Settings {
			if !holds(set.Member.Name.Span, o.offset) {
				present = append(present, set.Member.Key)
			}
		}
	} else if section == schema.Top {
		for _, m := range o.snap.scan().doc.Root.Members() {
			if !holds(m.Name.Span, o.offset) {
				present = append(present, m.Key)
			}
		}
	}
	for i, k := range schema.Keys(section) {
		if slices.Contains(present, k.Name) || !k.Serves(protocol) || k.Role == "client" && server || k.Role == "server" && known && !server && k.Name != "server" {
			continue
		}
		item := completionItem{Label: k.Name, Kind: kindProperty, Detail: strings.Join(k.Types, " or "), SortText: fmt.Sprintf("%03d", i),
			Documentation: &markup{"markdown", explain.Key(k)}}
		if k.Inert {
			item.SortText = "9" + item.SortText
		}
		before, after := `"`+k.Name+`": `, ""
		switch {
		case k.Is("array"):
			before, after = before+"[", "]"
		case k.Is("object"):
			before, after = before+"{", "}"
		case k.Is("string"):
			before, after = before+`"`, `"`
		case k.Is("boolean"):
			before += "true"
		}
		o.add(item, before, after)
	}
}

// values adds the values of a key.
func (o *completer) values(k *schema.Key, d *schema.Definition) {
	if k == nil {
		return
	}
	add := func(kind int, value, detail string, i int) {
		text := value
		if k.Is("string") {
			text = schema.Quote(value)
		}
		o.add(completionItem{Label: value, Kind: kind, Detail: detail, SortText: fmt.Sprintf("%03d", i)}, text, "")
	}
	word := o.snap.text.content[o.cursor.start:o.offset]
	if open := strings.LastIndex(word, "${"); o.cursor.quoted && open >= 0 && !strings.Contains(word[open:], "}") {
		o.metadata(d, o.cursor.start+open+len("${"))
		return
	}
	switch {
	case k.Ref != schema.Top:
		seen := map[string]bool{}
		trees := []*tree{o.snap.scan()}
		if base := o.base(o.snap); base != nil {
			trees = append(trees, base)
		}
		for _, t := range trees {
			for i, def := range t.policy.Section(k.Ref) {
				if !seen[def.Name] && def != d {
					add(kindRefer, def.Name, k.Ref.Noun(), i)
				}
				seen[def.Name] = true
			}
		}
	case len(k.Enum) > 0:
		for i, value := range k.Enum {
			detail := ""
			if since := k.ValueSince[value]; since != "" {
				detail = "lws " + since + " or newer"
			}
			add(kindEnum, value, detail, i)
		}
	case k.Is("boolean"):
		add(kindValue, "true", "", 0)
		add(kindValue, "false", "", 1)
	case k.Name == "http_method":
		for i, m := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"} {
			add(kindValue, m, "", i)
		}
	}
}

// metadata adds the metadata names of a streamtype. open is the offset after "${".
func (o *completer) metadata(d *schema.Definition, open int) {
	defs := []*schema.Definition{d}
	if base := o.base(o.snap); base != nil && d != nil {
		defs = append(defs, lookup(d.Section, d.Name, base))
	}
	content := o.snap.text.content
	end := o.offset
	for end < len(content) && wordByte(content[end]) {
		end++
	}
	if strings.HasPrefix(content[end:], "}") {
		end++
	}
	seen := map[string]bool{}
	for _, d := range defs {
		if d == nil {
			continue
		}
		for _, name := range metadataNames(d) {
			if !seen[name] {
				seen[name] = true
				o.items = append(o.items, completionItem{Label: name, Kind: kindVariable, Detail: "metadata",
					TextEdit: &textEdit{o.snap.text.span(open, end), name + "}"}})
			}
		}
	}
}

// metadataNames returns the metadata names of a streamtype.
func metadataNames(d *schema.Definition) (names []string) {
	for _, set := range d.Settings {
		if set.Key == nil || set.Key.Name != "metadata" {
			continue
		}
		for _, e := range set.Member.Value.Elems() {
			for _, m := range e.Value.Members() {
				names = append(names, m.Key)
			}
		}
	}
	return names
}

// skeletons adds templates of definitions of a section. wrap encloses them in an object, as
// array elements need.
func (o *completer) skeletons(section schema.Section, wrap bool) {
	for _, k := range skeletons {
		if k.section != section {
			continue
		}
		text := k.text
		if wrap {
			text = "{ " + text + " }"
		}
		o.add(completionItem{Label: k.label, Kind: kindSnippet, Detail: k.detail}, text, "")
	}
}
