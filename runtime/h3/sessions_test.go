package h3

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/secure-streams/sspolicy/internal/testcert"
)

// TestSessions checks that concurrent dials resume one session without a race.
func TestSessions(t *testing.T) {
	own := testcert.New("sessions")
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	server := &http3.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
		TLSConfig: http3.ConfigureTLSConfig(own.Server(nil, "127.0.0.1"))}
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(pc) })
	defer serving.Wait()
	defer server.Close()
	config := &tls.Config{RootCAs: own.Pool(), ClientSessionCache: copyingCache{tls.NewLRUClientSessionCache(1)}}
	get := func() bool {
		// As the runtime does; quic-go v0.65.0 races with itself in the default DialEarly.
		c := &http3.Transport{TLSClientConfig: config, Dial: quic.DialAddr}
		defer c.Close()
		req, err := http.NewRequest("GET", "https://"+pc.LocalAddr().String()+"/", nil)
		if err != nil {
			t.Error(err)
			return false
		}
		resp, err := c.RoundTrip(req)
		if err != nil {
			t.Error(err)
			return false
		}
		resp.Body.Close()
		return resp.TLS.DidResume
	}
	get()
	for range 4 {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if !get() {
					t.Error("the session was not resumed")
				}
			})
		}
		wg.Wait()
	}
}
