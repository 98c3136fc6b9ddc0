// Package thirdparty tests transports and patches against other implementations. It is a
// separate module, since only its tests depend on these implementations.
package thirdparty

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"testing"

	"github.com/secure-streams/sspolicy/internal/leaktest"
	"github.com/secure-streams/sspolicy/internal/testcert"
)

var own = testcert.New("own")

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// serve starts a server, over TLS with HTTP/2 if secure, and returns its address.
func serve(t *testing.T, secure bool, h http.HandlerFunc) netip.AddrPort {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	if secure {
		srv.TLS = own.Server([]string{"h2", "http/1.1"}, "127.0.0.1")
		srv.EnableHTTP2 = true
		srv.StartTLS()
	} else {
		srv.Start()
	}
	t.Cleanup(srv.Close)
	return netip.MustParseAddrPort(srv.Listener.Addr().String())
}
