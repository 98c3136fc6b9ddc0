package bench

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/netip"
	goruntime "runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// BenchmarkHTTP makes GET requests over reused connections, by one stream, by 16 concurrent
// streams, and by Fetch. The results are those of the runtime. net/http-ns/op and
// net/http-allocs/op are those of hand-written net/http code, run in short alternate turns
// under the same load. x/net/http is the median of the relative throughput; cpu/net/http is
// the relative CPU time of an operation, garbage collection included.
func BenchmarkHTTP(b *testing.B) {
	s := startServers(b)
	store, roots := trust(b, s)
	for _, k := range []struct {
		name string
		addr string
		tls  bool
		h2   bool
	}{
		{"h1", s.Plain, false, false}, {"h1+TLS", s.TLS, true, false}, {"h2", s.TLS, true, true},
	} {
		addr := netip.MustParseAddrPort(k.addr)
		st := &policy.StreamType{Name: "s", Opportunistic: true, Endpoint: addr.Addr().String(), Port: addr.Port(), HTTP: &policy.HTTP{}}
		tr := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 256, IdleConnTimeout: 30 * time.Second, Protocols: new(http.Protocols)}
		tr.Protocols.SetHTTP1(!k.h2)
		tr.Protocols.SetHTTP2(k.h2)
		url := "http://" + k.addr + "/"
		if k.tls {
			st.TLS, st.TrustStore = true, store
			tr.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
			url = "https://" + k.addr + "/"
		}
		if k.h2 {
			st.Protocol = policy.ProtocolH2
		}
		for _, streams := range []int{1, 16} {
			byHand := netHTTPClient(b, &http.Client{Transport: tr}, url, streams)
			b.Run(fmt.Sprintf("%s/streams=%d", k.name, streams), func(b *testing.B) {
				against(b, "net/http", streams, policyClient(b, sshttp.New(), st, streams), byHand)
			})
			b.Run(fmt.Sprintf("%s/Fetch/callers=%d", k.name, streams), func(b *testing.B) {
				against(b, "net/http", streams, fetchClient(b, sshttp.New(), st, streams), byHand)
			})
		}
		tr.CloseIdleConnections()
	}
}

// against runs ours and peers in turns for b.N operations each, and reports their costs.
func against(b *testing.B, peer string, streams int, ours, peers func(each int)) {
	const turn = 50 * time.Millisecond
	ours(20)
	peers(20) // makes the connections
	each := 20
	var o, p cost
	b.ReportAllocs()
	b.ResetTimer() // the time of both, from which package testing chooses b.N
	for i := 0; o.n < b.N; i++ {
		n := min(each, (b.N-o.n+streams-1)/streams)
		if i%2 == 0 {
			o.add(ours, n, streams)
			p.add(peers, n, streams)
		} else {
			p.add(peers, n, streams)
			o.add(ours, n, streams)
		}
		each = max(20, int(float64(turn)/(float64(o.took)/float64(o.n)))/streams)
	}
	b.StopTimer()
	perOp := func(x float64, c cost) float64 { return x / float64(c.n) }
	b.ReportMetric(perOp(float64(o.took), o), "ns/op")
	b.ReportMetric(float64(o.n)/o.took.Seconds(), "req/s")
	b.ReportMetric(perOp(float64(o.allocs), o), "allocs/op")
	b.ReportMetric(perOp(float64(o.bytes), o), "B/op")
	b.ReportMetric(perOp(float64(p.took), p), peer+"-ns/op")
	b.ReportMetric(perOp(float64(p.allocs), p), peer+"-allocs/op")
	b.ReportMetric(ratio(p.turns, o.turns), "x/"+peer)
	if p.cpu > 0 {
		b.ReportMetric(perOp(float64(o.cpu), o)/perOp(float64(p.cpu), p), "cpu/"+peer)
	}
}

// A cost is the cost of n operations.
type cost struct {
	n             int
	took, cpu     time.Duration
	allocs, bytes uint64
	turns         []float64 // nanoseconds per operation in each turn
}

// ratio returns the median ratio of adjacent turns, which depends less on other load than
// the mean.
func ratio(p, o []float64) float64 {
	all := make([]float64, len(o))
	for i := range all {
		all[i] = p[i] / o[i]
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// add runs f, which makes each operations on each stream, and adds its cost.
func (c *cost) add(f func(each int), each, streams int) {
	var before, after goruntime.MemStats
	goruntime.ReadMemStats(&before)
	start, cpu := time.Now(), cpuTime()
	f(each)
	took := time.Since(start)
	c.cpu += cpuTime() - cpu
	c.took += took
	c.turns = append(c.turns, float64(took)/float64(each*streams))
	goruntime.ReadMemStats(&after)
	c.n += each * streams
	c.allocs += after.Mallocs - before.Mallocs
	c.bytes += after.TotalAlloc - before.TotalAlloc
}

// newContext returns a context with one transport.
func newContext(b *testing.B, t transport.Transport, types ...*policy.StreamType) *runtime.Context {
	return teststream.NewContext(b, runtime.Options{Transports: []transport.Transport{t}}, types...)
}

// policyClient returns a function that makes requests with each stream.
func policyClient(b *testing.B, t transport.Transport, st *policy.StreamType, streams int) (run func(each int)) {
	c := newContext(b, t, st)
	var wg sync.WaitGroup
	left := make([]int, streams)
	all := make([]*runtime.Stream, streams)
	for i := range streams {
		s, err := c.NewStream(st.Name, runtime.Handlers{
			State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
				switch state {
				case runtime.StateDisconnected:
					if left[i]--; left[i] == 0 {
						wg.Done()
					} else {
						s.RequestTx()
					}
				case runtime.StateUnreachable:
					b.Error(s.Err())
					wg.Done()
				}
				return runtime.OK
			},
			Rx: func(*runtime.Stream, []byte, runtime.Flags) runtime.Result { return runtime.OK },
		})
		if err != nil {
			b.Fatal(err)
		}
		all[i] = s
	}
	return func(each int) {
		wg.Add(streams)
		for i, s := range all {
			left[i] = each
			s.RequestTx()
		}
		wg.Wait()
	}
}

// fetchClient returns a function that calls Fetch from each of the callers.
func fetchClient(b *testing.B, t transport.Transport, st *policy.StreamType, callers int) (run func(each int)) {
	c := newContext(b, t, st)
	ctx := b.Context()
	return func(each int) {
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				for range each {
					if _, err := c.Fetch(ctx, st.Name); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
}

// netHTTPClient returns the same by hand.
func netHTTPClient(b *testing.B, client *http.Client, url string, streams int) (run func(each int)) {
	header := http.Header{"User-Agent": {""}} // a policy does not send it either
	buffers := make([][]byte, streams)
	for i := range buffers {
		buffers[i] = make([]byte, 16<<10)
	}
	ctx := b.Context()
	return func(each int) {
		var wg sync.WaitGroup
		for i := range streams {
			wg.Go(func() {
				for range each {
					req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
					if err != nil {
						b.Error(err)
						return
					}
					req.Header = header
					resp, err := client.Do(req)
					if err != nil {
						b.Error(err)
						return
					}
					for err == nil {
						_, err = resp.Body.Read(buffers[i])
					}
					resp.Body.Close()
				}
			})
		}
		wg.Wait()
	}
}

// trust returns the root of the servers as a trust store and as a pool.
func trust(b *testing.B, s servers) (*policy.TrustStore, *x509.CertPool) {
	root, err := x509.ParseCertificate(s.Root)
	if err != nil {
		b.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	return &policy.TrustStore{Name: "own", Stack: []*policy.Cert{{Name: "own", DER: string(s.Root)}}}, roots
}
