package http_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
)

// BenchmarkFetchH1 is GET after GET over kept connections, by one stream and by
// 16 at a time, here and with net/http by hand. x/net_http is the throughput
// relative to that.
func BenchmarkFetchH1(b *testing.B) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello, world") }))
	defer srv.Close()
	addr := netip.MustParseAddrPort(strings.TrimPrefix(srv.URL, "http://"))
	for _, streams := range []int{1, 16} {
		name := map[int]string{1: "one", 16: "sixteen"}[streams]
		var peer time.Duration
		b.Run(name+"/net_http", func(b *testing.B) {
			client := &http.Client{Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 256}}
			defer client.CloseIdleConnections()
			b.ReportAllocs()
			inParallel(b, streams, func(n int) {
				buf := make([]byte, 16<<10)
				for range n {
					req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, srv.URL, nil)
					if err != nil {
						b.Error(err)
						return
					}
					resp, err := client.Do(req)
					if err != nil {
						b.Error(err)
						return
					}
					for err == nil {
						_, err = resp.Body.Read(buf)
					}
					resp.Body.Close()
				}
			})
			peer = b.Elapsed() / time.Duration(b.N)
		})
		b.Run(name+"/sspolicy", func(b *testing.B) {
			c, err := runtime.NewContext(&runtime.Policy{StreamTypes: []*runtime.StreamType{{Name: "s", Opportunistic: true,
				Endpoint: addr.Addr().String(), Port: addr.Port(), HTTP: &runtime.HTTP{}}}},
				runtime.Options{Transports: []runtime.Transport{sshttp.New()}})
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			b.ReportAllocs()
			inParallel(b, streams, func(n int) {
				done := make(chan struct{})
				s, err := c.NewStream("s", runtime.Handlers{
					State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
						switch state {
						case runtime.StateDisconnected:
							if n--; n == 0 {
								close(done)
							} else {
								s.RequestTx()
							}
						case runtime.StateUnreachable:
							b.Error(s.Err())
							close(done)
						}
						return runtime.OK
					},
					Rx: func(*runtime.Stream, []byte, runtime.Flags) runtime.Result { return runtime.OK },
				})
				if err != nil {
					b.Error(err)
					return
				}
				s.RequestTx()
				<-done
			})
			if peer > 0 {
				b.ReportMetric(float64(peer)/(float64(b.Elapsed())/float64(b.N)), "x/net_http")
			}
		})
	}
}

// inParallel splits b.N over workers.
func inParallel(b *testing.B, workers int, f func(n int)) {
	var wg sync.WaitGroup
	b.ResetTimer()
	for i := range workers {
		if n := b.N/workers + min(1, b.N%workers/(i+1)); n > 0 {
			wg.Go(func() { f(n) })
		}
	}
	wg.Wait()
	b.StopTimer()
}
