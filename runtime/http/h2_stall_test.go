package http_test

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// TestH2Stall makes requests to a server that stops reading but continues to write. Neither
// requests nor the end of a stream may wait without limit. The context has no limit for an
// attempt.
func TestH2Stall(t *testing.T) {
	const bound = 20 * time.Second // more than writeTimeout
	frames := map[string]func(*http2.Framer) error{
		"nothing":  nil,
		"PING":     func(f *http2.Framer) error { return f.WritePing(false, [8]byte{1}) },
		"SETTINGS": func(f *http2.Framer) error { return f.WriteSettings() },
	}
	for name, write := range frames {
		for _, reads := range []int{0, len(http2.ClientPreface), 4 << 10, 40 << 10} {
			for _, pause := range []time.Duration{10 * time.Millisecond, time.Microsecond} {
				if write == nil && pause < time.Millisecond {
					continue
				}
				synctest.Test(t, func(t *testing.T) {
					var network testserver.Network
					ln := network.Listen("127.0.0.1:80")
					var peers sync.WaitGroup
					defer peers.Wait()
					defer ln.Close()
					peers.Go(func() {
						for {
							c, err := ln.Accept()
							if err != nil {
								return
							}
							peers.Go(func() { stall(c, reads, pause, write) })
						}
					})
					st := &policy.StreamType{
						Name: "up", Protocol: policy.ProtocolH2, Endpoint: "127.0.0.1", Port: 80, HTTP: &policy.HTTP{Method: "POST"},
					}
					c := newPolicy(t, []*policy.StreamType{st}, runtime.Options{ConnectTimeout: -1, DialContext: network.DialContext, Logger: teststream.Logger(t)})
					start := time.Now()
					if _, err := c.Fetch(context.Background(), "up", runtime.WithBody(make([]byte, 1<<20))); err == nil {
						t.Errorf("%s every %v after %d bytes: the request succeeded", name, pause, reads)
					}
					if d := time.Since(start); d > bound {
						t.Errorf("%s every %v after %d bytes: the request failed after %v", name, pause, reads, d)
					}
					s, err := c.NewStream("up", runtime.Handlers{Tx: func(_ *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
						return len(buf), 0, policy.OK
					}})
					if err != nil {
						t.Fatal(err)
					}
					s.RequestTx()
					time.Sleep(time.Second)
					synctest.Wait()
					start = time.Now()
					s.Destroy()
					if err := c.Shutdown(context.Background()); err != nil || time.Since(start) > time.Second {
						t.Errorf("%s every %v after %d bytes: Shutdown returned %v after %v", name, pause, reads, err, time.Since(start))
					}
				})
			}
		}
	}
}

// stall reads n bytes, and then writes frames until the connection ends.
func stall(c net.Conn, reads int, pause time.Duration, write func(*http2.Framer) error) {
	defer c.Close()
	f := http2.NewFramer(c, nil)
	if _, err := io.CopyN(io.Discard, c, int64(reads)); err != nil || f.WriteSettings() != nil {
		return
	}
	if write == nil { // the client gives up before
		time.Sleep(40 * time.Second)
		return
	}
	for write(f) == nil {
		time.Sleep(pause)
	}
}
