package runtime

import (
	"context"
	"crypto/tls"
	"errors"
	"math"
	"net"
	"net/http/httptrace"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// maxPerf is how many bytes the figures of an attempt may have, as in lws 5.0.0
// (lib/secure-streams/secure-streams.c). Addresses that do not fit are left out.
const maxPerf = 500

// A Perf notes the figures of one attempt, where the policy says "perf". Its
// methods may be called from any goroutine, and on nil, which notes nothing.
type Perf struct {
	mu     sync.Mutex
	told   bool         // the program has got them
	used   bool         // a connection has been got; the making of another one counts no more
	begun  [4]time.Time // of each step
	took   [4]time.Duration
	dns    uint8 // what came of it
	found  []netip.Addr
	peer   netip.Addr
	status int // of the response; 0 if there is none
}

// The steps that are timed.
const (
	perfDNS = iota
	perfConnect
	perfTLS
	perfResponse
)

// What came of asking for the addresses of a name, in lws's numbers.
const (
	perfDNSNone        = 0
	perfDNSOK          = 1
	perfDNSUnreachable = 2 // the resolver
	perfDNSNoResult    = 3
)

// Perf returns what notes the figures of the attempt, or nil if the policy does
// not want them. The program gets them before CONNECTED or UNREACHABLE.
func (l *Link) Perf() *Perf { return l.perf }

// Context returns ctx with what notes the time that net, crypto/tls and net/http
// need for what is done with it. [Link.Dial] and DialPlain do without.
func (p *Perf) Context(ctx context.Context) context.Context {
	if p == nil {
		return ctx
	}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:  func(string) { p.Begin() },
		GotConn:  func(i httptrace.GotConnInfo) { p.got(i.Conn, i.Reused) },
		DNSStart: func(httptrace.DNSStartInfo) { p.begin(perfDNS) },
		DNSDone:  func(i httptrace.DNSDoneInfo) { p.resolved(i.Addrs, i.Err) },
		// There may be several at a time, of which one is to be used.
		ConnectStart: func(string, string) { p.begin(perfConnect) },
		ConnectDone: func(_, _ string, err error) {
			if err == nil {
				p.end(perfConnect)
			}
		},
		TLSHandshakeStart:    func() { p.begin(perfTLS) },
		TLSHandshakeDone:     func(tls.ConnectionState, error) { p.end(perfTLS) },
		WroteHeaders:         p.Sent,
		GotFirstResponseByte: p.Answered,
	})
}

// Handshake notes that a TLS handshake begins, and done, that it is done.
func (p *Perf) Handshake() (done func()) {
	p.begin(perfTLS)
	return func() { p.end(perfTLS) }
}

// Status notes the status of a response of HTTP.
func (p *Perf) Status(code int) {
	if p != nil {
		p.mu.Lock()
		p.status = code
		p.mu.Unlock()
	}
}

// Begin says that a request begins: one that was redirected, or sent in vain,
// is forgotten. Like Sent and Answered it is called by Context's trace too.
func (p *Perf) Begin() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun, p.took = [4]time.Time{}, [4]time.Duration{}
	p.used, p.dns, p.found, p.peer = false, perfDNSNone, nil, netip.Addr{}
}

// got notes the connection that is used. One that was there already has cost
// nothing.
func (p *Perf) got(conn net.Conn, reused bool) {
	if reused {
		p.Begin()
	}
	p.connected(conn)
	p.mu.Lock()
	p.used = true
	// Over h2 it may be told that the headers are written after the answer.
	p.begun[perfResponse] = time.Now()
	p.mu.Unlock()
}

// connected notes the peer.
func (p *Perf) connected(conn net.Conn) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if addr, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil {
		p.peer = addr.Addr().WithZone("")
	}
}

// Sent says that the response is waited for from now on.
func (p *Perf) Sent() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.took[perfResponse] == 0 {
		p.begun[perfResponse] = time.Now()
	}
}

// Answered says that the response begins to come.
func (p *Perf) Answered() { p.end(perfResponse) }

func (p *Perf) begin(step int) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.begun[step].IsZero() && !p.used {
		p.begun[step] = time.Now()
	}
}

func (p *Perf) end(step int) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.took[step] == 0 && !p.begun[step].IsZero() {
		p.took[step] = time.Since(p.begun[step])
	}
}

func (p *Perf) resolved(addrs []net.IPAddr, err error) {
	p.end(perfDNS)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used {
		return
	}
	dns, isDNS := errors.AsType[*net.DNSError](err)
	switch {
	case err == nil && len(addrs) > 0:
		p.dns = perfDNSOK
	case err == nil, isDNS && dns.IsNotFound:
		p.dns = perfDNSNoResult
	default:
		p.dns = perfDNSUnreachable
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			p.found = append(p.found, ip.Unmap())
		}
	}
}

// take returns the figures with the names that lws has for them, the first time.
func (p *Perf) take() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.told {
		return nil
	}
	p.told = true
	b := make([]byte, 0, maxPerf)
	text := func(name string, a netip.Addr) {
		b = append(b, name...)
		b = append(b, '"')
		if a.IsValid() {
			b = a.AppendTo(b)
		}
		b = append(b, '"')
	}
	number := func(name string, n int64) {
		b = append(b, name...)
		b = strconv.AppendInt(b, min(n, math.MaxUint32), 10)
	}
	text(`{"peer":`, p.peer)
	number(`,"dns_us":`, p.took[perfDNS].Microseconds())
	number(`,"dns_disp":`, int64(p.dns))
	number(`,"sockconn_us":`, p.took[perfConnect].Microseconds())
	number(`,"tls_us":`, p.took[perfTLS].Microseconds())
	number(`,"txn_resp_us":`, p.took[perfResponse].Microseconds())
	b = append(b, `,"dns":[`...)
	const tail = len(`],"prot_specific":{"protocol":"http","resp":65535}}`)
	for i, a := range p.found {
		if len(b)+len(`,""`)+len(a.String())+tail > maxPerf {
			break
		}
		if i > 0 {
			b = append(b, ',')
		}
		text("", a)
	}
	b = append(b, ']')
	if p.status != 0 {
		number(`,"prot_specific":{"protocol":"http","resp":`, int64(p.status))
		b = append(b, '}')
	}
	return append(b, '}')
}

// tellPerf delivers the figures of an attempt, once. What the program answers
// does not matter. The caller has the turn and does not hold mu.
func (l *Link) tellPerf(h Handlers) {
	if l.perf == nil || h.Rx == nil {
		return
	}
	if figures := l.perf.take(); figures != nil {
		l.s.callRx(h.Rx, figures, FlagPerfJSON|FlagSOM|FlagEOM)
	}
}
