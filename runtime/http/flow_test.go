package http_test

import (
	"io"
	"net/http"
	goruntime "runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// TestSlowReader receives 200 MB by a callback that at times stops for a while,
// and checks that what was not yet taken stays with the peer.
func TestSlowReader(t *testing.T) {
	if testing.Short() {
		t.Skip("moves 200 MB")
	}
	const size = 200 << 20
	for _, protocol := range []policy.Protocol{policy.ProtocolH1, policy.ProtocolH2} {
		var written atomic.Int64
		chunk := make([]byte, 64<<10)
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for range size / len(chunk) {
				if _, err := w.Write(chunk); err != nil {
					return
				}
				written.Add(int64(len(chunk)))
			}
		})
		addr := serve(t, h)
		if protocol == policy.ProtocolH2 {
			addr = serveH2C(t, h)
		}
		got, ahead, heap := int64(0), int64(0), uint64(0)
		var before goruntime.MemStats
		goruntime.GC()
		goruntime.ReadMemStats(&before)
		tr := &trace{}
		_, s := newStream(t, policy.StreamType{Protocol: protocol, Opportunistic: true}, addr, tr, runtime.Options{})
		s.SetHandlers(runtime.Handlers{Rx: func(_ *runtime.Stream, buf []byte, _ policy.Flags) policy.Result {
			was := got >> 24
			got += int64(len(buf))
			if got>>24 != was { // every 16 MB
				time.Sleep(30 * time.Millisecond)
				ahead = max(ahead, written.Load()-got)
				var m goruntime.MemStats
				goruntime.ReadMemStats(&m)
				heap = max(heap, m.HeapInuse)
			}
			return policy.OK
		}})
		s.RequestTx()
		tr.await(t, 3)
		for deadline := time.Now().Add(60 * time.Second); s.State() != policy.StateDisconnected && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
		}
		more := int64(heap) - int64(before.HeapInuse)
		t.Logf("%v: the server was at most %d KB ahead, the heap grew by at most %d KB", protocol, ahead>>10, more>>10)
		if got != size {
			t.Errorf("got %d bytes: %s, %v", got, tr, s.Err())
		}
		// The buffers of the sockets, and the 4 MB that net/http lets a peer
		// send ahead on an h2 stream.
		if ahead > 16<<20 || more > 24<<20 {
			t.Errorf("the server was %d bytes ahead, the heap grew by %d", ahead, more)
		}
	}
}

// TestSlowWriter checks that a Tx that has nothing to send is not asked again
// until it says so, whatever it answers, and that a message sent piece by piece
// arrives so.
func TestSlowWriter(t *testing.T) {
	addr := serve(t, echo)
	for _, tt := range []struct {
		name  string
		flags policy.Flags
		r     policy.Result
		most  uint32 // calls that are made of one RequestTx
	}{
		{"TxDontSend", 0, policy.TxDontSend, 1},
		{"OK and nothing", 0, policy.OK, 1},
		{"OK and a flag", policy.FlagSOM, policy.OK, 2},
	} {
		var calls, give atomic.Uint32
		tr := &trace{}
		_, s := newStream(t, policy.StreamType{Opportunistic: true, HTTP: &policy.HTTP{Method: "POST"}}, addr, tr, runtime.Options{})
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
		time.Sleep(100 * time.Millisecond)
		if n := calls.Load(); n < 1 || n > tt.most {
			t.Errorf("%s: %d calls in 100 ms, want %d", tt.name, n, tt.most)
		}
		for i := range uint32(5) {
			give.Store(1 + i/4)
			s.RequestTx()
			time.Sleep(5 * time.Millisecond)
		}
		tr.AwaitEnd(t, "DIS")
		if string(tr.body) != "piece piece piece piece end" {
			t.Errorf("%s: the server got %q: %s, %v", tt.name, tr.body, tr, s.Err())
		}
		// One for the start, then each piece and the emptiness after it.
		if n := calls.Load(); n > tt.most*6+5 {
			t.Errorf("%s: %d calls", tt.name, n)
		}
	}
}

// TestLongPoll checks that the limit of an attempt ends with the headers.
func TestLongPoll(t *testing.T) {
	own := testcert.New("own")
	addr := server{handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		for range 3 {
			w.(http.Flusher).Flush()
			time.Sleep(150 * time.Millisecond)
			io.WriteString(w, "news ")
		}
	}), tls: own.Server([]string{"h2"}, "127.0.0.1")}.start(t)
	tr := &trace{}
	_, s := newStream(t, policy.StreamType{Protocol: policy.ProtocolH2, TLS: true, TrustStore: own.Store(), Opportunistic: true,
		HTTP: &policy.HTTP{LongPoll: true}}, addr, tr, runtime.Options{ConnectTimeout: 100 * time.Millisecond})
	s.Connect()
	tr.AwaitEnd(t, "DIS", "ARF")
	if string(tr.body) != "news news news " {
		t.Errorf("got %q: %s, %v", tr.body, tr, s.Err())
	}
}
