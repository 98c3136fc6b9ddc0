package http_test

import (
	"crypto/tls"
	"io"
	"net/http"
	goruntime "runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// TestSlowReader receives 200 MB with a callback that blocks at times, and checks
// that the payload stays with the peer meanwhile.
func TestSlowReader(t *testing.T) {
	if testing.Short() {
		t.Skip("moves 200 MB")
	}
	const size = 200 << 20
	for _, protocol := range protocols {
		synctest.Test(t, func(t *testing.T) {
			var written atomic.Int64
			chunk := make([]byte, 64<<10)
			var network testserver.Network
			ln := network.Listen("127.0.0.1:80")
			testserver.HTTP(t, ln, &http.Server{Protocols: testserver.Protocols(true, true), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for range size / len(chunk) {
					if _, err := w.Write(chunk); err != nil {
						return
					}
					written.Add(int64(len(chunk)))
				}
			})})
			got, ahead, heap := int64(0), int64(0), uint64(0)
			var before goruntime.MemStats
			goruntime.GC()
			goruntime.ReadMemStats(&before)
			tr := &teststream.Trace{}
			_, s := newStream(t, policy.StreamType{Protocol: protocol, Opportunistic: true}, testserver.Addr(ln), tr, runtime.Options{DialContext: network.DialContext})
			s.SetHandlers(runtime.Handlers{Rx: func(_ *runtime.Stream, buf []byte, _ policy.Flags) policy.Result {
				last := got >> 24
				got += int64(len(buf))
				if got>>24 != last { // every 16 MB
					synctest.Wait() // the server is as far ahead as possible
					ahead = max(ahead, written.Load()-got)
					var m goruntime.MemStats
					goruntime.GC()
					goruntime.ReadMemStats(&m)
					heap = max(heap, m.HeapAlloc)
				}
				return policy.OK
			}})
			s.RequestTx()
			tr.AwaitEnd(t, "DIS")
			more := int64(heap) - int64(before.HeapAlloc)
			t.Logf("%v: the server was at most %d KB ahead, the heap grew by at most %d KB", protocol, ahead>>10, more>>10)
			if got != size {
				t.Errorf("got %d bytes: %s, %v", got, tr, s.Err())
			}
			// net/http lets a peer send 4 MB ahead on an h2 stream.
			if ahead > 6<<20 || more > 24<<20 {
				t.Errorf("the server was %d bytes ahead, the heap grew by %d", ahead, more)
			}
		})
	}
}

// TestSlowWriter checks that an unsuccessful Tx is not called before the next RequestTx,
// whatever it returned, and that a message arrives in its pieces.
func TestSlowWriter(t *testing.T) {
	for _, tt := range []struct {
		name  string
		flags policy.Flags
		r     policy.Result
		calls uint32 // after one RequestTx
	}{
		{"TxDontSend", 0, policy.TxDontSend, 1},
		{"OK and nothing", 0, policy.OK, 1},
		{"OK and a flag", policy.FlagSOM, policy.OK, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			var network testserver.Network
			ln := network.Listen("127.0.0.1:80")
			testserver.HTTP(t, ln, &http.Server{Handler: echo})
			var calls, give atomic.Uint32
			tr := &teststream.Trace{}
			_, s := newStream(t, policy.StreamType{Opportunistic: true, HTTP: &policy.HTTP{Method: "POST"}}, testserver.Addr(ln), tr, runtime.Options{DialContext: network.DialContext})
			s.SetHandlers(runtime.Handlers{Tx: func(_ *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
				calls.Add(1)
				switch give.Swap(0) {
				case 1:
					return copy(buf, "piece "), 0, policy.OK
				case 2:
					return copy(buf, "end"), policy.FlagEOM, policy.OK
				}
				return 0, tt.flags, tt.r
			}})
			s.Connect()
			synctest.Wait()
			if n := calls.Load(); n != tt.calls {
				t.Errorf("%s: %d calls, want %d", tt.name, n, tt.calls)
			}
			for i := range uint32(5) {
				give.Store(1 + i/4)
				s.RequestTx()
				synctest.Wait()
			}
			tr.AwaitEnd(t, "DIS")
			if tr.Body() != "piece piece piece piece end" {
				t.Errorf("%s: the server got %q: %s, %v", tt.name, tr.Body(), tr, s.Err())
			}
			// The calls of Connect, then for each piece and what follows it, except the end.
			if n, want := calls.Load(), tt.calls*5+5; n != want {
				t.Errorf("%s: %d calls, want %d", tt.name, n, want)
			}
		})
	}
}

// TestLongPoll checks that the time limit of an attempt ends with the response headers.
func TestLongPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own := testcert.New("own")
		var network testserver.Network
		ln := network.Listen("127.0.0.1:80")
		config := own.Server([]string{"h2"}, "127.0.0.1")
		testserver.HTTP(t, tls.NewListener(ln, config), &http.Server{TLSConfig: config, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(200)
			for range 3 {
				w.(http.Flusher).Flush()
				time.Sleep(150 * time.Millisecond)
				io.WriteString(w, "news ")
			}
		})})
		tr := &teststream.Trace{}
		_, s := newStream(t, policy.StreamType{Protocol: policy.ProtocolH2, TLS: true, TrustStore: own.Store(), Opportunistic: true,
			HTTP: &policy.HTTP{LongPoll: true}}, testserver.Addr(ln), tr, runtime.Options{ConnectTimeout: 100 * time.Millisecond, DialContext: network.DialContext})
		s.Connect()
		tr.AwaitEnd(t, "DIS", "ARF")
		if tr.Body() != "news news news " {
			t.Errorf("got %q: %s, %v", tr.Body(), tr, s.Err())
		}
	})
}
