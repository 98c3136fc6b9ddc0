// Package lsp is a language server for policies: LSP 3.17 over a stream.
//
// The server reads messages in order. It applies notifications at once. Each request runs
// in its own goroutine, on the text at the time of its arrival.
package lsp

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"runtime/debug"
	"slices"
	"sync"

	"github.com/sourcegraph/jsonrpc2"

	"github.com/secure-streams/sspolicy/schema"
)

// ErrExit is returned when the client exits without a shutdown request.
var ErrExit = errors.New("the client left without a shutdown request")

// Serve serves a client until it sends exit or closes the stream.
func Serve(ctx context.Context, stream io.ReadWriteCloser, version string, logger *log.Logger) error {
	return newServer(version, logger).serve(ctx, stream)
}

func newServer(version string, logger *log.Logger) *server {
	return &server{
		version: version, log: logger, exit: make(chan struct{}),
		documents: map[string]*document{}, requests: map[jsonrpc2.ID]context.CancelFunc{},
	}
}

func (s *server) serve(ctx context.Context, stream io.ReadWriteCloser) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.ctx = ctx
	s.mu.Lock() // the connection calls Handle before NewConn returns
	s.conn = jsonrpc2.NewConn(ctx, jsonrpc2.NewBufferedStream(stream, jsonrpc2.VSCodeObjectCodec{}), s, jsonrpc2.SetLogger(s.log))
	s.mu.Unlock()
	select {
	case <-s.exit:
	case <-s.conn.DisconnectNotify():
	case <-ctx.Done():
	}
	cancel()
	s.conn.Close()
	s.work.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != down {
		return ErrExit
	}
	return nil
}

// The states of a session.
type state int

const (
	fresh state = iota // before initialize
	ready
	down // after shutdown
)

type server struct {
	ctx      context.Context // ends with the session
	conn     *jsonrpc2.Conn
	version  string
	log      *log.Logger
	exit     chan struct{}
	exitOnce sync.Once
	work     sync.WaitGroup // the goroutines

	mu        sync.Mutex
	state     state
	snippets  bool // the client supports snippets
	watch     bool // the client can watch files
	commands  []string
	lws       []schema.Version // from the settings of the editor
	documents map[string]*document
	requests  map[jsonrpc2.ID]context.CancelFunc // not answered yet

	configuration configuration
}

// A method decodes the parameters of a request and returns the function that answers it.
// The function runs later, concurrently with others.
type method func(s *server, params json.RawMessage) (answer, error)

type answer func(context.Context) (any, error)

// onPolicy is onDocument for requests that need the document itself to be a policy.
func onPolicy[P interface{ uri() string }](f func(*server, context.Context, *snapshot, P) (any, error)) method {
	return onDocument(func(s *server, ctx context.Context, snap *snapshot, p P) (any, error) {
		if !snap.plain() {
			return nil, nil
		}
		return f(s, ctx, snap, p)
	})
}

// onDocument returns the method of a request about a document. It answers null if the
// document is not open.
func onDocument[P interface{ uri() string }](f func(*server, context.Context, *snapshot, P) (any, error)) method {
	return func(s *server, params json.RawMessage) (answer, error) {
		var p P
		if err := json.Unmarshal(params, &p); err != nil {
			return nil, &jsonrpc2.Error{Code: jsonrpc2.CodeInvalidParams, Message: err.Error()}
		}
		snap := s.snapshot(p.uri())
		return func(ctx context.Context) (any, error) {
			if snap == nil {
				return nil, nil
			}
			return f(s, ctx, snap, p)
		}, nil
	}
}

func (p documentParams) uri() string { return p.TextDocument.URI }

var methods = map[string]method{
	"initialize":                       initialize,
	"shutdown":                         shutdown,
	"textDocument/hover":               onPolicy((*server).hover),
	"textDocument/completion":          onPolicy((*server).completion),
	"textDocument/definition":          onPolicy((*server).definition),
	"textDocument/references":          onPolicy((*server).references),
	"textDocument/documentHighlight":   onPolicy((*server).highlights),
	"textDocument/prepareRename":       onPolicy((*server).prepareRename),
	"textDocument/rename":              onPolicy((*server).rename),
	"textDocument/documentSymbol":      onPolicy((*server).symbols),
	"textDocument/foldingRange":        onPolicy((*server).folding),
	"textDocument/codeAction":          onDocument((*server).codeActions),
	"textDocument/formatting":          onPolicy((*server).formatting),
	"textDocument/semanticTokens/full": onPolicy((*server).semanticTokens),
	"textDocument/inlayHint":           onPolicy((*server).inlayHints),
	"textDocument/codeLens":            onPolicy((*server).codeLenses),
}

var notifications = map[string]func(s *server, params json.RawMessage) error{
	"initialized":                         notification((*server).initialized),
	"$/cancelRequest":                     notification((*server).cancelRequest),
	"textDocument/didOpen":                notification((*server).didOpen),
	"textDocument/didChange":              notification((*server).didChange),
	"textDocument/didClose":               notification((*server).didClose),
	"textDocument/didSave":                notification((*server).recheck),
	"workspace/didChangeWatchedFiles":     notification((*server).recheck),
	"workspace/didChangeConfiguration":    notification((*server).didChangeConfiguration),
	"workspace/didChangeWorkspaceFolders": notification((*server).recheck),
}

func notification[P any](f func(*server, P)) func(*server, json.RawMessage) error {
	return func(s *server, params json.RawMessage) error {
		var p P
		if err := json.Unmarshal(params, &p); err != nil {
			return err
		}
		f(s, p)
		return nil
	}
}

// Handle handles a message. The connection does not call it concurrently.
func (s *server) Handle(ctx context.Context, _ *jsonrpc2.Conn, req *jsonrpc2.Request) {
	params := json.RawMessage("null")
	if req.Params != nil {
		params = *req.Params
	}
	if req.Notif {
		s.notified(req.Method, params)
		return
	}
	answer, err := s.prepare(req.Method, params)
	ctx, cancel := context.WithCancel(ctx)
	s.mu.Lock()
	s.requests[req.ID] = cancel
	s.mu.Unlock()
	s.work.Go(func() {
		var result any
		if err == nil {
			result, err = s.answer(ctx, answer)
		}
		s.mu.Lock()
		delete(s.requests, req.ID)
		s.mu.Unlock()
		cancel()
		s.reply(req.ID, result, err)
	})
}

func (s *server) notified(method string, params json.RawMessage) {
	s.mu.Lock()
	state := s.state
	s.mu.Unlock()
	handle := notifications[method]
	switch {
	case method == "exit":
		s.exitOnce.Do(func() { close(s.exit) })
	case handle == nil || state != ready:
	default:
		if err := handle(s, params); err != nil {
			s.log.Printf("%s: %v", method, err)
		}
	}
}

// prepare returns the function that answers a request.
func (s *server) prepare(name string, params json.RawMessage) (answer, error) {
	s.mu.Lock()
	state := s.state
	s.mu.Unlock()
	m := methods[name]
	switch {
	case state == fresh && name != "initialize":
		return nil, &jsonrpc2.Error{Code: codeNotInitialized, Message: "the session is not initialized"}
	case state == down, state == ready && name == "initialize":
		return nil, &jsonrpc2.Error{Code: jsonrpc2.CodeInvalidRequest, Message: name + " is not expected now"}
	case m == nil:
		return nil, &jsonrpc2.Error{Code: jsonrpc2.CodeMethodNotFound, Message: "unknown method " + name}
	}
	return m(s, params)
}

// answer calls the function that answers a request. A panic in it becomes an error.
func (s *server) answer(ctx context.Context, f answer) (result any, err error) {
	err = &jsonrpc2.Error{Code: jsonrpc2.CodeInternalError, Message: "a bug in sspolicy: its log has more"}
	defer s.recover()
	cancelled := &jsonrpc2.Error{Code: codeRequestCancelled, Message: "cancelled"}
	if ctx.Err() != nil {
		return nil, cancelled
	}
	if result, err = f(ctx); ctx.Err() != nil {
		return nil, cancelled
	}
	return result, err
}

// recover logs a panic, and lets the server continue.
func (s *server) recover() {
	if e := recover(); e != nil {
		s.log.Printf("a bug in sspolicy, please report it: %v\n\n%s", e, debug.Stack())
	}
}

// reply answers a request. It ignores the error of a closed connection.
func (s *server) reply(id jsonrpc2.ID, result any, err error) {
	if err == nil {
		s.conn.Reply(s.ctx, id, result)
		return
	}
	e, ok := errors.AsType[*jsonrpc2.Error](err)
	if !ok {
		e = &jsonrpc2.Error{Code: codeRequestFailed, Message: err.Error()}
	}
	s.conn.ReplyWithError(s.ctx, id, e)
}

func (s *server) cancelRequest(p cancelParams) {
	var id jsonrpc2.ID
	if id.UnmarshalJSON(p.ID) != nil {
		return
	}
	s.mu.Lock()
	cancel := s.requests[id]
	s.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

func initialize(s *server, params json.RawMessage) (answer, error) {
	var p initializeParams
	if err := json.Unmarshal(params, &p); err != nil {
		return nil, &jsonrpc2.Error{Code: jsonrpc2.CodeInvalidParams, Message: err.Error()}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = ready
	s.snippets = p.Capabilities.TextDocument.Completion.CompletionItem.SnippetSupport
	s.watch = p.Capabilities.Workspace.DidChangeWatchedFiles.DynamicRegistration
	s.commands = p.InitializationOptions.Commands
	s.setLocked(p.InitializationOptions.settings)
	return func(context.Context) (any, error) {
		return initializeResult{
			ServerInfo: serverInfo{"sspolicy", s.version},
			Capabilities: serverCapabilities{
				TextDocumentSync:           syncOptions{OpenClose: true, Change: 2, Save: true},
				HoverProvider:              true,
				CompletionProvider:         completionOptions{TriggerCharacters: []string{`"`, "{", ":"}},
				DefinitionProvider:         true,
				ReferencesProvider:         true,
				DocumentHighlightProvider:  true,
				RenameProvider:             renameOptions{PrepareProvider: true},
				DocumentSymbolProvider:     true,
				FoldingRangeProvider:       true,
				CodeActionProvider:         codeActionOptions{CodeActionKinds: []string{kindQuickFix, kindFixAll, kindImport}},
				DocumentFormattingProvider: true,
				SemanticTokensProvider:     &semanticTokensOptions{Legend: semanticTokensLegend{TokenTypes: []string{"comment"}, TokenModifiers: []string{}}, Full: true},
				InlayHintProvider:          true,
			},
		}, nil
	}, nil
}

// has reports whether the client implements a command.
func (s *server) has(command string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.commands, command)
}

func (s *server) didChangeConfiguration(p configurationParams) {
	if p.Settings.SSPolicy != nil {
		s.mu.Lock()
		s.setLocked(*p.Settings.SSPolicy)
		s.mu.Unlock()
	}
	s.recheck(nil)
}

// setLocked stores settings, except unknown versions.
func (s *server) setLocked(of settings) {
	s.lws = nil
	for _, text := range of.LWS {
		var v schema.Version
		if err := v.UnmarshalText([]byte(text)); err != nil {
			s.log.Printf("the setting sspolicy.lws: %v", err)
			continue
		}
		s.lws = append(s.lws, v)
	}
}

// initialized registers for changes of JSON files on disk.
func (s *server) initialized(struct{}) {
	if !s.watch {
		return
	}
	s.work.Go(func() {
		p := json.RawMessage(`{"registrations":[{"id":"policies","method":"workspace/didChangeWatchedFiles","registerOptions":{"watchers":[{"globPattern":"**/*.json"}]}}]}`)
		if err := s.conn.Call(s.ctx, "client/registerCapability", p, nil); err != nil && s.ctx.Err() == nil {
			s.log.Printf("client/registerCapability: %v", err)
		}
	})
}

func shutdown(s *server, _ json.RawMessage) (answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = down
	return func(context.Context) (any, error) { return nil, nil }, nil
}
