package lsp

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sourcegraph/jsonrpc2"

	"github.com/secure-streams/sspolicy/internal/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// patience limits the wait for an event that must happen.
const patience = 2 * time.Minute

// A client plays an editor: it holds the documents and the diagnostics that the server
// publishes.
type client struct {
	t      testing.TB
	server *server
	conn   *jsonrpc2.Conn
	logs   *strings.Builder
	done   chan error // the result of serve

	watching chan struct{} // closed when the server registers for changes of files

	mu        sync.Mutex
	published map[string][]publishDiagnosticsParams // by URI
	changed   chan struct{}                         // closed at the next publication
	texts     map[string]*text
	versions  map[string]int32
}

// Handle takes the messages of the server.
func (c *client) Handle(ctx context.Context, conn *jsonrpc2.Conn, req *jsonrpc2.Request) {
	if req.Method == "client/registerCapability" {
		close(c.watching)
		if err := conn.Reply(ctx, req.ID, nil); err != nil {
			c.t.Error(err)
		}
	}
	if req.Method != "textDocument/publishDiagnostics" {
		return
	}
	var p publishDiagnosticsParams
	if err := json.Unmarshal(*req.Params, &p); err != nil {
		c.t.Error(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.published[p.URI] = append(c.published[p.URI], p)
	close(c.changed)
	c.changed = make(chan struct{})
}

// connect starts a server and a client, without a session.
func connect(t testing.TB) *client {
	ours, theirs := net.Pipe()
	c := &client{
		t: t, logs: &strings.Builder{}, done: make(chan error, 1), changed: make(chan struct{}), watching: make(chan struct{}),
		published: map[string][]publishDiagnosticsParams{}, texts: map[string]*text{}, versions: map[string]int32{},
	}
	c.server = newServer("test", log.New(c.logs, "", 0))
	go func() { c.done <- c.server.serve(context.Background(), theirs) }()
	c.conn = jsonrpc2.NewConn(context.Background(), jsonrpc2.NewBufferedStream(ours, jsonrpc2.VSCodeObjectCodec{}), c, jsonrpc2.SetLogger(log.New(io.Discard, "", 0)))
	t.Cleanup(func() { c.conn.Close() })
	return c
}

// newClient starts a session.
func newClient(t testing.TB) *client {
	c := connect(t)
	var r initializeResult
	c.call("initialize", json.RawMessage(`{"capabilities":{"textDocument":{"completion":{"completionItem":{"snippetSupport":true}}},"workspace":{"didChangeWatchedFiles":{"dynamicRegistration":true}}}}`), &r)
	if r.ServerInfo.Name != "sspolicy" {
		t.Fatalf("initialize: %+v", r)
	}
	c.notify("initialized", struct{}{})
	t.Cleanup(func() { c.end() })
	return c
}

// end ends the session.
func (c *client) end() {
	c.call("shutdown", nil, nil)
	c.notify("exit", nil)
	if err := <-c.done; err != nil {
		c.t.Errorf("Serve: %v", err)
	}
	if c.logs.Len() > 0 {
		c.t.Errorf("the server logged: %s", c.logs)
	}
}

func (c *client) call(method string, params, result any) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.conn.Call(ctx, method, params, result); err != nil {
		c.t.Fatalf("%s: %v", method, err)
	}
}

func (c *client) notify(method string, params any) {
	c.t.Helper()
	if err := c.conn.Notify(context.Background(), method, params); err != nil {
		c.t.Fatalf("%s: %v", method, err)
	}
}

func (c *client) open(uri, content string) {
	c.texts[uri], c.versions[uri] = newText(content), 1
	c.notify("textDocument/didOpen", didOpenParams{textDocument{URI: uri, LanguageID: "json", Version: 1, Text: content}})
}

func (c *client) close(uri string) {
	delete(c.texts, uri)
	c.notify("textDocument/didClose", documentParams{textDocument{URI: uri}})
}

// edit replaces a range of a document.
func (c *client) edit(uri string, start, end int, with string) {
	t := c.texts[uri]
	r := t.span(start, end)
	c.texts[uri] = newText(t.content[:start] + with + t.content[end:])
	c.versions[uri]++
	c.notify("textDocument/didChange", didChangeParams{textDocument{URI: uri, Version: c.versions[uri]}, []contentChange{{&r, with}}})
}

// replace replaces old, which must occur once in a document.
func (c *client) replace(uri, old, with string) {
	c.t.Helper()
	start := c.find(uri, old)
	c.edit(uri, start, start+len(old), with)
}

// find returns the offset of text, which must occur once in a document.
func (c *client) find(uri, text string) int {
	c.t.Helper()
	content := c.texts[uri].content
	start := strings.Index(content, text)
	if start < 0 || strings.Contains(content[start+1:], text) {
		c.t.Fatalf("%q is not in the text once:\n%s", text, content)
	}
	return start
}

// at returns the position of "|" in text. Without it, text must occur once in the document.
func (c *client) at(uri, text string) positionParams {
	c.t.Helper()
	before, after, _ := strings.Cut(text, "|")
	start := c.find(uri, before+after)
	return positionParams{documentParams{textDocument{URI: uri}}, c.texts[uri].position(start + len(before))}
}

// await waits until ok accepts the diagnostics of the current version of a document, and
// returns them.
func (c *client) await(uri string, ok func([]diagnostic) bool) []diagnostic {
	c.t.Helper()
	deadline := time.After(patience)
	for {
		c.mu.Lock()
		list, changed := c.published[uri], c.changed
		c.mu.Unlock()
		if n := len(list); n > 0 && (list[n-1].Version == nil || *list[n-1].Version == c.versions[uri]) && ok(list[n-1].Diagnostics) {
			return list[n-1].Diagnostics
		}
		select {
		case <-changed:
		case <-deadline:
			c.t.Fatalf("%s: no such diagnostics; the last are %+v", uri, list)
		}
	}
}

// rules waits for diagnostics of exactly these rules.
func (c *client) rules(uri string, want ...string) []diagnostic {
	c.t.Helper()
	slices.Sort(want)
	return c.await(uri, func(ds []diagnostic) bool {
		var got []string
		for _, d := range ds {
			got = append(got, d.Code)
		}
		slices.Sort(got)
		return slices.Equal(got, want)
	})
}

// syntax awaits diagnostics of syntax alone. Others may have followed: those of the
// repaired text.
func (c *client) syntax(uri string) {
	c.t.Helper()
	other := func(d diagnostic) bool { return d.Code != "syntax" }
	c.await(uri, func([]diagnostic) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return slices.ContainsFunc(c.published[uri], func(p publishDiagnosticsParams) bool {
			return p.Version != nil && *p.Version == c.versions[uri] && len(p.Diagnostics) > 0 && !slices.ContainsFunc(p.Diagnostics, other)
		})
	})
}

// apply applies an edit of the server to the documents.
func (c *client) apply(edit workspaceEdit) {
	c.t.Helper()
	for uri, edits := range edit.Changes {
		slices.SortStableFunc(edits, func(a, b textEdit) int { return comparePositions(b.Range.Start, a.Range.Start) })
		for _, e := range edits {
			t := c.texts[uri]
			c.edit(uri, t.offset(e.Range.Start), t.offset(e.Range.End), e.NewText)
		}
	}
}
