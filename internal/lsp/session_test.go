package lsp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sourcegraph/jsonrpc2"

	"github.com/secure-streams/sspolicy/internal/config"
	"github.com/secure-streams/sspolicy/internal/project"
	"github.com/secure-streams/sspolicy/schema"
)

// pieces are inserted by edits.
var pieces = []string{
	"", "", "x", `"`, "{", "}", "[", "]", ",", ":", " ", "\n", "\r", "\r\n", "\t", "#", "\\", "${", "\U0001F600", "e\u0301", "\ufeff", "\u2028", "\x00",
	`"port": 443,`, `"retry": "default"`, `{ "s": [ { "a": { "endpoint": "x" } } ] }`, "# sspolicy:ignore tls-port -- why\n", `"x-sspolicy": { "base": "1.json" },`,
	`"trust_stores": [ { "name": "own", "stack": [ "root" ] } ],`, "1e999", "-0", "true", "null",
}

// TestSessions checks laws after random edits, openings, closings, requests and
// cancellations: the server has the text of the client, all requests are answered, all
// ranges are inside the text, and the findings are those of the text. LSPFUZZ is the
// duration of other sessions than the usual ones, LSPSEED the number of a single one.
func TestSessions(t *testing.T) {
	limit, seed := 2*time.Second, uint64(1)
	if text := os.Getenv("LSPFUZZ"); text != "" {
		var err error
		if limit, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
		seed = uint64(time.Now().UnixNano())
	}
	if text := os.Getenv("LSPSEED"); text != "" {
		fmt.Sscan(text, &seed)
		limit = time.Millisecond
	}
	messages := 0
	for end := time.Now().Add(limit); time.Now().Before(end) && !t.Failed(); seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := &session{client: newClient(t), rand: rand.New(rand.NewPCG(seed, 0)), station: station(t)}
			s.run(300)
			messages += s.messages
		})
	}
	t.Logf("%d messages", messages)
}

type session struct {
	*client
	rand     *rand.Rand
	station  string
	messages int
	waiting  []func() // handlers of pending answers
}

func (s *session) run(steps int) {
	uris := []string{"file:///x/0.json", "file:///x/1.json", "untitled:2", "file:///x/.sspolicy.json"}
	for range steps {
		s.messages++
		uri := uris[s.rand.IntN(len(uris))]
		t := s.texts[uri]
		switch n := s.rand.IntN(100); {
		case t == nil:
			s.open(uri, []string{"", s.station, "\ufeff" + s.station, strings.ReplaceAll(s.station, "\n", "\r\n"), example}[s.rand.IntN(5)])
		case n < 2:
			s.close(uri)
		case n < 4: // an edit that replaces the whole text
			s.versions[uri]++
			s.texts[uri] = newText(s.station)
			s.notify("textDocument/didChange", didChangeParams{textDocument{URI: uri, Version: s.versions[uri]}, []contentChange{{nil, s.station}}})
		case n < 50:
			s.random(uri)
		case n < 52:
			s.notify("textDocument/didSave", documentParams{textDocument{URI: uri}})
		case n < 53:
			s.findings(uri)
		default:
			s.request(uri)
		}
	}
	for _, wait := range s.waiting {
		wait()
	}
	for uri := range s.texts {
		s.findings(uri)
	}
	for uri, want := range s.texts {
		if got := s.server.snapshot(uri).text.content; got != want.content {
			s.t.Errorf("%s: the server has\n%q\nwant\n%q", uri, got, want.content)
		}
	}
}

// place returns the offset of a random character that does not split \r\n.
func (s *session) place(t *text) int {
	for {
		at := s.rand.IntN(len(t.content) + 1)
		if at == len(t.content) || boundary(t.content, at) {
			return at
		}
	}
}

// random makes random changes, several in one message.
func (s *session) random(uri string) {
	var changes []contentChange
	for range 1 + s.rand.IntN(3) {
		t := s.texts[uri]
		start := s.place(t)
		end := start
		switch s.rand.IntN(4) {
		case 0:
			end = s.place(t)
		case 1:
			for end < len(t.content) && (end == start || !boundary(t.content, end)) {
				end++
			}
		}
		start, end = min(start, end), max(start, end)
		with := pieces[s.rand.IntN(len(pieces))]
		r := t.span(start, end)
		changes = append(changes, contentChange{&r, with})
		s.texts[uri] = newText(t.content[:start] + with + t.content[end:])
	}
	s.versions[uri]++
	s.notify("textDocument/didChange", didChangeParams{textDocument{URI: uri, Version: s.versions[uri]}, changes})
}

// request sends a random request, and may cancel it.
func (s *session) request(uri string) {
	names := []string{"textDocument/nothing"}
	for name := range methods {
		if name != "initialize" && name != "shutdown" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	method := names[s.rand.IntN(len(names))]
	t := s.texts[uri]
	start, end := s.place(t), s.place(t)
	r := t.span(min(start, end), max(start, end))
	params := map[string]any{"textDocument": textDocument{URI: uri}, "position": r.Start, "range": r, "newName": pieces[s.rand.IntN(len(pieces))], "context": map[string]any{}}
	id := jsonrpc2.ID{Num: uint64(1_000_000 + s.messages)}
	w, err := s.conn.DispatchCall(context.Background(), method, params, jsonrpc2.PickID(id))
	if err != nil {
		s.t.Fatal(err)
	}
	cancelled := s.rand.IntN(4) == 0
	if cancelled {
		s.notify("$/cancelRequest", map[string]any{"id": id})
	}
	s.waiting = append(s.waiting, func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		var result json.RawMessage
		err := w.Wait(ctx, &result)
		switch e, _ := errors.AsType[*jsonrpc2.Error](err); {
		case err == nil:
			s.inside(method, uri, t, result)
		case e == nil:
			s.t.Fatalf("%s: %v", method, err)
		case e.Code == codeRequestCancelled && cancelled, e.Code == codeRequestFailed && strings.HasSuffix(method, "/rename"),
			e.Code == jsonrpc2.CodeMethodNotFound && strings.HasSuffix(method, "/nothing"):
		default:
			s.t.Errorf("%s: %v", method, err)
		}
	})
}

// inside checks that all ranges in an answer are inside the text of their document.
func (s *session) inside(method, uri string, t *text, result json.RawMessage) {
	var check func(v any)
	check = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				check(e)
			}
		case map[string]any:
			if other, ok := v["uri"]; ok && other != uri {
				return
			}
			for key, e := range v {
				if key == "changes" { // edits of several documents
					e = e.(map[string]any)[uri]
				}
				check(e)
			}
			if line, ok := v["line"].(float64); ok {
				p := Position{uint32(line), uint32(v["character"].(float64))}
				if t.position(t.offset(p)) != p {
					s.t.Errorf("%s: %v is not in the text %q", method, p, t.content)
				}
			}
		}
	}
	var v any
	if err := json.Unmarshal(result, &v); err != nil {
		s.t.Error(err)
	}
	check(v)
}

// findings checks the published findings of a document.
func (s *session) findings(uri string) {
	t := s.texts[uri]
	if strings.Contains(t.content, "x-sspolicy") {
		return // they depend on another document
	}
	file := fileOf(uri)
	var want []schema.Diagnostic
	if strings.HasSuffix(file, config.Name) {
		_, want = config.Parse(file, []byte(t.content))
	} else {
		c, _ := config.Parse(config.Name, []byte("{}"))
		o := project.Options(c)
		var err error
		if d := schema.Parse(file, []byte(t.content)); d.NotPolicy() == nil {
			want, err = project.Lint(d, c, nil, o)
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
	describe := func(r Range, message string) string { return fmt.Sprint(r, message) }
	var lines []string
	for _, g := range want {
		lines = append(lines, describe(t.span(g.Span.Start, g.Span.End), g.Message))
	}
	s.await(uri, func(ds []diagnostic) bool {
		var got []string
		for _, d := range ds {
			got = append(got, describe(d.Range, d.Message))
		}
		return slices.Equal(got, lines)
	})
}
