package sspc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/sspcwire"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// TestFetch makes requests whose protocol only the proxy knows.
func TestFetch(t *testing.T) {
	meta := func(name, value string) []byte {
		return teststream.Must(sspcwire.AppendMetadata(nil, sspcwire.FromProxy, name, value))
	}
	for _, tt := range []struct {
		name   string
		answer [][]byte // after CONNECTING
		body   string
		err    error
		took   time.Duration
	}{
		{"http", [][]byte{states(connected), rx("hello", policy.FlagSOM), rx("", policy.FlagEOM),
			states(policy.StateQoSAckRemote), meta("ctype", "text/plain"), states(disconnected)}, "hello", nil, 0},
		{"http, not accepted", [][]byte{states(connected), rx("no", policy.FlagSOM), rx("", policy.FlagEOM),
			states(policy.StateQoSNackRemote, disconnected)}, "", runtime.ErrNack, 0},
		{"http, without a body", [][]byte{states(connected, policy.StateQoSAckRemote, disconnected)}, "", nil, 0},
		{"http, cut", [][]byte{states(connected), rx("hel", policy.FlagSOM), states(disconnected)}, "", io.ErrUnexpectedEOF, 0},
		{"http, lost before the answer", [][]byte{states(connected, disconnected)}, "", io.ErrUnexpectedEOF, 0},
		{"ws", [][]byte{states(connected), rx("hel", policy.FlagSOM), rx("lo", policy.FlagEOM), rx("more", both)}, "hello", nil, time.Second},
		{"mqtt", [][]byte{states(connected, policy.StateQoSAckRemote)}, "", nil, 100 * time.Millisecond},
		{"raw", [][]byte{states(connected), rx("hel", 0), rx("lo", 0), states(disconnected)}, "hello", nil, 0},
		{"no peer", [][]byte{states(unreachable, policy.StateAllRetriesFailed)}, "", runtime.ErrAllRetriesFailed, 0},
		{"timeout", [][]byte{states(policy.StateTimeout)}, "", runtime.ErrTimeout, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, c := newProxied(t, runtime.Options{})
				start := time.Now()
				done := make(chan struct{})
				go func() {
					defer close(done)
					r, err := c.Fetch(t.Context(), "s", runtime.WithBody([]byte("request")))
					if !errors.Is(err, tt.err) {
						t.Errorf("error %v, want %v", err, tt.err)
					}
					if err == nil && string(r.Body) != tt.body {
						t.Errorf("body %q, want %q", r.Body, tt.body)
					}
					if r != nil && tt.name == "http" {
						if ctype, _ := r.Metadata("ctype"); ctype != "text/plain" {
							t.Errorf("metadata %q", ctype)
						}
					}
					if took := time.Since(start); took != tt.took {
						t.Errorf("it took %v, want %v", took, tt.took)
					}
				}()
				l := p.link(1)
				l.send(created("s"), states(connecting))
				l.send(tt.answer...)
				<-done
				if !l.gone() {
					t.Error("the link is still open")
				}
			})
		})
	}
}

// TestFetchWithoutProxy checks the error of a Fetch that no proxy executes.
func TestFetchWithoutProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := errors.New("connection refused")
		p, c := newProxied(t, runtime.Options{})
		p.accept = func(net.Conn) error { return refused }
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := c.Fetch(ctx, "s")
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, runtime.ErrLink) || !errors.Is(err, refused) {
			t.Errorf("error %v", err)
		}
	})
}

// TestOpen reads and writes messages through a proxy.
func TestOpen(t *testing.T) {
	ws := &policy.StreamType{Name: "ws", Protocol: policy.ProtocolWS, HTTP: &policy.HTTP{}}
	for _, tt := range []struct {
		streamtype string
		lost       error // of Read, after the end of the connection
	}{
		{"unknown", io.EOF},
		{"ws", new(runtime.ReconnectError)},
	} {
		t.Run(tt.streamtype, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, c := newProxied(t, runtime.Options{}, ws)
				opened := make(chan *runtime.Conn)
				go func() {
					conn, err := c.Open(t.Context(), tt.streamtype)
					if err != nil {
						t.Error(err)
					}
					opened <- conn
				}()
				l := p.link(1)
				l.send(created(tt.streamtype), states(connecting, connected))
				conn := <-opened
				l.take()
				for range 2 {
					if n, err := conn.Write([]byte("ping")); n != 4 || err != nil {
						t.Errorf("Write: %d, %v", n, err)
					}
				}
				for _, f := range parseFrames(t, l.take(), sspcwire.ToProxy) {
					switch f.Type {
					case sspcwire.TypeTx:
						if p := teststream.Must(f.Payload()); p.Flags != both || string(p.Data) != "ping" {
							t.Errorf("sent %q, flags %v", p.Data, p.Flags)
						}
					case sspcwire.TypeLengthHint:
						if n := f.LengthHint(); n != 4 {
							t.Errorf("length %d", n)
						}
					default:
						t.Errorf("sent %v", f.Type)
					}
				}
				l.send(rx("po", policy.FlagSOM), rx("ng", policy.FlagEOM))
				for m, err := range conn.Messages() {
					if string(m) != "pong" || err != nil {
						t.Errorf("message %q, %v", m, err)
					}
					break
				}
				l.send(states(disconnected))
				_, err := conn.Read(make([]byte, 10))
				if _, reconnects := errors.AsType[*runtime.ReconnectError](err); reconnects != (tt.lost != io.EOF) || !reconnects && err != io.EOF {
					t.Errorf("after the end: %v", err)
				}
				conn.Close()
				if !l.gone() {
					t.Error("the link is open after Close")
				}
			})
		})
	}
}

// TestRideshare sends the messages of two streamtypes in a request.
func TestRideshare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c := newProxied(t, runtime.Options{})
		done := make(chan error)
		go func() {
			_, err := c.Fetch(t.Context(), "a", runtime.WithBody([]byte("first")), runtime.WithPart("b", []byte(strings.Repeat("x", 20_000))))
			done <- err
		}()
		l := p.link(1)
		l.send(created("a", "b"), states(connecting, connected))
		var got []string
		for _, f := range parseFrames(t, l.take(), sspcwire.ToProxy) {
			if f.Type == sspcwire.TypeTx {
				p := teststream.Must(f.Payload())
				got = append(got, fmt.Sprintf("%d bytes, flags %d", len(p.Data), p.Flags))
			}
		}
		if want := []string{"5 bytes, flags 1", "0 bytes, flags 2", "16384 bytes, flags 1", "3616 bytes, flags 0", "0 bytes, flags 2"}; !slices.Equal(got, want) {
			t.Errorf("sent %q, want %q", got, want)
		}
		l.send(states(policy.StateQoSAckRemote, disconnected))
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
