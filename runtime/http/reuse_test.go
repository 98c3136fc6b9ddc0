package http_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A heldConn holds back writes from the time hold is set until release.
type heldConn struct {
	net.Conn
	hold bool
	held bytes.Buffer
}

func (c *heldConn) Write(p []byte) (int, error) {
	if c.hold {
		return c.held.Write(p)
	}
	return c.Conn.Write(p)
}

func (c *heldConn) release() {
	c.hold = false
	_, _ = c.held.WriteTo(c.Conn)
}

// TestUnsolicitedTLS has a server that sends a second response, in its own TLS record,
// together with the first. The next request must not receive it.
func TestUnsolicitedTLS(t *testing.T) {
	own := testcert.New("own")
	ln := testserver.Listen(t)
	testserver.Serve(t, ln, func(c net.Conn) {
		held := &heldConn{Conn: c}
		secure := tls.Server(held, own.Server([]string{"http/1.1"}, "127.0.0.1"))
		for r := bufio.NewReader(secure); ; {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			held.hold = true
			for _, body := range []string{"good", "evil"} {
				io.WriteString(secure, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"+body)
			}
			held.release()
		}
	})
	c := newContext(t, policy.StreamType{Protocol: policy.ProtocolH1, TLS: true, TrustStore: own.Store()}, testserver.Addr(ln), runtime.Options{})
	for range 3 {
		if body, err := get(t, c); body != "good" || err != nil {
			t.Errorf("%q, %v", body, err)
		}
	}
}
