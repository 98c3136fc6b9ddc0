package http_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/credentials"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// TestCloseUnread closes a context that has idle connections over TLS to a server that
// has stopped reading. crypto/tls waits 5 s for each.
func TestCloseUnread(t *testing.T) {
	const conns = 3
	own := testcert.New("own")
	synctest.Test(t, func(t *testing.T) {
		var network testserver.Network
		ln := network.Listen("127.0.0.1:443")
		config := own.Server([]string{"http/1.1"}, "127.0.0.1")
		config.SessionTicketsDisabled = true
		var together sync.WaitGroup // so that each request has a connection of its own
		together.Add(conns)
		end := make(chan struct{})
		testserver.Serve(t, ln, func(c net.Conn) {
			secure := tls.Server(c, config)
			if _, err := http.ReadRequest(bufio.NewReader(secure)); err != nil {
				t.Error(err)
			}
			together.Done()
			together.Wait()
			io.WriteString(secure, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			<-end
		})
		var log bytes.Buffer
		c := newContext(t, policy.StreamType{TLS: true, TrustStore: own.Store()}, testserver.Addr(ln),
			runtime.Options{DialContext: network.DialContext, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		var fetches sync.WaitGroup
		for range conns {
			fetches.Go(func() {
				if _, err := c.Fetch(t.Context(), "s"); err != nil {
					t.Error(err)
				}
			})
		}
		fetches.Wait()
		start := time.Now()
		teststream.Shutdown(t, c)
		if d := time.Since(start); d > time.Second || log.Len() > 0 {
			t.Errorf("Shutdown took %v\n%s", d, &log)
		}
		close(end)
	})
}

// TestServerCloseUnread destroys a listener with TLS whose client has stopped reading.
func TestServerCloseUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		writePair(t, dir, system.Certify(testcert.Key(), time.Now().Add(-time.Hour), "127.0.0.1"))
		var network testserver.Network
		c := teststream.NewContext(t, runtime.Options{
			Transports: []transport.Transport{sshttp.New(sshttp.Server)}, Credentials: &credentials.Files{Dir: dir},
		}, serverType(policy.ProtocolH1, withTLS))
		k := &clients{on: teststream.Actions{"TXN": func(s *runtime.Stream) runtime.Result { s.Ack(0); return runtime.OK }}}
		gone := make(chan struct{})
		h := runtime.Handlers{State: func(_ *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
			if state == runtime.StateDestroying {
				close(gone)
			}
			return runtime.OK
		}}
		s, err := c.NewStream("web", h, runtime.WithClients(k.accept), runtime.WithListener(network.Listen("127.0.0.1:443")),
			runtime.WithLimits(runtime.Limits{IdleTimeout: time.Hour}))
		if err != nil {
			t.Fatal(err)
		}
		conn := teststream.Must(network.DialContext(t.Context(), "tcp", "127.0.0.1:443"))
		defer conn.Close()
		secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		io.WriteString(secure, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		if resp, err := http.ReadResponse(bufio.NewReader(secure), nil); err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		synctest.Wait()
		start := time.Now()
		s.Destroy()
		<-gone
		if d := time.Since(start); d > time.Second {
			t.Errorf("it took %v", d)
		}
	})
}
