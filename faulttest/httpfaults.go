package faulttest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

var (
	anyHTTP = []policy.Protocol{policy.ProtocolH1, policy.ProtocolH2}
	onlyH1  = []policy.Protocol{policy.ProtocolH1}
	onlyH2  = []policy.Protocol{policy.ProtocolH2}
)

// answers returns the function of a fault whose server answers requests itself. next is the
// handler of the healthy server.
func answers(answer func(p *peer, w http.ResponseWriter, r *http.Request, next http.Handler)) func(*peer) *behavior {
	return func(p *peer) *behavior {
		return &behavior{http: func(next http.Handler) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) { answer(p, w, r, next) }
		}}
	}
}

// answersH1 returns the function of a fault whose server reads the head of a request and
// then serves the connection itself.
func answersH1(serve func(p *peer, c net.Conn)) func(*peer) *behavior {
	return func(p *peer) *behavior {
		return &behavior{conn: func(c net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				serve(p, c)
				p.hold(c)
			}
		}}
	}
}

// hasContent reports whether a successful response of the stream has a body.
func hasContent(st *policy.StreamType) bool {
	s := subject{StreamType: st}
	return s.hasBody(s.status())
}

// cut describes an attempt whose response is truncated in its body.
func (s *subject) cut() expectation {
	if s.Protocol == policy.ProtocolH3 { // a reset overtakes data sent before it
		return expect(s.opens()+" rx DIS", s.opens()+" DIS", unreachable)
	}
	return expect(s.opens()+" rx DIS", s.opens()+" DIS")
}

// Faults of HTTP servers.
var (
	HTTPStatus = &Fault{
		Name: "http-status", Family: "http", H3: true, Summary: "The server answers with an error status", Proto: anyHTTP,
		Why:    "The server has a bug, or refuses the request. This is an answer, so the stream does not retry: the program gets QOS_NACK_REMOTE, or the state for the status in http_resp_map.",
		Params: []Param{{Name: "status", Help: "The status.", Default: "500", Min: 200, Max: 599}},
		misbehave: answers(func(p *peer, w http.ResponseWriter, r *http.Request, _ http.Handler) {
			status := p.args.int("status")
			p.strike("%s %s is answered with %d", r.Method, r.URL, status)
			io.Copy(io.Discard, r.Body)
			w.WriteHeader(status)
			if p.hasBody(status) {
				io.WriteString(w, "this is an error\n")
			}
		}),
		expect: func(s *subject) expectation {
			status := s.args.int("status")
			if status/100 == 3 {
				return expect(s.answered(status), s.user(status)+unreachable, unreachable)
			}
			return expect(s.answered(status))
		},
	}
	HTTPUnavailable = retryAfter("http-unavailable", 503, "The server is overloaded and says when to retry",
		"After an outage, or during a release, the server protects itself. A device that ignores Retry-After keeps it down.")
	HTTPTooManyRequests = retryAfter("http-too-many-requests", 429, "The server has received too many requests from this device",
		"The device has a bug, or many devices share one address. Each request before the given time makes it worse.")
	HTTPRedirectLoop = &Fault{
		Name: "http-redirect-loop", Family: "http", H3: true, Summary: "The server redirects without end", Proto: anyHTTP,
		Why: "Two servers redirect the client to each other, often after a change from http to https. A device that follows them never stops.",
		misbehave: answers(func(p *peer, w http.ResponseWriter, r *http.Request, _ http.Handler) {
			p.strike("%s is redirected", r.URL)
			http.Redirect(w, r, r.URL.String(), http.StatusFound)
		}),
		expect: func(s *subject) expectation { return expect(s.user(302)+unreachable, unreachable) },
	}
	HTTPCaptivePortal = &Fault{
		Name: "http-captive-portal", Family: "http", Summary: "A captive portal answers instead of the server", Proto: anyHTTP,
		Only: func(st *policy.StreamType) bool { return !usesTLS(st) },
		Why:  "The network of a hotel or a shop redirects all plain HTTP to its login page. A stream that follows redirects treats that page as the answer of its server. With TLS the device gets tls-untrusted instead.",
		misbehave: answers(func(p *peer, w http.ResponseWriter, r *http.Request, _ http.Handler) {
			const login = "/captive-portal/login"
			if r.URL.Path == login {
				w.WriteHeader(p.status())
				if p.hasBody(p.status()) {
					io.WriteString(w, "<html>Welcome! Please log in.</html>\n")
				}
				return
			}
			p.strike("%s is redirected to the login page", r.URL)
			http.Redirect(w, r, login, http.StatusFound)
		}),
		expect: func(s *subject) expectation {
			if s.HTTP.AllowRedirects && !s.HTTP.FailRedirect {
				return expect(s.healthy())
			}
			return expect(s.user(302) + unreachable)
		},
	}
	HTTPNoInternet = &Fault{
		Name: "http-no-internet", Family: "http", Summary: "The gateway has no connection to the internet", Proto: anyHTTP,
		Only: func(st *policy.StreamType) bool { return !usesTLS(st) },
		Why:  "The router itself answers that it cannot reach the server: the device has an address, a gateway and a name server, but no internet.",
		misbehave: answers(func(p *peer, w http.ResponseWriter, r *http.Request, _ http.Handler) {
			p.strike("%s is answered by the gateway", r.URL)
			io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusGatewayTimeout)
			if p.HTTP.Method != "HEAD" {
				io.WriteString(w, "<html>The gateway has no connection to the internet.</html>\n")
			}
		}),
		expect: func(s *subject) expectation { return expect(s.answered(http.StatusGatewayTimeout)) },
	}
	HTTPSlow = &Fault{
		Name: "http-slow", Family: "http", H3: true, Summary: "The answer takes a long time", Proto: anyHTTP,
		Why:    "A database is slow. The stream waits until the timeout of an attempt.",
		Params: []Param{{Name: "ms", Help: "The delay before the answer.", Default: "5000", Min: 1, Max: 600_000, Unit: "ms"}},
		misbehave: answers(func(p *peer, w http.ResponseWriter, r *http.Request, next http.Handler) {
			p.strike("the answer to %s waits", r.URL)
			select {
			case <-r.Context().Done():
			case <-p.ctx.Done():
			case <-time.After(p.ms("ms")):
				next.ServeHTTP(w, r)
			}
		}),
		expect: func(s *subject) expectation { return s.delayed(s.ms("ms"), s.ms("ms")+slack) },
	}
	HTTPDrip = &Fault{
		Name: "http-drip", Family: "http", H3: true, Summary: "The body arrives byte by byte", Proto: anyHTTP, Only: hasContent,
		Why: "The server is overloaded, or an attacker holds connections open. After CONNECTED only timeout_ms limits the response.",
		Params: []Param{
			{Name: "bytes", Help: "The length of the body.", Default: "10", Min: 1, Max: 10_000, Unit: "bytes"},
			{Name: "ms", Help: "The time between two bytes.", Default: "100", Min: 1, Max: 600_000, Unit: "ms"},
		},
		misbehave: answers(func(p *peer, w http.ResponseWriter, r *http.Request, _ http.Handler) {
			p.strike("the body for %s drips", r.URL)
			io.Copy(io.Discard, r.Body)
			w.WriteHeader(p.status())
			for range p.args.int("bytes") {
				if _, err := io.WriteString(w, "x"); err != nil {
					return
				}
				w.(http.Flusher).Flush()
				select {
				case <-r.Context().Done():
					return
				case <-p.ctx.Done():
					return
				case <-time.After(p.ms("ms")):
				}
			}
		}),
		expect: func(s *subject) expectation {
			least := s.ms("ms") * time.Duration(s.args.int("bytes"))
			if limit := s.Timeout; limit > 0 && least+slack >= limit {
				e := expect(s.opens()+" rx TMO DIS", s.opens()+" TMO DIS")
				if least < limit {
					e = expect(s.opens()+" rx TMO DIS", s.healthy())
				}
				return e
			}
			e := expect(s.healthy())
			e.atLeast = least
			return e
		},
	}
	HTTPTruncated = &Fault{
		Name: "http-truncated", Family: "http", H3: true, Summary: "The body is shorter than its Content-Length", Proto: anyHTTP, Only: hasContent,
		Why: "The server crashes in the middle of an answer. The received part looks like an answer, but a firmware image is one byte short.",
		misbehave: answers(func(p *peer, w http.ResponseWriter, r *http.Request, _ http.Handler) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Length", "1000")
			w.WriteHeader(p.status())
			io.WriteString(w, payload)
			w.(http.Flusher).Flush()
			p.strike("the body for %s is cut off", r.URL)
			panic(http.ErrAbortHandler)
		}),
		expect: (*subject).cut,
	}
	HTTPTruncatedChunked = &Fault{
		Name: "http-truncated-chunked", Family: "http", Summary: "The last chunk of the body is missing", Proto: onlyH1, Only: hasContent,
		Why: "This is like http-truncated, but without a known length: only the empty last chunk shows that the body is complete.",
		misbehave: answersH1(func(p *peer, c net.Conn) {
			fmt.Fprintf(c, "HTTP/1.1 %d OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", p.status())
			p.strike("the last chunk is missing")
			c.Close()
		}),
		expect: (*subject).cut,
	}
	HTTPTwoLengths = &Fault{
		Name: "http-two-lengths", Family: "http", Summary: "The response has two lengths", Proto: onlyH1,
		Why: "If a server and a cache disagree about the length, attackers can smuggle responses. A client must refuse such a response (RFC 9112, section 6.3).",
		misbehave: answersH1(func(p *peer, c net.Conn) {
			p.strike("the response has two lengths")
			fmt.Fprintf(c, "HTTP/1.1 %d OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\nhello", p.status())
		}),
		expect: fails,
	}
	HTTPHugeHeader = &Fault{
		Name: "http-huge-header", Family: "http", H3: true, Summary: "The header of the response is huge", Proto: anyHTTP,
		Why:    "A proxy adds cookies and traces until the header exceeds what a device reads: 256 KiB with this runtime, a few kilobytes with lws.",
		Params: []Param{{Name: "kib", Help: "The size of the header in KiB.", Default: "1024", Min: 1, Max: 4096}},
		misbehave: answers(func(p *peer, w http.ResponseWriter, r *http.Request, next http.Handler) {
			p.strike("the header for %s is huge", r.URL)
			for i := range p.args.int("kib") {
				w.Header().Set(fmt.Sprintf("X-Filler-%d", i), strings.Repeat("x", 1000))
			}
			next.ServeHTTP(w, r)
		}),
		expect: func(s *subject) expectation {
			switch n := s.args.int("kib"); {
			case n <= 128:
				return expect(s.healthy())
			case n <= 300:
				return expect(s.healthy(), unreachable)
			}
			return expect(unreachable)
		},
	}
	HTTPGarbage = &Fault{
		Name: "http-garbage", Family: "http", Summary: "The server's answer is not HTTP", Proto: anyHTTP,
		Why: "Another service listens on the port, or a middlebox answers with its own page.",
		misbehave: func(p *peer) *behavior {
			return &behavior{conn: func(c net.Conn) {
				if _, err := c.Read(make([]byte, 1)); err != nil {
					return
				}
				p.strike("the server answers with garbage")
				io.WriteString(c, strings.Repeat("\x00\xff garbage \r\n", 50))
				closeWrite(c)
				p.hold(c)
			}}
		},
		expect: fails,
	}
	H2GoAway = &Fault{
		Name: "h2-goaway", Family: "http", Summary: "The server sends GOAWAY before it answers", Proto: onlyH2,
		Why: "A load balancer is drained. It has not processed the request, so the client may send it again on another connection.",
		misbehave: answersH2(func(p *peer, f *http2.Framer, _ uint32) {
			p.strike("GOAWAY")
			f.WriteGoAway(0, http2.ErrCodeInternal, nil)
		}),
		expect: fails,
	}
	H2Reset = &Fault{
		Name: "h2-rst", Family: "http", Summary: "The server resets the request", Proto: onlyH2,
		Why: "The process behind the load balancer has crashed. The connection still works, but the request has failed.",
		misbehave: answersH2(func(p *peer, f *http2.Framer, id uint32) {
			p.strike("RST_STREAM")
			f.WriteRSTStream(id, http2.ErrCodeInternal)
		}),
		expect: fails,
	}
	H2WindowOverflow = &Fault{
		Name: "h2-window-overflow", Family: "http", Summary: "The server sends more than flow control permits", Proto: onlyH2, Only: hasContent,
		Why: "A server that ignores flow control can exhaust a device's memory. The connection must end (RFC 9113, section 6.9.1).",
		misbehave: answersH2(func(p *peer, f *http2.Framer, id uint32) {
			var head strings.Builder
			e := hpack.NewEncoder(&head)
			e.WriteField(hpack.HeaderField{Name: ":status", Value: fmt.Sprint(p.status())})
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte(head.String()), EndHeaders: true})
			p.strike("64 MiB of DATA, whatever the window")
			chunk := make([]byte, 16<<10)
			for range 4096 {
				if f.WriteData(id, false, chunk) != nil {
					return
				}
			}
		}),
		expect: func(s *subject) expectation {
			return expect(s.opens()+" rx DIS", s.opens()+" DIS", unreachable)
		},
	}
)

var httpFaults = []*Fault{
	HTTPStatus, HTTPUnavailable, HTTPTooManyRequests, HTTPRedirectLoop, HTTPCaptivePortal, HTTPNoInternet, HTTPSlow, HTTPDrip,
	HTTPTruncated, HTTPTruncatedChunked, HTTPTwoLengths, HTTPHugeHeader, HTTPGarbage, H2GoAway, H2Reset, H2WindowOverflow,
}

// retryAfter returns a fault whose server asks the client to come back later.
func retryAfter(name string, status int, summary, why string) *Fault {
	// wait returns the delay in whole seconds, the unit of Retry-After.
	wait := func(s *subject) int { return max(1, s.args.int("seconds")/s.hurry) }
	return &Fault{
		Name: name, Family: "http", H3: true, Summary: summary, Why: why, Proto: anyHTTP,
		Params: []Param{{Name: "seconds", Help: "The value of Retry-After.", Default: "2", Min: 1, Max: 3600}},
		misbehave: answers(func(p *peer, w http.ResponseWriter, r *http.Request, _ http.Handler) {
			p.strike("%s is answered with %d", r.URL, status)
			w.Header().Set("Retry-After", fmt.Sprint(wait(p.subject)))
			w.WriteHeader(status)
		}),
		expect: func(s *subject) expectation {
			e := expect(s.user(status) + unreachable)
			e.retryAfter = time.Duration(wait(s)) * time.Second
			return e
		},
	}
}

// answersH2 returns the function of a fault whose server speaks HTTP/2 and answers
// each request with frames.
func answersH2(answer func(p *peer, f *http2.Framer, stream uint32)) func(*peer) *behavior {
	return func(p *peer) *behavior {
		return &behavior{conn: func(c net.Conn) {
			preface := make([]byte, len(http2.ClientPreface))
			if _, err := io.ReadFull(c, preface); err != nil || string(preface) != http2.ClientPreface {
				return
			}
			f := http2.NewFramer(c, c)
			f.WriteSettings()
			for {
				frame, err := f.ReadFrame()
				if err != nil {
					return
				}
				switch frame := frame.(type) {
				case *http2.SettingsFrame:
					if !frame.IsAck() {
						f.WriteSettingsAck()
					}
				case *http2.PingFrame:
					if !frame.IsAck() {
						f.WritePing(true, frame.Data)
					}
				case *http2.HeadersFrame:
					answer(p, f, frame.StreamID)
				}
			}
		}}
	}
}
