package sspc_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/sspctrace"
	"github.com/secure-streams/sspolicy/internal/sspcwire"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// parseFrames returns the frames of a step.
func parseFrames(t *testing.T, b []byte, d sspcwire.Direction) (frames []sspcwire.Frame) {
	t.Helper()
	for len(b) > 0 {
		n := 3 + int(b[1])<<8 + int(b[2])
		if n > len(b) {
			t.Fatalf("not whole frames: % x", b)
		}
		frames = append(frames, sspcwire.Frame{Type: sspcwire.Type(b[0]), Body: b[3:n]})
		b = b[n:]
	}
	return frames
}

// A replay plays the proxy of a trace, and makes the client send what the client of the
// trace sent.
type replay struct {
	t    *testing.T
	p    *proxyEnd
	s    *runtime.Stream
	tr   program
	link *proxyLink
	want []byte   // expected from the client
	got  []byte   // received from the client
	seen []string // events of the frames of the proxy
}

// client makes the client send a frame.
func (r *replay) client(f sspcwire.Frame) {
	switch f.Type {
	case sspcwire.TypeConnect:
		r.s.Connect()
	case sspcwire.TypeTimeout:
		switch ms := f.Timeout(); ms {
		case sspcwire.TimeoutCancel:
			r.s.CancelTimeout()
		default:
			r.s.StartTimeout(time.Duration(ms) * time.Millisecond)
		}
	case sspcwire.TypeTxMetadata:
		name, value, err := f.Metadata()
		if err == nil {
			err = r.s.SetMetadata(name, string(value))
		}
		if err != nil {
			r.t.Fatal(err)
		}
	case sspcwire.TypeTxCredit:
		r.s.AddPeerTxCredit(uint32(f.Credit()))
	case sspcwire.TypeLengthHint:
		r.s.RequestTxLen(uint64(f.LengthHint()))
	case sspcwire.TypeTx:
		payload := teststream.Must(f.Payload())
		r.tr.queue(piece{string(payload.Data), payload.Flags})
		r.s.RequestTx()
	default:
		r.t.Fatalf("the client of the trace sends %v", f.Type)
	}
}

// proxy records the event of a frame of the proxy.
func (r *replay) proxy(f sspcwire.Frame) {
	switch f.Type {
	case sspcwire.TypeConnState:
		state, _, err := f.ConnState()
		if err != nil {
			r.t.Fatal(err)
		}
		if state != policy.StateCreating {
			r.seen = append(r.seen, state.Short())
		}
	case sspcwire.TypeRx:
		payload := teststream.Must(f.Payload())
		text := "rx"
		if payload.Flags&policy.FlagSOM != 0 {
			text += "S"
		}
		if payload.Flags&policy.FlagEOM != 0 {
			text += "E"
		}
		r.seen = append(r.seen, text)
	case sspcwire.TypePerf:
		r.seen = append(r.seen, "rxSEJ")
	}
}

// mask clears the parts that differ between two programs: the process, and times.
func mask(t *testing.T, b []byte) []byte {
	b = slices.Clone(b)
	for at := 0; at < len(b); {
		switch n := 3 + int(b[at+1])<<8 + int(b[at+2]); sspcwire.Type(b[at]) {
		case sspcwire.TypeStreamType:
			clear(b[at+4 : at+8])
			at += n
		case sspcwire.TypeTx:
			clear(b[at+7 : at+19])
			at += n
		default:
			at += n
		}
		if at > len(b) {
			t.Fatalf("half a frame at the end of % x", b)
		}
	}
	return b
}

// TestTraces replays the traces of a client and a proxy of lws. The client sends the
// same bytes, and delivers the same events.
func TestTraces(t *testing.T) {
	links, err := sspctrace.Links()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, l := range links {
		if l.File[0] == 'h' || l.File[0] == 'i' || len(l.Steps) == 0 { // hand-made peers
			continue
		}
		n++
		t.Run(strings.ReplaceAll(l.Name(), " ", "_"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { playTrace(t, l) })
		})
	}
	if n < 20 {
		t.Errorf("only %d links", n)
	}
}

func playTrace(t *testing.T, l *sspctrace.Link) {
	r := &replay{t: t, seen: []string{"CRE"}}
	p, c := newProxied(t, runtime.Options{})
	r.p = p
	first := parseFrames(t, l.Steps[0].Bytes, sspcwire.ToProxy)
	if first[0].Type != sspcwire.TypeStreamType {
		t.Fatalf("the trace begins with %v", first[0].Type)
	}
	hello := teststream.Must(first[0].StreamType())
	var options []runtime.StreamOption
	if hello.Credit != sspcwire.DefaultCredit {
		options = append(options, runtime.WithPeerTxCredit(hello.Credit))
	}
	s, err := c.NewStream(hello.Name, r.tr.handlers(), options...)
	if err != nil {
		t.Fatal(err)
	}
	r.s, r.link = s, p.link(1)
	for i, step := range l.Steps {
		if step.Partial {
			break
		}
		if step.FromProxy {
			for _, f := range parseFrames(t, step.Bytes, sspcwire.FromProxy) {
				r.proxy(f)
			}
			r.link.send(step.Bytes)
			continue
		}
		r.want = append(r.want, step.Bytes...)
		frames := parseFrames(t, step.Bytes, sspcwire.ToProxy)
		if i == 0 {
			frames = frames[1:]
		}
		for _, f := range frames {
			r.client(f)
			synctest.Wait()
		}
		r.got = append(r.got, r.link.take()...)
	}
	refused := strings.HasPrefix(l.File, "b-")
	if r.link.gone() != refused { // lws keeps a useless link
		t.Errorf("the client has closed the link: %v", s.Err())
	}
	if l.File == "f5-nailed-up" {
		// The stream is connecting, so that Connect has no effect. The proxy ignores it.
		r.want = bytes.Replace(r.want, sspcwire.AppendConnect(nil), nil, 1)
	}
	if got, want := mask(t, r.got), mask(t, r.want); !bytes.Equal(got, want) {
		t.Errorf("the client sends\n% .200x\nwant\n% .200x", got, want)
	}
	if want := strings.Join(r.seen, " "); r.tr.String() != want && !refused {
		t.Errorf("events\n%s, want\n%s", &r.tr, want)
	}
	if pid := binary.BigEndian.Uint32(r.got[4:]); pid != uint32(os.Getpid()) {
		t.Errorf("pid %d", pid)
	}
}

// differs maps traces in which only one of this client and the client of lws closes the
// link to the reason.
var differs = map[string]string{
	"CREATE_RESULT with 5 rideshare names (array of 4)":                 "lws has room for 4",
	"METADATA p2c empty value":                                          "harmless",
	"METADATA p2c total len 2":                                          "harmless: an empty value",
	"DESTROYING (7) from proxy":                                         "lws waits for the proxy to close the link",
	"proxy closes after CREATE_RESULT+CREATING; reconnect, link 2":      "lws destroys the stream",
	"proxy closes after CONNECTED; reconnect, link 2":                   "lws destroys the stream",
	"proxy closes after DISCONNECTED; reconnect, link 2":                "lws destroys the stream",
	"no reply to STREAMTYPE (client handshake timeout + retry)":         "after 3 s, see TestNoAnswer",
	"proxy closes before CREATE_RESULT; reconnect":                      "by the proxy",
	"METADATA with empty value from client API":                         "this client never sends one",
	"start_timeout before proxy link: order of frames (-T in CREATING)": "of the program",
}

// TestHandmadeProxies replays what a hand-made proxy sent to a client of lws. The link is
// closed when lws closed it, with known exceptions, and the stream survives.
func TestHandmadeProxies(t *testing.T) {
	links, err := sspctrace.Links()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.File[0] != 'i' || len(l.Steps) == 0 {
			continue
		}
		t.Run(strings.ReplaceAll(l.Name(), " ", "_"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, c := newProxied(t, runtime.Options{})
				tr := &program{}
				s := teststream.Must(c.NewStream("get", tr.handlers()))
				s.RequestTx()
				link := p.link(1)
				for _, step := range l.Steps {
					if step.FromProxy {
						link.send(step.Bytes)
					}
				}
				closed := link.gone()
				if closed != (l.Closed == "client") && differs[l.Title] == "" {
					t.Errorf("closed by %q in the trace; here closed: %v, %v; %.100s", l.Closed, closed, s.Err(), tr.String())
				}
				p.survives(s)
			})
		})
	}
}

// survives checks that a stream works on the next link.
func (p *proxyEnd) survives(s *runtime.Stream) {
	p.t.Helper()
	n := p.count()
	p.link(n).Close()
	if n == p.count() {
		time.Sleep(time.Second)
	}
	l := p.link(n + 1)
	l.send(created(s.String()), states(policy.StateCreating))
	s.Connect()
	l.send(states(connecting, connected))
	if got := s.State(); got != connected {
		p.t.Errorf("on the next link the state is %v", got)
	}
}

// TestTruncatedTraces truncates the bytes of the proxy of each trace at every position.
func TestTruncatedTraces(t *testing.T) {
	links, err := sspctrace.Links()
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		p, c := newProxied(t, runtime.Options{})
		tr := &program{}
		s := teststream.Must(c.NewStream("get", tr.handlers()))
		n := 1
		for _, l := range links {
			b := l.Bytes(true)
			if len(b) > 120 {
				b = b[:120]
			}
			for cut := range b {
				link := p.link(n)
				link.send(b[:cut])
				if !link.gone() {
					link.Close()
				}
				time.Sleep(time.Second + time.Millisecond)
				n++
			}
		}
		p.survives(s)
	})
}
