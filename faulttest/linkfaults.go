package faulttest

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/secure-streams/sspolicy/faulttest/link"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

var (
	breakParams = []Param{
		{Name: "after", Help: "The number of bytes that are forwarded first.", Default: "0", Min: 0, Max: 1 << 30, Unit: "bytes"},
		{Name: "of", Help: "The sender of these bytes.", Default: "server", Choices: []string{"server", "client"}},
	}
	forever = 24 * time.Hour
)

// breaks returns the function of a fault that breaks connections.
func breaks(kind link.Kind) func(*peer) *behavior {
	return func(p *peer) *behavior {
		return &behavior{link: func() link.Fault {
			return link.Fault{Kind: kind, Reply: p.args["of"] == "server", After: p.args.int("after"), Stall: forever}
		}}
	}
}

// shapes returns the function of a fault that slows connections down.
func shapes(f func(*subject) link.Fault) func(*peer) *behavior {
	return func(p *peer) *behavior {
		return &behavior{link: func() link.Fault { return f(p.subject) }}
	}
}

// Faults of the network between the device and its server.
var (
	Refused = &Fault{
		Name: "refused", Family: "link", Summary: "Connections are refused",
		Why:       "The server is being restarted, or its port has changed. The refusal is fast, so a device without a backoff hammers the server.",
		misbehave: func(*peer) *behavior { return &behavior{gone: true} },
		expect:    fails,
		Cause:     "refused",
	}
	BacklogFull = &Fault{
		Name: "backlog-full", Family: "link", Summary: "The server is too busy to accept connections",
		Why:       "After an outage all devices reconnect at once. Connections then fail only after a timeout.",
		Only:      func(*policy.StreamType) bool { return canFill },
		misbehave: func(*peer) *behavior { return &behavior{full: true} },
		expect:    fails,
		Cause:     timedOut,
	}
	AcceptSilent = &Fault{
		Name: "accept-silent", Family: "link", Summary: "The server accepts connections and then says nothing",
		Why:    "A process hangs while its kernel still accepts connections. Only timeouts help the device.",
		Params: []Param{{Name: "stage", Help: "The last step before the server falls silent: the TCP connection, or the TLS handshake if there is one.", Default: "tcp", Choices: []string{"tcp", "tls"}}},
		misbehave: func(p *peer) *behavior {
			silent := func(c net.Conn) { p.strike("the connection is not answered"); p.hold(c) }
			if p.args["stage"] == "tls" {
				return &behavior{conn: silent}
			}
			return &behavior{wire: silent}
		},
		expect: func(s *subject) expectation {
			if s.args["stage"] == "tls" && s.Protocol == policy.ProtocolRaw {
				return s.stalled("CON")
			}
			return s.silence()
		},
	}
	Reset = &Fault{
		Name: "reset", Family: "link", Summary: "The connection is reset",
		Why:       "A firewall forgets the connection, a server crashes, a phone network moves the device to another gateway.",
		Params:    breakParams,
		misbehave: breaks(link.Reset),
		expect: func(s *subject) expectation {
			if s.args.int("after") > 0 {
				return s.anywhere(false)
			}
			return expect(s.reset()...)
		},
	}
	FIN = &Fault{
		Name: "fin", Family: "link", Summary: "The connection is closed cleanly, but too early",
		Why:       "A load balancer is drained, or a server closes a connection that it considers idle.",
		Params:    breakParams,
		misbehave: breaks(link.FIN),
		expect: func(s *subject) expectation {
			if s.args.int("after") > 0 {
				return s.anywhere(false)
			}
			return expect(s.broken())
		},
	}
	BlackHole = &Fault{
		Name: "blackhole", Family: "link", H3: true, Summary: "The connection stays open, but nothing arrives",
		Why:       "A NAT drops its entry, or a radio link fades. TCP does not notice for minutes, so the timeouts and the validity check of the policy must.",
		Params:    breakParams,
		misbehave: breaks(link.BlackHole),
		expect: func(s *subject) expectation {
			if s.args.int("after") > 0 {
				return s.anywhere(true)
			}
			return s.silence()
		},
	}
	Latency = &Fault{
		Name: "latency", Family: "link", Summary: "Each piece of data is late",
		Why: "The link is a satellite link, or the cell is congested. A handshake takes several round trips, so timeouts for an office network are too short.",
		Params: []Param{
			{Name: "ms", Help: "The delay in each direction.", Default: "500", Min: 1, Max: 600_000, Unit: "ms"},
			{Name: "jitter", Help: "The largest random addition.", Default: "0", Min: 0, Max: 600_000, Unit: "ms"},
		},
		misbehave: shapes(func(s *subject) link.Fault { return link.Fault{Latency: s.ms("ms"), Jitter: s.ms("jitter")} }),
		expect: func(s *subject) expectation {
			return s.delayed(s.ms("ms"), 10*(s.ms("ms")+s.ms("jitter"))+slack)
		},
	}
	Rate = &Fault{
		Name: "rate", Family: "link", Summary: "The link is slow",
		Why:    "The device has a narrow-band radio. A TLS handshake alone needs a few kilobytes.",
		Params: []Param{{Name: "rate", Help: "The bytes per second in each direction.", Default: "2000", Min: 1, Max: 1 << 30, Unit: "bytes"}},
		misbehave: shapes(func(s *subject) link.Fault {
			return link.Fault{Rate: s.args.int("rate") * s.hurry}
		}),
		expect: func(s *subject) expectation {
			rate := time.Duration(s.args.int("rate") * s.hurry)
			return s.delayed(8*time.Second/rate, 16_000*time.Second/rate+slack)
		},
	}
	Slice = &Fault{
		Name: "slice", Family: "link", Summary: "Data arrives in small pieces",
		Why: "A message need not arrive in one piece. Parsers that expect a whole header in one read fail rarely, and only in the field.",
		Params: []Param{
			{Name: "bytes", Help: "The size of a piece.", Default: "100", Min: 1, Max: 65535, Unit: "bytes"},
			{Name: "ms", Help: "The delay of each piece.", Default: "20", Min: 0, Max: 60_000, Unit: "ms"},
		},
		misbehave: shapes(func(s *subject) link.Fault {
			return link.Fault{Slice: s.args.int("bytes"), Latency: s.ms("ms")}
		}),
		expect: func(s *subject) expectation {
			return s.delayed(s.ms("ms"), (20+16_000/time.Duration(s.args.int("bytes")))*s.ms("ms")+slack)
		},
	}
	Flap = &Fault{
		Name: "flap", Family: "link", Summary: "The link goes down and up again",
		Why: "A radio is at the edge of its cell. The device must reconnect by itself, and must not give up after the first success.",
		Params: []Param{
			{Name: "down", Help: "The number of consecutive connections that are reset.", Default: "2", Min: 1, Max: 1000},
			{Name: "up", Help: "The number of consecutive connections that succeed after that.", Default: "1", Min: 0, Max: 1000},
		},
		misbehave: func(p *peer) *behavior {
			var n atomic.Int64
			down, cycle := int64(p.args.int("down")), int64(p.args.int("down")+p.args.int("up"))
			return &behavior{link: func() link.Fault {
				if (n.Add(1)-1)%cycle < down {
					return link.Fault{Kind: link.Reset, Reply: true, After: 1}
				}
				return link.Fault{}
			}}
		},
		expect: func(s *subject) expectation {
			down, cycle := s.args.int("down"), s.args.int("down")+s.args.int("up")
			return expectation{attempts: func(n int) []string {
				if (n-1)%cycle < down {
					if s.connectsFirst() {
						return []string{"CON DIS", "CON rx DIS", unreachable}
					}
					return []string{unreachable}
				}
				return []string{s.healthy()}
			}}
		},
	}
	SlowClose = &Fault{
		Name: "slow-close", Family: "link", Summary: "The end of the connection arrives late",
		Why:    "A middlebox keeps connections open. A client that waits for the end of the connection, instead of the end of the message, waits longer.",
		Proto:  []policy.Protocol{policy.ProtocolH1, policy.ProtocolRaw},
		Params: []Param{{Name: "ms", Help: "The delay.", Default: "1000", Min: 1, Max: 600_000, Unit: "ms"}},
		misbehave: func(p *peer) *behavior {
			return &behavior{conn: p.endLate}
		},
		expect: func(s *subject) expectation {
			e := expect(s.healthy() + " DIS")
			if s.isHTTP() {
				e = expect(s.answered(200))
			}
			e.atLeast = s.ms("ms")
			return e
		},
	}
)

// slack is the delay that a busy machine may add.
const slack = time.Second

var linkFaults = []*Fault{Refused, BacklogFull, AcceptSilent, Reset, FIN, BlackHole, Latency, Rate, Slice, Flap, SlowClose}

// endLate answers, and closes the connection later.
func (p *peer) endLate(c net.Conn) {
	if p.isHTTP() {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
	}
	io.WriteString(c, payload)
	p.strike("the end of the connection is held back")
	p.sleep(p.ms("ms"))
	c.Close()
}
