package sspc_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/sspcwire"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/sspc"
)

// A proxyEnd is the proxy's end of the links of a test, in a bubble. It records what
// the client sends.
type proxyEnd struct {
	t  *testing.T
	mu sync.Mutex
	// accept decides whether to accept a link.
	accept func(net.Conn) error
	links  []*proxyLink
}

// A proxyLink is the proxy's end of a link.
type proxyLink struct {
	net.Conn
	mu     sync.Mutex
	got    []byte
	closed bool // by the client
}

// dial is Options.DialContext.
func (p *proxyEnd) dial(_ context.Context, network, address string) (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	client, conn := net.Pipe()
	if p.accept != nil {
		if err := p.accept(conn); err != nil {
			return nil, err
		}
	}
	l := &proxyLink{Conn: conn}
	p.links = append(p.links, l)
	go func() {
		buf := make([]byte, 1<<16)
		hello := sspcwire.AppendHello(nil)
		if _, err := io.ReadFull(conn, buf[:len(hello)]); err == nil && !bytes.Equal(buf[:len(hello)], hello) {
			p.t.Errorf("the client begins with % x", buf[:len(hello)])
		}
		for {
			n, err := conn.Read(buf)
			l.mu.Lock()
			l.got = append(l.got, buf[:n]...)
			if err != nil {
				l.closed = true
				l.mu.Unlock()
				conn.Close()
				return
			}
			l.mu.Unlock()
		}
	}()
	return client, nil
}

// link returns the latest link. It ends the test unless there are n.
func (p *proxyEnd) link(n int) *proxyLink {
	p.t.Helper()
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.links) != n {
		p.t.Fatalf("%d links, want %d", len(p.links), n)
	}
	return p.links[n-1]
}

// count returns how many links there have been.
func (p *proxyEnd) count() int {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// take returns the bytes that the client has sent since the last call, without its hello.
func (l *proxyLink) take() []byte {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	got := l.got
	l.got = nil
	return got
}

// frames returns the types of the frames that the client has sent since the last call.
func (l *proxyLink) frames(t *testing.T) (types []sspcwire.Type) {
	t.Helper()
	b := l.take()
	for len(b) > 0 {
		n := 3 + int(b[1])<<8 + int(b[2])
		if n > len(b) {
			t.Fatalf("the client has sent half a frame: % x", b)
		}
		types = append(types, sspcwire.Type(b[0]))
		b = b[n:]
	}
	return types
}

// gone reports whether the client has closed the link.
func (l *proxyLink) gone() bool {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// send sends bytes, if the client still reads.
func (l *proxyLink) send(b ...[]byte) {
	for _, b := range b {
		l.SetWriteDeadline(time.Now().Add(time.Minute))
		if _, err := l.Write(b); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			return
		}
	}
	synctest.Wait()
}

// created is CREATE_RESULT.
func created(rideshares ...string) []byte {
	return sspcwire.AppendCreateResult(nil, sspcwire.CreateResult{Rideshares: rideshares})
}

// states are CONNSTATEs.
func states(states ...policy.State) (b []byte) {
	for _, s := range states {
		b = sspcwire.AppendConnState(b, s, 0)
	}
	return b
}

// rx is a frame of payload from the proxy.
func rx(data string, flags policy.Flags) []byte {
	return teststream.Must(sspcwire.AppendPayload(nil, sspcwire.FromProxy, sspcwire.Payload{Flags: flags, Data: []byte(data)}))
}

const both = policy.FlagSOM | policy.FlagEOM

// newProxied returns a context in a bubble whose streams p executes.
func newProxied(t *testing.T, o runtime.Options, types ...*policy.StreamType) (*proxyEnd, *runtime.Context) {
	t.Helper()
	p := &proxyEnd{t: t}
	o.Proxy = teststream.Must(sspc.New(sspc.DefaultAddress, sspc.Options{}))
	o.DialContext = p.dial
	return p, teststream.NewContext(t, o, types...)
}

// A program records the events of its stream, and sends the pieces in out.
type program struct {
	teststream.Trace
	mu   sync.Mutex
	out  []piece
	sent int
}

// A piece is what Tx returns.
type piece struct {
	data  string
	flags policy.Flags
}

func (p *program) handlers() runtime.Handlers {
	return runtime.Handlers{
		State: p.State,
		Rx: func(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
			p.Keep(buf)
			text := "rx"
			for _, f := range []struct {
				flag runtime.Flags
				text string
			}{
				{runtime.FlagSOM, "S"}, {runtime.FlagEOM, "E"}, {policy.FlagPoll, "P"},
				{runtime.FlagRelatedStart, "<"}, {runtime.FlagRelatedEnd, ">"}, {runtime.FlagPerfJSON, "J"},
			} {
				if flags&f.flag != 0 {
					text += f.text
				}
			}
			return p.Note(s, text)
		},
		Tx: func(s *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.sent == len(p.out) {
				return 0, 0, runtime.TxDontSend
			}
			next := &p.out[p.sent]
			n := copy(buf, next.data)
			flags := next.flags
			if n < len(next.data) {
				flags &^= runtime.FlagEOM
				next.data, next.flags = next.data[n:], next.flags&^runtime.FlagSOM
			} else {
				p.sent++
			}
			if p.sent < len(p.out) {
				s.RequestTx()
			}
			return n, flags, runtime.OK
		},
	}
}

// queue adds pieces for Tx.
func (p *program) queue(pieces ...piece) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out = append(p.out, pieces...)
}
