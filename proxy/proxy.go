package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/secure-streams/sspolicy/internal/sspcwire"
	"github.com/secure-streams/sspolicy/runtime"
)

// HandshakeTimeout is the time limit for a client to name a streamtype, as in lws.
const HandshakeTimeout = 3 * time.Second

// DefaultMaxLinks is the default limit of concurrent links of a Proxy.
const DefaultMaxLinks = 10_000

// Options configure a [Proxy]. The zero value is ready to use.
type Options struct {
	// Logger receives events of links: debug messages when they open and close,
	// warnings about clients that are refused or violate the protocol. Nil discards
	// them.
	Logger *slog.Logger

	// Roles define what clients may do: the first that matches a client applies. A
	// client without a role gets no stream. Nil allows everything to everybody.
	Roles []*Role

	// MaxLinks limits the number of concurrent links; further ones are closed at
	// once. 0 means DefaultMaxLinks. One user, or one address, gets at most half of
	// them unless its Role has MaxLinks.
	MaxLinks int
}

// A Proxy serves links. Its methods are safe for concurrent use.
type Proxy struct {
	ctx   *runtime.Context
	o     Options
	log   *slog.Logger
	stats counters
	next  atomic.Uint64 // number of the latest link

	warnings   bucket
	suppressed atomic.Uint64 // number of warnings not logged

	mu        sync.Mutex
	links     map[*link]struct{}
	listeners map[net.Listener]struct{}
	budgets   []*budget        // of the roles
	peers     map[string]share // by key
	draining  bool
	running   sync.WaitGroup // goroutines of links
}

// New returns a proxy that executes streams in ctx. Clients can use every
// streamtype of its policy except servers, and _lws_smd if ctx has a transport for
// it.
func New(ctx *runtime.Context, o Options) *Proxy {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxLinks <= 0 {
		o.MaxLinks = DefaultMaxLinks
	}
	return &Proxy{
		ctx: ctx, o: o, log: o.Logger,
		links: map[*link]struct{}{}, listeners: map[net.Listener]struct{}{},
		budgets: newBudgets(o.Roles), peers: map[string]share{},
		warnings: bucket{rate: maxWarnings},
	}
}

// Serve accepts links from l until Shutdown or Close, which close l; it then
// returns [net.ErrClosed]. Otherwise it returns the error of l.
func (p *Proxy) Serve(l net.Listener) error {
	defer l.Close()
	p.mu.Lock()
	if p.draining {
		p.mu.Unlock()
		return net.ErrClosed
	}
	p.listeners[l] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.listeners, l)
		p.mu.Unlock()
	}()
	var wait time.Duration
	for {
		conn, err := l.Accept()
		if err == nil {
			wait = 0
			p.start(conn)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		// Such as too many open files: links that close make room.
		wait = min(max(2*wait, 5*time.Millisecond), time.Second)
		p.log.Error("proxy: cannot accept a link", "err", err, "retry", wait)
		time.Sleep(wait)
	}
}

// ServeConn serves one link until it ends, and closes conn. It returns nil if the
// client closed the link.
func (p *Proxy) ServeConn(conn net.Conn) error {
	l, err := p.add(conn)
	if err != nil {
		return err
	}
	return l.serve()
}

func (p *Proxy) start(conn net.Conn) {
	l, err := p.add(conn)
	if err != nil {
		return
	}
	go l.serve()
}

// add makes a link of conn. After an error conn is closed.
func (p *Proxy) add(conn net.Conn) (*link, error) {
	l := newLink(p, conn)
	key := l.peer.key()
	p.mu.Lock()
	s := p.peers[key]
	err := error(nil)
	switch {
	case p.draining:
		err = net.ErrClosed
	case len(p.links) >= p.o.MaxLinks:
		err = errTooManyLinks
	case s.unnamed >= max(1, p.o.MaxLinks/unnamedShare):
		err = errTooManyUnnamed
	default:
		s.unnamed++
		p.peers[key] = s
		p.links[l] = struct{}{}
		p.running.Add(1)
	}
	p.mu.Unlock()
	if err != nil {
		conn.Close()
		p.stats.refused.Add(1)
		p.warn(p.log, "proxy: link refused", "peer", l.peer, "err", err)
		return nil, fmt.Errorf("sspolicy: proxy: %w", err)
	}
	p.stats.opened.Add(1)
	return l, nil
}

// A share is the number of links of one user or one address.
type share struct{ unnamed, named int }

// One peer may hold MaxLinks/unnamedShare links without a stream, and MaxLinks/namedShare
// with one unless its role has a limit.
const (
	unnamedShare = 10
	namedShare   = 2
)

var (
	errTooManyLinks   = errors.New("too many links")
	errTooManyUnnamed = errors.New("too many links of one peer without a stream")
	errTooManyNamed   = errors.New("too many links of one peer, whose role has no max_links")
)

// setNamed records that a link has a stream.
func (p *Proxy) setNamed(l *link) {
	key := l.peer.key()
	p.mu.Lock()
	defer p.mu.Unlock()
	l.named = true
	s := p.peers[key]
	p.peers[key] = share{s.unnamed - 1, s.named + 1}
}

// maxWarnings is the maximum number of warnings logged per second.
const maxWarnings = 20

// warn logs a warning about a client, unless there are too many.
func (p *Proxy) warn(log *slog.Logger, msg string, args ...any) {
	if !p.warnings.allow() {
		p.suppressed.Add(1)
		return
	}
	if n := p.suppressed.Swap(0); n > 0 {
		args = append(args, "suppressed", n)
	}
	log.Warn(msg, args...)
}

// remove removes a link that has ended.
func (p *Proxy) remove(l *link) {
	key := l.peer.key()
	p.mu.Lock()
	delete(p.links, l)
	s := p.peers[key]
	if l.named {
		s.named--
	} else {
		s.unnamed--
	}
	if p.peers[key] = s; s == (share{}) {
		delete(p.peers, key)
	}
	p.mu.Unlock()
	p.running.Done()
}

// all returns the links.
func (p *Proxy) all() []*link {
	p.mu.Lock()
	defer p.mu.Unlock()
	links := make([]*link, 0, len(p.links))
	for l := range p.links {
		links = append(links, l)
	}
	return links
}

// Shutdown ends the proxy gracefully: it accepts no more links, closes each link
// whose stream is idle, waits until no stream is connecting or connected or ctx is
// done, and then calls Close. It returns the error of ctx.
func (p *Proxy) Shutdown(ctx context.Context) error {
	p.refuse()
	links := p.all()
	for _, l := range links {
		l.drain()
	}
	done := make(chan struct{})
	go func() {
		p.running.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.Close()
	<-done
	return err
}

// refuse closes the listeners.
func (p *Proxy) refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draining = true
	for l := range p.listeners {
		l.Close()
	}
}

// Close closes listeners and links, and waits until they have ended. It destroys
// the streams of the links, but does not wait for that; [runtime.Context.Shutdown]
// does. It returns nil.
func (p *Proxy) Close() error {
	p.refuse()
	for _, l := range p.all() {
		l.close(errShutdown)
	}
	p.running.Wait()
	return nil
}

var errShutdown = errors.New("the proxy is shutting down")

type counters struct {
	opened, refused, failed atomic.Uint64
	framesIn, framesOut     atomic.Uint64
	bytesIn, bytesOut       atomic.Uint64
	streams, streamsRefused atomic.Uint64
}

// Stats are counts since the start of a Proxy. Links is the current number.
type Stats struct {
	Links          int    // current links
	LinksOpened    uint64 // accepted links
	LinksRefused   uint64 // links closed at once, beyond a limit
	LinksFailed    uint64 // links that violated the protocol or a limit
	Streams        uint64 // streams that clients have opened
	StreamsRefused uint64 // streams refused to clients
	FramesIn       uint64 // from clients
	FramesOut      uint64
	PayloadIn      uint64 // bytes from clients
	PayloadOut     uint64
}

// Stats returns the current counts.
func (p *Proxy) Stats() Stats {
	p.mu.Lock()
	links := len(p.links)
	p.mu.Unlock()
	c := &p.stats
	return Stats{
		Links: links, LinksOpened: c.opened.Load(), LinksRefused: c.refused.Load(), LinksFailed: c.failed.Load(),
		Streams: c.streams.Load(), StreamsRefused: c.streamsRefused.Load(),
		FramesIn: c.framesIn.Load(), FramesOut: c.framesOut.Load(),
		PayloadIn: c.bytesIn.Load(), PayloadOut: c.bytesOut.Load(),
	}
}

// toClient is the direction of the frames that a proxy sends.
const toClient = sspcwire.FromProxy
