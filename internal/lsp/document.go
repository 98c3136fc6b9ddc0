package lsp

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/internal/config"
	"github.com/secure-streams/sspolicy/internal/extract"
	"github.com/secure-streams/sspolicy/internal/project"
	"github.com/secure-streams/sspolicy/internal/readfile"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/schema"
)

// idle is how long a text with syntax errors must stay unchanged before the server tries to
// repair it, which may take half a second.
const idle = 150 * time.Millisecond

// A document is open in the editor, or has been closed and its worker has not cleared its
// diagnostics.
type document struct {
	uri  string
	wake chan struct{} // tells the worker that current has changed

	current *snapshot // nil if the document is closed; server.mu protects it
}

// A snapshot is an immutable version of a document.
type snapshot struct {
	uri     string
	version int32
	text    *text

	ctx   context.Context // cancelled when another snapshot replaces it
	stale context.CancelFunc

	file     string // the name of the document in messages
	scan     func() *tree
	full     func() *schema.Document
	fragment func() *project.Fragment // nil for a policy

	mu    sync.Mutex
	found []schema.Diagnostic // last published findings
}

// A tree is a text as parsed, errors included.
type tree struct {
	doc    *schema.Document
	policy *schema.Policy
}

func newTree(d *schema.Document) *tree { return &tree{d, schema.NewPolicy(d)} }

func (s *server) newSnapshot(uri string, version int32, t *text) *snapshot {
	snap := &snapshot{uri: uri, version: version, text: t, file: fileOf(uri)}
	snap.ctx, snap.stale = context.WithCancel(s.ctx)
	snap.scan = sync.OnceValue(func() *tree {
		if !snap.plain() {
			return newTree(schema.Scan(snap.file, nil))
		}
		return newTree(schema.Scan(snap.file, []byte(t.content)))
	})
	snap.full = sync.OnceValue(func() *schema.Document {
		if d := snap.scan().doc; !schema.HasErrors(d.Syntax) {
			return d
		}
		return schema.Parse(snap.file, []byte(t.content))
	})
	snap.fragment = sync.OnceValue(func() *project.Fragment { return project.FragmentOf(snap.scan().doc, s.configFor(snap)) })
	return snap
}

// findings returns the last published findings of the snapshot.
func (snap *snapshot) findings() []schema.Diagnostic {
	snap.mu.Lock()
	defer snap.mu.Unlock()
	return snap.found
}

// span converts a span of the document to a range.
func (snap *snapshot) span(s schema.Span) Range { return snap.text.span(s.Start, s.End) }

// fileOf returns the file of a URI, or the URI itself if it does not name a file.
func fileOf(uri string) string {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "file" {
		return uri
	}
	file := u.Path
	if runtime.GOOS == "windows" {
		file = strings.TrimPrefix(file, "/")
	}
	return filepath.FromSlash(file)
}

// uriOf returns the URI of a file.
func uriOf(file string) string {
	if !filepath.IsAbs(file) {
		return file // a document without a file
	}
	path := filepath.ToSlash(file)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	return (&url.URL{Scheme: "file", Path: path}).String()
}

// snapshot returns the current version of a document, or nil if it is not open.
func (s *server) snapshot(uri string) *snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.documents[uri]; d != nil {
		return d.current
	}
	return nil
}

// replace makes a snapshot the current version of its document.
func (s *server) replace(uri string, snap *snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.documents[uri]
	if d == nil {
		d = &document{uri: uri, wake: make(chan struct{}, 1)}
		s.documents[uri] = d
		s.work.Go(func() { s.check(d) })
	}
	if d.current != nil {
		d.current.stale()
	}
	d.current = snap
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func (s *server) didOpen(p didOpenParams) {
	d := p.TextDocument
	s.replace(d.URI, s.newSnapshot(d.URI, d.Version, newText(d.Text)))
	s.related(d.URI)
}

func (s *server) didChange(p didChangeParams) {
	uri := p.TextDocument.URI
	snap := s.snapshot(uri)
	if snap == nil {
		s.log.Printf("change of %s, which is not open", uri)
		return
	}
	t := snap.text
	for _, c := range p.ContentChanges {
		t = t.apply(c)
	}
	s.replace(uri, s.newSnapshot(uri, p.TextDocument.Version, t))
	s.related(uri)
}

func (s *server) didClose(p documentParams) {
	if s.snapshot(p.TextDocument.URI) != nil {
		s.replace(p.TextDocument.URI, nil)
		s.related(p.TextDocument.URI)
	}
}

// recheck checks all open documents again, because a configuration or base may have
// changed.
func (s *server) recheck(json.RawMessage) {
	for _, snap := range s.open() {
		s.refresh(snap)
	}
}

// related checks the open documents again that depend on a changed one: fragments on their
// base, all on a configuration.
func (s *server) related(uri string) {
	file := fileOf(uri)
	settings := filepath.Base(file) == config.Name
	for _, snap := range s.open() {
		if snap.uri != uri && (settings || snap.base() == file) {
			s.refresh(snap)
		}
	}
}

// refresh checks a document again, unless it has changed.
func (s *server) refresh(old *snapshot) {
	if s.snapshot(old.uri) != old {
		return
	}
	snap := s.newSnapshot(old.uri, old.version, old.text)
	snap.scan, snap.full = old.scan, old.full
	s.replace(old.uri, snap)
}

// open returns the current versions of the open documents.
func (s *server) open() (all []*snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.documents {
		if d.current != nil {
			all = append(all, d.current)
		}
	}
	return all
}

// check is the worker of a document. It publishes the findings of each version that is
// still current after parsing, and an empty list when the document is closed.
func (s *server) check(d *document) {
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-d.wake:
		}
		s.mu.Lock()
		snap := d.current
		s.mu.Unlock()
		if snap == nil {
			s.publish(publishDiagnosticsParams{URI: d.uri, Diagnostics: []diagnostic{}})
			s.mu.Lock()
			if d.current == nil {
				delete(s.documents, d.uri)
				s.mu.Unlock()
				return
			}
			s.mu.Unlock()
			continue
		}
		if snap.scan(); snap.ctx.Err() != nil {
			continue
		}
		s.publishFindings(snap, s.lint(snap, snap.scan().doc))
		if snap.plain() && schema.HasErrors(snap.scan().doc.Syntax) {
			s.search(snap)
		}
	}
}

// search repairs a text with syntax errors, and publishes the findings of the result,
// unless the text changes.
func (s *server) search(snap *snapshot) {
	select {
	case <-time.After(idle):
	case <-snap.ctx.Done():
		return
	}
	done := make(chan []schema.Diagnostic, 1)
	s.work.Go(func() { done <- s.lint(snap, snap.full()) })
	select {
	case found := <-done:
		s.publishFindings(snap, found)
	case <-snap.ctx.Done():
	}
}

// publishFindings publishes the findings of a snapshot, unless another one is current.
func (s *server) publishFindings(snap *snapshot, found []schema.Diagnostic) {
	if snap.ctx.Err() != nil {
		return
	}
	snap.mu.Lock()
	snap.found = found
	snap.mu.Unlock()
	version := snap.version
	s.publish(publishDiagnosticsParams{URI: snap.uri, Version: &version, Diagnostics: s.diagnostics(snap, found)})
}

func (s *server) publish(p publishDiagnosticsParams) {
	s.conn.Notify(s.ctx, "textDocument/publishDiagnostics", p) // an error means that the client has gone
}

// lint returns the findings of a version of a document. Editors open any JSON file: one
// that is not a policy has no findings unless its name contains "policy".
func (s *server) lint(snap *snapshot, d *schema.Document) (found []schema.Diagnostic) {
	defer s.recover()
	if snap.isConfig() {
		_, found = config.Parse(snap.file, []byte(snap.text.content))
		return found
	}
	if !snap.plain() {
		return s.lintEmbedded(snap)
	}
	if d.NotPolicy() != nil && !strings.Contains(strings.ToLower(filepath.Base(snap.file)), "policy") {
		return nil
	}
	found, err := project.Lint(d, s.configFor(snap), s.read, s.options(snap))
	if wrong, ok := errors.AsType[*project.BaseError](err); ok {
		g := schema.Diagnostic{Rule: config.Rule, Severity: schema.Error, Span: wrong.At, Message: "the base policy: " + wrong.Err.Error()}
		if wrong.At.Source != d.Source { // the configuration names the base
			g.Span = d.Root.Span.First()
			g.Related = []schema.Related{{Span: wrong.At, Message: "named here"}}
		}
		return []schema.Diagnostic{g}
	}
	return found
}

// plain reports whether the document itself is a policy, rather than a file that embeds
// policies.
func (snap *snapshot) plain() bool { return extract.Options{}.Plain(snap.file) }

// lintEmbedded returns the findings of embedded policies.
func (s *server) lintEmbedded(snap *snapshot) (all []schema.Diagnostic) {
	o := s.options(snap)
	filter := o.Filter
	o.Filter = nil // filter by place only after conversion to places of the document
	policies := extract.Policies(snap.file, []byte(snap.text.content), extract.Options{})
	if len(policies) == 0 {
		return nil
	}
	for _, p := range policies {
		o.Shape = p.Partial
		if found, err := project.Lint(p.Document, s.configFor(snap), s.read, o); err == nil {
			all = append(all, p.Place(found)...)
		}
	}
	return filter(lint.Suppress(policies[0].Source(), all, rules.All(), o))
}

// configFor returns the configuration that applies to a document. Its own mistakes are
// reported when it is open.
func (s *server) configFor(snap *snapshot) *config.Config {
	file, text := config.Name, []byte("{}")
	if filepath.IsAbs(snap.file) {
		if found, err := config.Find(filepath.Dir(snap.file)); err == nil && found != "" {
			if content, err := s.content(found); err == nil {
				file, text = found, content
			}
		}
	}
	c := &s.configuration
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.config == nil || c.file != file || c.text != string(text) {
		c.file, c.text = file, string(text)
		c.config, _ = config.Parse(file, text)
	}
	return c.config
}

// A configuration caches the last one read, since compiling rules is slow.
type configuration struct {
	mu         sync.Mutex
	file, text string
	config     *config.Config
}

// options returns the lint options of a document.
func (s *server) options(snap *snapshot) lint.Options {
	c := s.configFor(snap)
	o := project.Options(c)
	if o.LWS == nil {
		s.mu.Lock()
		o.LWS = s.lws
		s.mu.Unlock()
	}
	o.Filter = c.Apply
	return o
}

// read reads a policy, from the editor if it is open there.
func (s *server) read(file string) (*schema.Document, error) {
	for _, snap := range s.open() {
		if snap.file == file {
			return snap.scan().doc, nil
		}
	}
	text, err := s.content(file)
	if err != nil {
		return nil, err
	}
	return schema.Scan(file, text), nil
}

// content returns the content of a file, from the editor if it is open there.
func (s *server) content(file string) ([]byte, error) {
	for _, snap := range s.open() {
		if snap.file == file {
			return []byte(snap.text.content), nil
		}
	}
	return readfile.Regular(file, schema.MaxSize)
}

// severities are those of LSP.
var severities = map[schema.Severity]int{schema.Error: 1, schema.Warning: 2, schema.Info: 3}

const tagUnnecessary = 1

// diagnostics converts findings to LSP diagnostics.
func (s *server) diagnostics(snap *snapshot, found []schema.Diagnostic) []diagnostic {
	list := make([]diagnostic, 0, len(found))
	texts := map[*schema.Source]*text{}
	for _, g := range found {
		d := diagnostic{
			Range: snap.span(g.Span), Severity: severities[g.Severity], Code: g.Rule, Source: "sspolicy", Message: g.Message,
		}
		if strings.HasPrefix(g.Rule, "unused-") {
			d.Tags = []int{tagUnnecessary}
		}
		for _, r := range g.Related {
			at := location{snap.uri, Range{}}
			if src := r.Span.Source; src.Name == snap.file {
				at.Range = snap.span(r.Span)
			} else {
				if texts[src] == nil {
					texts[src] = newText(src.Text)
				}
				at = location{s.uriOf(src.Name), texts[src].span(r.Span.Start, r.Span.End)}
			}
			d.RelatedInformation = append(d.RelatedInformation, relatedInformation{at, r.Message})
		}
		list = append(list, d)
	}
	return list
}

// uriOf returns the URI of a file, spelled as by the client if the file is open.
func (s *server) uriOf(file string) string {
	for _, snap := range s.open() {
		if snap.file == file {
			return snap.uri
		}
	}
	return uriOf(file)
}

// base returns the base file of a fragment, or "".
func (snap *snapshot) base() string {
	if f := snap.fragment(); f != nil {
		return f.Base
	}
	return ""
}
