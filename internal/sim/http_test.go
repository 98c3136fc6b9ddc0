package sim

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// httpProtocol is requests and responses over h1 or h2.
func httpProtocol(name string, p policy.Protocol, hosts, streams int, secure bool) *protocol {
	return &protocol{
		name: name, hosts: hosts, streams: streams, shared: hosts < streams,
		transports: func(*world) []transport.Transport { return []transport.Transport{sshttp.New()} },
		streamType: func(w *world, i int) *policy.StreamType {
			st := newStreamType(w, i, p)
			st.HTTP = &policy.HTTP{Method: "GET", URL: "/" + st.Name + "?size=${size}", AuthHeader: "authorization:", AuthPreamble: "Bearer "}
			if i%2 == 1 { // see posts
				st.HTTP.Method = "POST"
			}
			st.Auth = &policy.Auth{Name: "auth", StreamType: st.Name, Blob: uint8(i % tokens)}
			st.Metadata = []policy.Metadata{{Name: "size"}, {Name: "n", Header: "x-n:"}, {Name: "got", Header: "x-got:"}}
			if secure {
				w.secure(st)
			}
			return st
		},
		serve: serveHTTP(secure),
		talk:  func(p *program) talk { return &httpTalk{p: p, served: map[int]int{}} },
	}
}

// newStreamType returns a streamtype for a stream. Waits differ between streams, so that
// those that lose a connection at the same instant do not retry at the same instant.
func newStreamType(w *world, i int, p policy.Protocol) *policy.StreamType {
	d := fork(w.seed, "streamtype", i)
	st := &policy.StreamType{
		Name: fmt.Sprint("s", i), Protocol: p, Endpoint: w.protocol.hostOf(i), Port: 80,
		Opportunistic: d.oneIn(3), NailedUp: d.oneIn(3),
		Retry: &policy.Retry{Name: "r", Conceal: 65535},
	}
	for k := range 1 + d.IntN(4) {
		st.Retry.Backoff = append(st.Retry.Backoff, time.Duration(500+2000*k+11*i+d.IntN(7))*time.Millisecond)
	}
	if d.oneIn(3) {
		st.Retry.Conceal = uint16(d.IntN(4))
	}
	if d.oneIn(2) {
		st.Retry.JitterPercent = uint8(1 + d.IntN(100))
	}
	if d.oneIn(2) {
		st.Retry.ValidPing, st.Retry.ValidHangup = 20*time.Second, 30*time.Second
	}
	if d.oneIn(8) {
		st.Retry = nil
	}
	return st
}

// noise is the source of payloads.
var noise = func() []byte {
	b := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{}).Read(b)
	return b
}()

// maxPayload is the maximum size of a payload.
const maxPayload = 100_000

// payload returns bytes from to to of payload n of a stream. Payloads of different streams
// or numbers differ from the first byte on.
func payload(name string, n, from, to int) []byte {
	start := (int(name[len(name)-1])*40_009 + n*131) % (len(noise) - maxPayload)
	return noise[start+from : start+to]
}

// mismatch reports whether b differs from payload n at an offset.
func mismatch(b []byte, name string, n, at int) bool {
	return at+len(b) > maxPayload || !bytes.Equal(b, payload(name, n, at, at+len(b)))
}

// serveHTTP returns a function that starts a server.
func serveHTTP(secure bool) func(w *world, h *host) {
	return func(w *world, h *host) {
		s := &http.Server{
			Handler:   http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.handle(h, rw, r) }),
			ErrorLog:  log.New(io.Discard, "", 0),
			Protocols: new(http.Protocols),
		}
		s.Protocols.SetHTTP1(true)
		s.Protocols.SetUnencryptedHTTP2(!secure)
		s.Protocols.SetHTTP2(secure)
		var wg sync.WaitGroup
		ln := w.net.listen(h)
		if secure {
			s.TLSConfig = w.serverTLS(h, "h2", "http/1.1")
			wg.Go(func() { s.ServeTLS(ln, "", "") })
		} else {
			wg.Go(func() { s.Serve(ln) })
		}
		w.stops = append(w.stops, func() { s.Close(); wg.Wait() })
	}
}

// handle answers a request.
func (w *world) handle(h *host, rw http.ResponseWriter, r *http.Request) {
	if r.Method == "PRI" { // net/http treats the first half of the preface of h2 as a request
		return
	}
	name := strings.TrimPrefix(r.URL.Path, "/")
	i := streamNumber(name)
	n, err := strconv.Atoi(r.Header.Get("X-N"))
	size, err2 := strconv.Atoi(r.URL.Query().Get("size"))
	if (err != nil || err2 != nil) && !w.protocol.proxied || i >= len(w.programs) || w.programs[i].host != h.name {
		w.find([]string{h.name}, "a request that no stream makes: %s %v", r.URL, r.Header)
		return
	}
	p := w.programs[i]
	attempt := n
	if w.protocol.proxied { // the attempts are those of the proxy
		attempt = 0
	}
	w.checkToken(p, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), attempt)
	d := fork(w.seed, "answer", name, n)
	if e := w.plan.active(time.Now(), h.name, peerReads); e != nil {
		time.Sleep(d.ms(1, 5000) + d.skew)
	}
	body, err := io.ReadAll(r.Body)
	w.tr.note(h.name, "rx request %s %d: body %d", name, n, len(body)) // any part, if the connection is cut
	switch t := p.talk.(type) {
	case *httpTalk:
		t.request(n, size, r.Method, body, err)
	case *proxiedHTTP:
		if err == nil {
			n, size = t.request(r.Header.Get("X-N"), body)
		}
	}
	if err != nil {
		return
	}
	rw.Header().Set("X-Got", fmt.Sprintf("%s %d", name, n))
	rw.Header().Set("Date", "now")
	now := time.Now()
	if e := w.plan.active(now, h.name, peerSilent); e != nil {
		select {
		case <-time.After(time.Until(d.at(now, 5*time.Minute))):
		case <-r.Context().Done():
		}
		return
	}
	if e := w.plan.active(now, h.name, peerSlow); e != nil {
		select {
		case <-time.After(time.Until(d.at(now, d.ms(1, e.arg)))):
		case <-r.Context().Done():
			return
		}
	}
	short := false
	if w.plan.active(now, h.name, peerBad) != nil {
		switch d.IntN(6) {
		case 0:
			panic(http.ErrAbortHandler)
		case 1:
			rw.Header().Del("X-Got")
			rw.WriteHeader(404)
		case 2:
			if d.oneIn(2) {
				rw.Header().Set("Retry-After", strconv.Itoa(int(retryAfter/time.Second)))
			}
			rw.WriteHeader(503)
			return
		case 3:
			short = size > 0
			rw.Header().Set("Content-Length", strconv.Itoa(size))
		case 4:
			rw.WriteHeader(204)
			return
		}
	}
	answer := payload(name, n, 0, size)
	if short {
		rw.Write(answer[:d.IntN(size)])
		rw.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	if d.oneIn(4) { // in pieces, the first or last of which may be empty
		half := []int{0, d.IntN(size + 1), size}[d.IntN(3)]
		rw.Write(answer[:half])
		rw.(http.Flusher).Flush()
		now := time.Now()
		time.Sleep(d.at(now, d.ms(1, 2000)).Sub(now))
		answer = answer[half:]
	}
	rw.Write(answer)
}

// request checks a request that a server has received. err is the error at the end of its
// body.
func (t *httpTalk) request(n, size int, method string, body []byte, err error) {
	if mismatch(body, t.p.name, n, 0) {
		t.p.find("the body of request %d is not its own", n)
	}
	if err != nil {
		return
	}
	if method == "POST" && len(body) != size {
		t.p.find("the body of request %d has %d bytes, want %d", n, len(body), size)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.served[n]++
}

// An httpTalk makes requests with a number and a size, and expects a response of that size.
type httpTalk struct {
	p *program

	n, size  int // of the request
	sent     int
	received int
	whole    bool // the end of the response has been received
	acked    []int

	mu     sync.Mutex
	served map[int]int // number of times a server has received each request
}

func (t *httpTalk) create(s *runtime.Stream) {
	s.SetMetadata("size", strconv.Itoa(t.nextSize()))
}

func (t *httpTalk) begin(s *runtime.Stream) {
	t.n++
	s.SetMetadata("n", strconv.Itoa(t.n))
	t.sent, t.received, t.whole = 0, 0, false
	// The size set before this attempt has already fixed the URL.
	size, _ := s.Metadata("size")
	t.size, _ = strconv.Atoi(size)
	s.SetMetadata("size", strconv.Itoa(t.nextSize()))
	if t.posts() {
		// The announced length applies until a transaction is complete.
		if fork(t.p.w.seed, "announce", t.p.name, t.n).oneIn(2) {
			s.RequestTxLen(uint64(t.size))
		} else {
			s.RequestTxLen(0)
		}
	}
}

// posts reports whether the requests have bodies.
func (t *httpTalk) posts() bool { return t.p.i%2 == 1 }

func (t *httpTalk) nextSize() int {
	d := fork(t.p.w.seed, "size", t.p.name, t.n)
	switch {
	case d.oneIn(12) && !t.p.w.protocol.small:
		return d.IntN(80_000)
	case d.oneIn(12):
		return 0
	}
	return d.IntN(3000)
}

func (t *httpTalk) connected()    {}
func (t *httpTalk) announce() int { return t.size }

func (t *httpTalk) tx(buf []byte) (int, runtime.Flags, runtime.Result) {
	n := copy(buf, payload(t.p.name, t.n, t.sent, t.size))
	var flags runtime.Flags
	if t.sent == 0 {
		flags |= runtime.FlagSOM
	}
	if t.sent += n; t.sent == t.size {
		flags |= runtime.FlagEOM
	} else {
		t.p.s.RequestTx()
	}
	return n, flags, runtime.OK
}

func (t *httpTalk) rx(buf []byte, flags runtime.Flags) (bool, string) {
	if mismatch(buf, t.p.name, t.n, t.received) {
		return false, fmt.Sprintf("response %d is not its own after %d bytes", t.n, t.received)
	}
	if (flags&runtime.FlagSOM != 0) != (t.received == 0 && len(buf) > 0) {
		return false, fmt.Sprintf("flags %d after %d bytes of response %d", flags, t.received, t.n)
	}
	if t.whole {
		return false, fmt.Sprintf("payload after the end of response %d", t.n)
	}
	t.received += len(buf)
	if flags&runtime.FlagEOM != 0 {
		t.whole = true
		if t.received != t.size {
			return false, fmt.Sprintf("response %d ends after %d bytes of %d", t.n, t.received, t.size)
		}
	}
	return false, ""
}

func (t *httpTalk) verdict(ack bool) (bool, string) {
	if t.received > 0 && !t.whole {
		return false, fmt.Sprintf("the verdict on request %d comes before the end of its response", t.n)
	}
	if got, want := t.got(), fmt.Sprintf("%s %d", t.p.name, t.n); got != want && (ack || got != "") { // a NAK may come without metadata
		return false, fmt.Sprintf("metadata %q, want %q", got, want)
	}
	if ack {
		t.acked = append(t.acked, t.n)
	}
	return ack, ""
}

func (t *httpTalk) got() string {
	got, _ := t.p.s.Metadata("got")
	return got
}

func (t *httpTalk) check() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.acked {
		if t.served[n] == 0 {
			return fmt.Sprintf("request %d was acknowledged, and no server has it", n)
		}
	}
	for n, times := range t.served {
		if times > 1 && t.posts() { // a GET on a reused connection may be repeated
			return fmt.Sprintf("request %d was made %d times", n, times)
		}
	}
	return ""
}
