package sim

import (
	"fmt"
	"strconv"
	"sync"

	"github.com/secure-streams/sspolicy/runtime"
)

// A proxiedHTTP makes requests through a proxy. The proxy retries on its own, and metadata
// may reach it during an attempt. So a response names the request that it answers, and a
// body contains its own number.
type proxiedHTTP struct {
	p       *program
	n       int // latest value of the metadata
	body    int // number of the last body sent
	message []byte
	sent    int
	got     int // request that the response answers
	in      int // bytes of the response received

	mu     sync.Mutex
	served map[int]int // number of times a server has received each request
}

func newProxiedHTTP(p *program) talk { return &proxiedHTTP{p: p, served: map[int]int{}} }

func (t *proxiedHTTP) create(s *runtime.Stream) { t.begin(s) }

func (t *proxiedHTTP) begin(s *runtime.Stream) {
	t.n++
	s.SetMetadata("n", strconv.Itoa(t.n))
	if t.posts() {
		s.RequestTx()
	}
}

func (t *proxiedHTTP) posts() bool { return t.p.i%2 == 1 }

func (t *proxiedHTTP) connected() { t.message, t.sent, t.got, t.in = nil, 0, 0, 0 }

func (t *proxiedHTTP) announce() int { return 0 }

func (t *proxiedHTTP) tx(buf []byte) (n int, flags runtime.Flags, r runtime.Result) {
	if t.message == nil {
		t.body++
		t.message, t.sent = numbered(t.p.w, t.p.name, t.body), 0
		flags |= runtime.FlagSOM
	}
	if t.sent == len(t.message) {
		return 0, 0, runtime.TxDontSend // one body per request
	}
	n = copy(buf, t.message[t.sent:])
	if t.sent += n; t.sent == len(t.message) {
		flags |= runtime.FlagEOM
	} else {
		t.p.s.RequestTx()
	}
	return n, flags, runtime.OK
}

// request returns the number of a request that a server has received, and the length of its
// response.
func (t *proxiedHTTP) request(header string, body []byte) (n, size int) {
	n, _ = strconv.Atoi(header)
	if t.posts() {
		name, number, ok := parseNumbered(body)
		if !ok || name != t.p.name {
			t.p.find("a body of %d bytes: %.20q", len(body), body)
		}
		n = number
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.served[n]++; t.posts() && t.served[n] > 1 {
		t.p.find("the server receives body %d %d times", n, t.served[n])
	}
	return n, t.size(n)
}

// size returns the length of the response to a request.
func (t *proxiedHTTP) size(n int) int {
	d := fork(t.p.w.seed, "size", t.p.name, n)
	if d.oneIn(5) {
		return d.IntN(80_000)
	}
	return d.IntN(3000)
}

// requestOf returns the request that the response answers, according to its metadata.
func (t *proxiedHTTP) requestOf() (n int, wrong string) {
	var name string
	text, _ := t.p.s.Metadata("got")
	if text == "" {
		return 0, ""
	}
	if _, err := fmt.Sscanf(text, "%s %d", &name, &n); err != nil || name != t.p.name || n > max(t.n, t.body) {
		wrong = fmt.Sprintf("metadata %q after %d requests", text, max(t.n, t.body))
	}
	return n, wrong
}

func (t *proxiedHTTP) rx(buf []byte, flags runtime.Flags) (success bool, wrong string) {
	if (flags&runtime.FlagSOM != 0) != (t.in == 0 && len(buf) > 0) {
		return false, fmt.Sprintf("flags %d after %d bytes", flags, t.in)
	}
	if t.got, wrong = t.requestOf(); wrong != "" || t.got == 0 { // an error page
		t.in += len(buf)
		return false, wrong
	}
	if mismatch(buf, t.p.name, t.got, t.in) {
		return false, fmt.Sprintf("response %d is not its own after %d bytes", t.got, t.in)
	}
	if t.in += len(buf); flags&runtime.FlagEOM != 0 && t.in != t.size(t.got) {
		return false, fmt.Sprintf("response %d ends after %d bytes of %d", t.got, t.in, t.size(t.got))
	}
	return false, ""
}

func (t *proxiedHTTP) verdict(ack bool) (success bool, wrong string) {
	n, wrong := t.requestOf()
	if wrong != "" || !ack {
		return false, wrong
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.served[n] == 0 {
		return true, fmt.Sprintf("request %d was acknowledged, and no server has it", n)
	}
	return true, ""
}

func (t *proxiedHTTP) check() string { return "" }
