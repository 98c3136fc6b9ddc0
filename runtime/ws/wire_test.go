package ws

import (
	"crypto/tls"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
)

// TestWireClose checks that a peer that does not read delays the end of a connection by at
// most a second: crypto/tls would wait 5 s to send the close_notify.
func TestWireClose(t *testing.T) {
	ca := testcert.New("ca")
	config := ca.Server(nil, "peer")
	config.SessionTicketsDisabled = true // the peer does not read them
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		peer := make(chan error, 1)
		go func() { peer <- tls.Server(far, config).Handshake() }()
		client := tls.Client(near, &tls.Config{InsecureSkipVerify: true})
		if err := client.Handshake(); err != nil {
			t.Fatal(err)
		}
		if err := <-peer; err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		(&wire{Conn: client}).Close()
		if took := time.Since(start); took > time.Second {
			t.Errorf("took %v", took)
		}
	})
}
