package tlssession_test

import (
	"crypto/rand"
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/runtime/tlssession"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// BenchmarkHandshake compares resumed handshakes, client and server together, over a pipe:
// with the tickets of crypto/tls and with this package. The kinds alternate, so that other
// load affects them equally; the results are medians.
func BenchmarkHandshake(b *testing.B) {
	observed := tlssession.NewCache(tlssession.Options{})
	observed.Watch(func(tlssession.Event) {})
	for name, version := range versions {
		b.Run(name, func(b *testing.B) {
			kinds := []struct {
				name     string
				sessions *tlssession.Sessions
				resume   bool
			}{
				{"bare-full", nil, false},
				{"bare", nil, true},
				{"tickets", &tlssession.Sessions{}, true},
				{"cache", &tlssession.Sessions{Cache: tlssession.NewCache(tlssession.Options{})}, true},
				{"cache-watched", &tlssession.Sessions{Cache: observed}, true},
			}
			servers, clients := make([]*tls.Config, len(kinds)), make([]*tls.Config, len(kinds))
			took := make([][]time.Duration, len(kinds))
			for i, k := range kinds {
				servers[i], clients[i] = serverConfig(), clientConfig(version)
				if k.sessions != nil {
					k.sessions.Server(transport.Scope{}, servers[i])
				}
				if !k.resume {
					clients[i].ClientSessionCache = nil
				}
				handshake(b, servers[i], clients[i])
			}
			for b.Loop() {
				for i, k := range kinds {
					start := time.Now()
					if handshake(b, servers[i], clients[i]) != k.resume {
						b.Fatal("not the handshake that the benchmark is about")
					}
					took[i] = append(took[i], time.Since(start))
				}
			}
			for i, k := range kinds {
				slices.Sort(took[i])
				b.ReportMetric(float64(took[i][len(took[i])/2].Nanoseconds())/1000, "µs/"+k.name)
			}
		})
	}
}

// handshake makes a connection over a pipe, and reports whether it has resumed.
func handshake(t testing.TB, server, client *tls.Config) bool {
	a, b := net.Pipe()
	done := make(chan error, 1)
	go func() {
		s := tls.Server(a, server)
		_, err := io.WriteString(s, "x")
		s.Close()
		done <- err
	}()
	c := tls.Client(b, client)
	_, err := io.ReadAll(c) // the ticket of TLS 1.3 too
	c.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return c.ConnectionState().DidResume
}

// BenchmarkInsert measures a cache of a million sessions: memory, and insertions
// when it is full.
func BenchmarkInsert(b *testing.B) {
	s := state(b)
	const n = 1_000_000
	c := tlssession.NewCache(tlssession.Options{MaxSessions: n, MaxBytes: 1 << 40})
	insert := func() {
		id := make([]byte, tlssession.MaxID)
		rand.Read(id)
		if err := c.Insert(tlssession.ID(id), tlssession.Session{State: s}); err != nil {
			b.Fatal(err)
		}
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range n {
		insert()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	for b.Loop() {
		insert()
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/session")
}
