// Package breaking finds the changes between two policies, and which of them break
// programs, devices and servers that rely on the old one.
package breaking

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/secure-streams/sspolicy/codegen"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

// A Change is a difference in meaning between two policies.
type Change struct {
	Rule    *Rule    // nil if the change breaks nothing
	Streams []string // the streamtypes concerned, sorted; nil for the whole policy
	Text    string   // the change, in printable characters, such as `http_method is "POST" instead of "GET"`

	// Old and New are the positions in the policies. One of them may have no
	// Source.
	Old, New schema.Span

	LWS []schema.Version // the versions with the change; nil if none were selected
}

// printable escapes the characters that a terminal would interpret or hide, as in a
// Go string.
func printable(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if strconv.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

// String describes the change with its subject, in printable characters.
func (c *Change) String() string {
	if c.Streams == nil {
		return c.Text
	}
	const most = 3
	names := c.Streams
	if len(names) > most+1 {
		names = names[:most]
	}
	var quoted []string
	for _, n := range names {
		quoted = append(quoted, schema.QuoteName(n))
	}
	text := strings.Join(quoted, ", ")
	if more := len(c.Streams) - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return printable(text) + ": " + c.Text
}

// Options configure the comparison of policies.
type Options struct {
	// LWS are the versions of lws on the devices. For each version, the policies
	// are compared as it reads them: it skips keys that it does not know, and lws
	// 4.4 and later keep only the first wait of a backoff scheme. Without versions,
	// the texts are compared.
	LWS []schema.Version
}

// Compare returns the changes from one policy to another, in the order of the new
// text, followed by what is only in the old one. Comments, layout, the order of
// definitions and names of schemes, trust stores and certificates do not matter. A
// value with an error is compared by its text; a difference is a change by the rule
// not-compared.
func Compare(old, new *schema.Document, o Options) []Change {
	var all []Change
	versions := o.LWS
	if len(versions) == 0 {
		versions = []schema.Version{{}}
	}
	for _, v := range versions {
		c := &comparison{old: newView(old, v), new: newView(new, v), version: v}
		c.errors()
		c.old.inherit()
		c.new.inherit()
		c.compare()
		all = append(all, c.changes...)
	}
	return merge(all)
}

// firstCut is the first version that keeps only the first wait of a backoff scheme.
var firstCut = schema.Version{Major: 4, Minor: 4}

// A view is a policy as a version of lws reads it. The zero version stands for the
// text itself.
type view struct {
	text     *schema.Policy // all settings
	compiled *policy.Policy
	types    map[string]*policy.StreamType      // compiled, with what they inherit from the policy; inherit sets it
	byName   map[string]*policy.StreamType      // compiled
	errors   map[part]schema.Diagnostic         // the first of each part
	faulty   map[string]bool                    // streamtypes with errors
	index    *index                             // nil unless there are errors
	streams  map[string]*schema.Definition      // the last definition of each name
	targets  map[schema.Span]*schema.Definition // of references
}

func newView(d *schema.Document, v schema.Version) *view {
	w := &view{text: schema.NewPolicy(d), streams: map[string]*schema.Definition{}, targets: map[schema.Span]*schema.Definition{}}
	for _, def := range w.text.Section(schema.Streams) {
		w.streams[def.Name] = def
	}
	for _, r := range w.text.References {
		w.targets[r.Span] = r.Target
	}
	read := w.text
	if v != (schema.Version{}) {
		read = schema.NewPolicy(d)
		unread := func(s *schema.Setting) bool { return s.Key != nil && !s.Key.In(v) }
		read.Settings = slices.DeleteFunc(read.Settings, unread)
		for _, def := range read.Definitions {
			def.Settings = slices.DeleteFunc(def.Settings, unread)
		}
	}
	compiled, found := codegen.Compile(read)
	w.compiled = compiled
	if v != (schema.Version{}) && v.Compare(firstCut) >= 0 {
		for _, st := range compiled.StreamTypes {
			if st.Retry != nil && len(st.Retry.Backoff) > 1 {
				st.Retry.Backoff = st.Retry.Backoff[:1]
			}
		}
	}
	w.byName = make(map[string]*policy.StreamType, len(compiled.StreamTypes))
	for _, st := range compiled.StreamTypes {
		w.byName[st.Name] = st
	}
	w.addErrors(found)
	return w
}

// inherit sets types.
func (w *view) inherit() {
	w.types = make(map[string]*policy.StreamType, len(w.compiled.StreamTypes))
	for _, st := range w.compiled.StreamTypes {
		one := policy.Policy{SOCKS5Proxy: w.compiled.SOCKS5Proxy, StreamTypes: []*policy.StreamType{st}}
		w.types[st.Name] = one.Effective(st.Name)
	}
}

// at returns the position of a setting of a streamtype, or of the streamtype if it
// has none of them.
func (w *view) at(stream string, keys ...string) schema.Span {
	d := w.streams[stream]
	if d == nil {
		return schema.Span{}
	}
	return settingAt(d, keys...)
}

// settingAt returns the place of the first of some settings of a definition, or of the
// definition without them.
func settingAt(d *schema.Definition, keys ...string) schema.Span {
	for _, k := range keys {
		if s := d.Get(k); s != nil {
			return s.Member.Span()
		}
	}
	return d.NameSpan
}

// definition returns the definition that a setting of a streamtype refers to, or nil.
func (w *view) definition(stream, key string) *schema.Definition {
	d := w.streams[stream]
	if d == nil {
		return nil
	}
	s := d.Get(key)
	if s == nil {
		return nil
	}
	return w.targets[s.Member.Value.Span]
}

// A comparison collects the changes from one view to another.
type comparison struct {
	old, new *view
	version  schema.Version
	changes  []Change
}

// add adds a change of a streamtype, or of the policy if stream is "".
func (c *comparison) add(rule *Rule, streams []string, old, new schema.Span, format string, args ...any) {
	ch := Change{Rule: rule, Streams: streams, Text: printable(fmt.Sprintf(format, args...)), Old: old, New: new}
	if c.version != (schema.Version{}) {
		ch.LWS = []schema.Version{c.version}
	}
	c.changes = append(c.changes, ch)
}

func (c *comparison) compare() {
	c.policy()
	var removed, added []*policy.StreamType
	for _, st := range c.new.compiled.StreamTypes {
		if c.old.streams[st.Name] == nil {
			added = append(added, st)
		}
	}
	for _, st := range c.old.compiled.StreamTypes {
		if c.new.streams[st.Name] == nil {
			removed = append(removed, st)
			continue
		}
		s := &streamComparison{comparison: c, name: st.Name, old: c.old.types[st.Name], new: c.new.types[st.Name]}
		s.compare()
	}
	for _, st := range removed {
		i := -1
		if len(removed)*len(added) < 10_000 && !c.old.faulty[st.Name] { // the time is quadratic
			i = slices.IndexFunc(added, func(n *policy.StreamType) bool {
				other := *n
				other.Name = st.Name
				return !c.new.faulty[n.Name] && reflect.DeepEqual(&other, st)
			})
		}
		if i < 0 {
			c.add(streamtypeRemoved, []string{st.Name}, c.old.at(st.Name), schema.Span{}, "the streamtype is gone")
			continue
		}
		name := added[i].Name
		added = slices.Delete(added, i, i+1)
		c.add(streamtypeRemoved, []string{st.Name}, c.old.at(st.Name), c.new.at(name), "the streamtype is now called %s", schema.QuoteName(name))
	}
	for _, st := range added {
		if c.new.faulty[st.Name] {
			c.add(nil, []string{st.Name}, schema.Span{}, c.new.at(st.Name), "new streamtype")
			continue
		}
		c.add(nil, []string{st.Name}, schema.Span{}, c.new.at(st.Name), "new streamtype, %s", summary(st))
	}
	c.unread()
}

// summary describes a streamtype.
func summary(st *policy.StreamType) string {
	if st.Server {
		return fmt.Sprintf("a %v server on %s", st.Protocol, place(st))
	}
	if st.LocalSink {
		return "a local sink"
	}
	return fmt.Sprintf("%v to %s", st.Protocol, place(st))
}

// place describes where a streamtype connects to, or listens.
func place(st *policy.StreamType) string {
	text := st.Endpoint
	if st.Server {
		text = cmp.Or(text, "all interfaces")
	}
	port := st.Port
	if port == 0 {
		port = st.Protocol.DefaultPort(st.TLS)
	}
	if port != 0 && !strings.ContainsAny(text, "/+") {
		text += fmt.Sprintf(":%d", port)
	}
	return cmp.Or(schema.Unquote(schema.QuoteName(text)), "no endpoint")
}

// setting returns the places of a setting of the policy.
func (c *comparison) setting(key string) (old, new schema.Span) {
	return c.old.settingAt(key), c.new.settingAt(key)
}

// settingAt returns the place of a setting of the policy.
func (w *view) settingAt(key string) schema.Span {
	for _, s := range slices.Backward(w.text.Settings) {
		if s.Key != nil && s.Key.Name == key {
			return s.Member.Span()
		}
	}
	return schema.Span{}
}

// policy compares everything that does not belong to one streamtype.
func (c *comparison) policy() {
	a, b := c.old.compiled, c.new.compiled
	for _, s := range []struct {
		key      string
		old, new any
	}{
		{"product", a.Product, b.Product}, {"release", a.Release, b.Release}, {"schema-version", a.SchemaVersion, b.SchemaVersion},
	} {
		if s.old != s.new {
			old, new := c.setting(s.key)
			c.add(nil, nil, old, new, "%s", valueChange(s.key, s.old, s.new))
		}
	}
	c.metrics()
	c.build()
}

// metrics compares the metric policies, by name.
func (c *comparison) metrics() {
	at := func(w *view, name string) schema.Span {
		if defs := w.text.Lookup(schema.Metrics, name); len(defs) > 0 {
			return defs[len(defs)-1].NameSpan
		}
		return schema.Span{}
	}
	byName := func(p *policy.Policy) map[string]policy.Metric {
		m := map[string]policy.Metric{}
		for _, x := range p.Metrics {
			m[x.Name] = *x
		}
		return m
	}
	olds, news := byName(c.old.compiled), byName(c.new.compiled)
	for _, m := range c.old.compiled.Metrics {
		old, new, quoted := at(c.old, m.Name), at(c.new, m.Name), schema.QuoteName(m.Name)
		if n, ok := news[m.Name]; !ok {
			c.add(reportRemoved, nil, old, new, "metric policy %s is gone", quoted)
		} else if o := olds[m.Name]; o.Report != n.Report {
			c.add(reportRemoved, nil, old, new, "metric policy %s: %s", quoted, valueChange("report", o.Report, n.Report))
		} else if o != n {
			c.add(nil, nil, old, new, "metric policy %s has other times", quoted)
		}
		delete(news, m.Name)
	}
	for _, m := range c.new.compiled.Metrics {
		if _, ok := news[m.Name]; ok {
			c.add(nil, nil, schema.Span{}, at(c.new, m.Name), "new metric policy %s", schema.QuoteName(m.Name))
		}
	}
}

// build compares the packages that programs must link, and the build options that lws
// needs.
func (c *comparison) build() {
	if len(c.old.compiled.StreamTypes) == 0 {
		return // a program has no transport yet
	}
	transports := map[string]bool{}
	for _, st := range c.old.compiled.StreamTypes {
		transports[st.Carrier().Dir()] = true
	}
	for _, st := range c.new.compiled.StreamTypes {
		if c.old.streams[st.Name] == nil && c.new.faulty[st.Name] {
			continue
		}
		if dir := st.Carrier().Dir(); !transports[dir] {
			transports[dir] = true
			c.add(buildChanged, nil, schema.Span{}, c.new.at(st.Name, "protocol"), "programs must link the transport runtime/%s", dir)
		}
	}
	options := func(p *policy.Policy) []string {
		list, _ := codegen.RequiredOptions(p, codegen.COptions{}) // none if there are no C tables for it
		return list
	}
	had := options(c.old.compiled)
	if had == nil {
		return
	}
	for _, o := range options(c.new.compiled) {
		if !slices.Contains(had, o) {
			c.add(buildChanged, nil, schema.Span{}, schema.Span{Source: c.new.text.Document.Source}, "lws must be built with -D%s", o)
		}
	}
}

// unread reports the keys and values that the version ignores and the old policy does not
// have.
func (c *comparison) unread() {
	if c.version == (schema.Version{}) {
		return
	}
	type use struct {
		section schema.Section
		key     string
		value   string // set if the value is ignored
	}
	uses := func(p *schema.Policy) map[use]schema.Span {
		m := map[use]schema.Span{}
		for _, d := range p.Definitions {
			for _, s := range d.Settings {
				if s.Key == nil {
					continue
				}
				u := use{d.Section, s.Key.Name, ""}
				if s.Key.In(c.version) {
					if u.value = s.Member.Value.Text(); s.Key.ValueIn(u.value, c.version) {
						continue
					}
				}
				if _, ok := m[u]; !ok {
					m[u] = s.Member.Span()
				}
			}
		}
		return m
	}
	before := uses(c.old.text)
	for u, at := range uses(c.new.text) {
		if _, ok := before[u]; ok {
			continue
		}
		k := schema.LookupKey(u.section, u.key)
		what, since := u.key, k.Since
		if u.value != "" {
			what, since = u.key+" "+schema.QuoteName(u.value), k.ValueSince[u.value]
		}
		c.add(keyUnread, nil, schema.Span{}, at, "%s is new in lws %s", what, since)
	}
}

// merge sorts changes, and joins those that differ only in streamtype or version.
func merge(all []Change) []Change {
	type place struct {
		source *schema.Source
		start  int
	}
	type key struct {
		rule     *Rule
		text     string
		old, new place
		policy   bool // not about a streamtype
	}
	index := map[key]int{}
	var merged []Change
	for _, c := range all {
		k := key{c.Rule, c.Text, place{c.Old.Source, c.Old.Start}, place{c.New.Source, c.New.Start}, c.Streams == nil}
		i, ok := index[k]
		if !ok {
			index[k] = len(merged)
			c.Streams = slices.Clone(c.Streams)
			merged = append(merged, c)
			continue
		}
		m := &merged[i]
		m.Streams = append(m.Streams, c.Streams...)
		for _, v := range c.LWS {
			if !slices.Contains(m.LWS, v) {
				m.LWS = append(m.LWS, v)
			}
		}
	}
	for i := range merged {
		slices.Sort(merged[i].Streams)
		merged[i].Streams = slices.Compact(merged[i].Streams)
	}
	slices.SortStableFunc(merged, func(a, b Change) int {
		only := func(c Change) int {
			if c.New.Source == nil {
				return 1
			}
			return 0
		}
		return cmp.Or(cmp.Compare(only(a), only(b)), cmp.Compare(a.New.Start, b.New.Start), cmp.Compare(a.Old.Start, b.Old.Start), strings.Compare(a.Text, b.Text))
	})
	return merged
}
