package runtime

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http/httptrace"
	"net/netip"
	"sync"
	"time"
)

// maxPerf is the maximum size in bytes of the figures of an attempt, as in lws
// 5.0.0 (lib/secure-streams/secure-streams.c). Addresses that do not fit are left
// out.
const maxPerf = 500

// A perf records the figures of one attempt, if the policy sets perf. Its methods
// are safe for concurrent use.
type perf struct {
	mu       sync.Mutex
	reported bool         // by the program
	used     bool         // there is a connection: dials that still run do not count
	start    [4]time.Time // of each step
	took     [4]time.Duration
	dns      uint8 // the outcome
	found    []netip.Addr
	peer     netip.Addr
	status   int // of the response; 0 if there is none
}

// The steps that are timed.
const (
	perfDNS = iota
	perfConnect
	perfTLS
	perfResponse
)

// The outcome of a name lookup, in lws's numbers.
const (
	perfDNSNone        = 0
	perfDNSOK          = 1
	perfDNSUnreachable = 2 // the resolver
	perfDNSNoResult    = 3
)

// trace returns ctx with the trace that records the figures.
func (p *perf) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:  func(string) { p.reset() },
		GotConn:  func(i httptrace.GotConnInfo) { p.connected(i.Conn, i.Reused) },
		DNSStart: func(httptrace.DNSStartInfo) { p.begin(perfDNS) },
		DNSDone:  func(i httptrace.DNSDoneInfo) { p.resolved(i.Addrs, i.Err) },
		// Several dials may run at a time; one of them is used.
		ConnectStart: func(string, string) { p.begin(perfConnect) },
		ConnectDone: func(_, _ string, err error) {
			if err == nil {
				p.end(perfConnect)
			}
		},
		TLSHandshakeStart:    func() { p.begin(perfTLS) },
		TLSHandshakeDone:     func(tls.ConnectionState, error) { p.end(perfTLS) },
		WroteHeaders:         p.sent,
		WroteRequest:         func(httptrace.WroteRequestInfo) {},
		GotFirstResponseByte: func() { p.end(perfResponse) },
	})
}

func (p *perf) setStatus(code int) {
	if p != nil {
		p.mu.Lock()
		p.status = code
		p.mu.Unlock()
	}
}

// reset begins a request. A redirected or unsent request does not count.
func (p *perf) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.start, p.took = [4]time.Time{}, [4]time.Duration{}
	p.used, p.dns, p.found, p.peer = false, perfDNSNone, nil, netip.Addr{}
}

// connected records the connection of the request. A reused one took no time.
func (p *perf) connected(conn net.Conn, reused bool) {
	if reused {
		p.reset()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if addr, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil {
		p.peer = addr.Addr().WithZone("")
	}
	p.used = true
	// Over h2 net/http may report that the headers are written after the response.
	p.start[perfResponse] = time.Now()
}

// sent starts the wait for the response.
func (p *perf) sent() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.took[perfResponse] == 0 {
		p.start[perfResponse] = time.Now()
	}
}

func (p *perf) begin(step int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.start[step].IsZero() && !p.used {
		p.start[step] = time.Now()
	}
}

func (p *perf) end(step int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.took[step] == 0 && !p.start[step].IsZero() {
		p.took[step] = time.Since(p.start[step])
	}
}

func (p *perf) resolved(addrs []net.IPAddr, err error) {
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

// take returns the figures under lws's names on the first call, and nil after that.
func (p *perf) take() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reported {
		return nil
	}
	p.reported = true
	us := func(step int) int64 { return min(p.took[step].Microseconds(), math.MaxUint32) }
	b := fmt.Appendf(make([]byte, 0, maxPerf), `{"peer":%q,"dns_us":%d,"dns_disp":%d,"sockconn_us":%d,"tls_us":%d,"txn_resp_us":%d,"dns":[`,
		addrText(p.peer), us(perfDNS), p.dns, us(perfConnect), us(perfTLS), us(perfResponse))
	const tail = len(`],"prot_specific":{"protocol":"http","resp":65535}}`)
	for i, a := range p.found {
		text := addrText(a)
		if len(b)+len(`,""`)+len(text)+tail > maxPerf {
			break
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, "%q", text)
	}
	b = append(b, ']')
	if p.status != 0 {
		b = fmt.Appendf(b, `,"prot_specific":{"protocol":"http","resp":%d}`, p.status)
	}
	return append(b, '}')
}

// addrText returns an address as text, or "" for none.
func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
