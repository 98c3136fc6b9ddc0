package testserver

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
)

// chosen are the results of FreePort: no two servers of a test get the same port.
var chosen sync.Map

// FreePort returns a port of 127.0.0.1 without a listener, for a server that binds it
// itself. The system does not assign it to another socket meanwhile: it is below the
// range of ephemeral ports, which begins at 32768 on Linux and 49152 elsewhere.
func FreePort(t testing.TB) netip.AddrPort {
	t.Helper()
	const first, last = 20000, 32767
	var err error
	for range 1000 {
		var ln net.Listener
		if ln, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(last-first+1))); err != nil {
			continue
		}
		ln.Close()
		if _, again := chosen.LoadOrStore(Addr(ln), true); !again {
			return Addr(ln)
		}
	}
	t.Fatal(err)
	return netip.AddrPort{}
}

// Refused returns an address that refuses connections.
func Refused(t testing.TB) netip.AddrPort {
	t.Helper()
	return FreePort(t)
}
