package runtime

import (
	"cmp"
	"fmt"
	"net"
	"sync"

	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A role is the part of a stream that only servers have.
type role struct {
	port     *port           // opened by the stream, or that accepted it
	settings *listenSettings // of a listener that is not open yet; nil without options
	peer     transport.Peer  // of an accepted stream
	accepted bool            // port has accepted the stream
	txn      txn             // guarded by the mu of the stream
	reply    reply           // of txn

	prev, next *Stream // list of the port; guarded by mu of the context
}

// A reply is the program's answer to a request.
type reply struct {
	content *transport.Content
	status  uint16
	acked   bool
}

// A txn is the phase of a transaction.
type txn uint8

const (
	noTxn    txn = iota
	openTxn      // the program may still change the head of its answer
	answered     // the head of the answer has been sent
)

// A port is an open port of a listener.
type port struct {
	c        *Context
	stream   *Stream // the listener
	listener transport.Listener
	accept   func(*Stream) Handlers // nil: clients use the handlers of the listener
	served   chan struct{}          // closed when Serve has returned
	gone     chan struct{}          // closed when the listener has been destroyed
	leave    func()                 // makes the port not joinable
	done     chan struct{}          // closed when the port holds no more resources

	// Guarded by mu of the context.
	first   *Stream // list of the clients not yet destroyed
	empty   *sync.Cond
	serving bool // Serve has been called, or is about to be
	closing bool
}

// listenSettings are the options of a listener.
type listenSettings struct {
	accept  func(*Stream) Handlers
	options []transport.Option
	transport.ServerConfig
}

// listen opens the port of a new stream. After an error the stream is gone without
// a callback.
func (s *Stream) listen(c *Context) error {
	settings := s.role.settings
	if settings == nil {
		settings = new(listenSettings)
	}
	s.role.settings = nil
	setup := c.host.ServerSetup(s.t.setup, settings.ServerConfig, settings.options...)
	l, err := s.t.server.Listen(setup)
	if err != nil {
		s.mu.Lock()
		s.machine.Kill()
		s.mu.Unlock()
		c.remove(s)
		return err
	}
	p := &port{c: c, stream: s, listener: l, accept: settings.accept, leave: c.host.Opened(s.t.stream.Name, l), served: make(chan struct{}), gone: make(chan struct{}), done: make(chan struct{})}
	p.empty = sync.NewCond(&c.mu)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.role.port = p
	return nil
}

// serve starts to accept connections, unless the port is closing.
func (p *port) serve() {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	if p.closing {
		return
	}
	p.serving = true
	go func() {
		err := p.listener.Serve(p)
		close(p.served)
		if err != nil {
			p.stream.destroy(false, fmt.Errorf("sspolicy: listener %q: %w", p.stream.t.stream.Name, err))
		}
	}()
}

// portOf returns the port of a listener, or nil.
func (s *Stream) portOf() *port {
	if s.role == nil || s.role.accepted {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.role.port
}

// close begins to close the port. Only the first call has an effect. It reports
// whether the listener will be destroyed after its clients; otherwise there are no
// clients.
func (p *port) close(cause error) (later bool) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	if p.closing {
		return p.serving
	}
	p.closing = true
	serving := p.serving
	p.c.freeing.Add(1)
	go func() {
		defer p.c.freeing.Done()
		p.tearDown(cause, serving)
	}()
	return p.serving
}

func (p *port) tearDown(cause error, serving bool) {
	p.leave()
	err := closeInTime(p.listener)
	if err != nil {
		p.c.Logger().Warn("sspolicy: closing a port", "streamtype", p.stream.t.stream.Name, "err", err)
	}
	for _, s := range p.clients() {
		s.destroy(false, cause)
	}
	p.c.mu.Lock()
	for p.first != nil {
		p.empty.Wait()
	}
	p.c.mu.Unlock()
	if serving && err != ErrTimeout {
		<-p.served
	}
	p.stream.destroyNow(true, cause)
	<-p.gone
	close(p.done)
}

// clients returns the clients not yet destroyed.
func (p *port) clients() (all []*Stream) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	for s := p.first; s != nil; s = s.role.next {
		all = append(all, s)
	}
	return all
}

// Accept implements transport.Acceptor.
func (p *port) Accept(peer transport.Peer) (transport.AcceptedLink, error) {
	ls := p.stream
	s := &Stream{e: ls.e, t: ls.t, busy: true, role: &role{port: p, accepted: true, peer: peer}}
	s.settings.hooksContext = ls.settings.hooksContext
	s.machine.Type, s.machine.Accepted = s.t.stream, true
	s.machine.Start()
	s.meta, s.h = ls.forClient()
	if !p.enter(s) {
		return nil, ErrClosed
	}
	l := s.createAccepted(p.accept)
	if l == nil {
		return nil, ErrRefused
	}
	return l, nil
}

// forClient returns the initial metadata and handlers of a client.
func (s *Stream) forClient() (*metadata, Handlers) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.meta.forClient(), s.h
}

// enter adds a client to the lists of the context and the port. It returns false if
// the port is closing.
func (p *port) enter(s *Stream) bool {
	c := p.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || p.closing {
		return false
	}
	s.t.streams++
	c.addLocked(s)
	s.role.next = p.first
	if s.role.next != nil {
		s.role.next.role.prev = s
	}
	p.first = s
	return true
}

// leaveLocked removes a client from the list of the port.
func (p *port) leaveLocked(s *Stream) {
	r := s.role
	if r.prev != nil {
		r.prev.role.next = r.next
	} else {
		p.first = r.next
	}
	if r.next != nil {
		r.next.role.prev = r.prev
	}
	r.prev, r.next = nil, nil
	if p.first == nil {
		p.empty.Broadcast()
	}
}

// createAccepted delivers the states of an accepted stream up to CONNECTING. It
// returns nil if the program refuses the stream.
func (s *Stream) createAccepted(accept func(*Stream) Handlers) *link {
	done := false
	defer func() {
		if !done { // a callback panicked or ended the goroutine
			s.kill()
		}
	}()
	if accept != nil {
		s.h = accept(s)
	}
	s.mu.Lock()
	l, _ := s.settleAndUnlock()
	done = true
	return l
}

func (l *link) End(err error) {
	if l.s.finish(l, err) {
		l.s.settleAndUnlock()
	}
}

func (l *link) Begin(r transport.Request) error {
	listener := l.s.role.port.stream
	listener.mu.Lock()
	meta := listener.meta
	if meta != nil {
		meta = meta.forClient() // s must not be locked with it
	}
	listener.mu.Unlock()
	if err := l.acquire(notPayload); err != nil {
		return err
	}
	s := l.s
	if s.meta != nil {
		s.meta.restart(meta)
	} else {
		s.meta = meta
	}
	s.receiveLocked(r)
	s.role.txn, s.role.reply = openTxn, reply{}
	l.clearTxLocked()
	s.txLen = 0
	if !s.machine.Connected() {
		l.stopTimerLocked()
		if err := l.reachAndUnlock(StateConnected); err != nil {
			return err
		}
		return l.reach(StateServerTxn)
	}
	return l.reachAndUnlock(StateServerTxn)
}

func (l *link) Upgrade(r transport.Request) error {
	if err := l.acquire(notPayload); err != nil {
		return err
	}
	l.s.receiveLocked(r)
	return l.reachAndUnlock(StateServerUpgrade)
}

// receiveLocked sets the metadata from a request.
func (s *Stream) receiveLocked(r transport.Request) {
	st := s.t.stream
	if len(st.Metadata) > 0 {
		m := s.metadataLocked()
		for i, item := range st.Metadata {
			value, ok := requested(r, item.Name, item.Header)
			if ok {
				m.receive(i, value)
			}
		}
	}
	if st.DirectProtoStr {
		s.metadataLocked().newDirectHeaders().received = r.Header
	}
}

// requested returns the value of a metadata item in a request. A URL argument does
// not set an item that is mapped to a header: a program may trust a header that a
// proxy sets.
func requested(r transport.Request, name, header string) (value string, ok bool) {
	switch {
	case name == "method":
		return r.Method, true
	case name == "path":
		return r.Path, true
	case name == "auth" && header == "":
		return r.Auth, r.Auth != ""
	case header != "":
		value = r.Header(headerName(header))
		return value, value != ""
	}
	values, ok := r.Query[name]
	if !ok {
		return "", false
	}
	return values[0], true
}

func (l *link) Reply(send bool) transport.Reply {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	s := l.s
	if send {
		s.role.txn = answered
	}
	r := s.role.reply
	return transport.Reply{
		Status: int(cmp.Or(r.status, 404)), Acked: r.acked,
		Length: s.txLen, Sends: s.wantsTx && s.h.Tx != nil, Content: r.content,
	}
}

func (l *link) Complete() {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	s := l.s
	if l.phase != attempting {
		return
	}
	s.role.txn, s.role.reply = noTxn, reply{}
	s.txLen = 0
	l.clearTxLocked()
	s.stopTimeoutLocked()
}

var (
	_ transport.AcceptedLink = (*link)(nil)
	_ transport.Acceptor     = (*port)(nil)
)

// Addr returns the address of a listener's port. If the policy has port 0, that is
// the one that the system has chosen. It returns nil for other streams.
func (s *Stream) Addr() net.Addr {
	if p := s.portOf(); p != nil {
		return p.listener.Addr()
	}
	return nil
}
