package bench

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/sspc"
	"github.com/secure-streams/sspolicy/runtime/transport"
	ssws "github.com/secure-streams/sspolicy/runtime/ws"
)

// BenchmarkProxyClients runs a proxy with 1,000 clients, each with 4 WebSocket streams. 64
// random streams at a time send 64 bytes and wait for the echo. It reports the resident
// memory of the proxy per stream, the latency, and the echoes missing after 30 s.
// SSPC_PROXY is the command of another proxy, which gets the name of a policy as its last
// argument and listens at the default address. SSPC_CLIENTS is the number of clients.
func BenchmarkProxyClients(b *testing.B) {
	const streams, workers, size = 4, 64, 64
	clients := 1000
	if n, err := strconv.Atoi(os.Getenv("SSPC_CLIENTS")); err == nil {
		clients = n
	}
	needFiles(b, 2*clients*streams+1000)
	s := startServers(b)
	types := proxiedTypes(netip.MustParseAddrPort(s.Raw), netip.MustParseAddrPort(s.WS))
	measure := func(b *testing.B, pid int, address string) {
		before := resident(b, pid)
		var conns []*runtime.Conn
		var contexts []*runtime.Context
		defer func() {
			var all sync.WaitGroup
			for _, c := range contexts {
				all.Go(func() { c.Close() })
			}
			all.Wait()
		}()
		for range clients {
			o := runtime.Options{Transports: []transport.Transport{ssws.New()}}
			if address != "" {
				p, err := sspc.New(address, sspc.Options{})
				if err != nil {
					b.Fatal(err)
				}
				o = runtime.Options{Proxy: p}
			}
			c, err := runtime.NewContext(&policy.Policy{StreamTypes: types}, o)
			if err != nil {
				b.Fatal(err)
			}
			contexts = append(contexts, c)
			for range streams {
				conn, err := c.Open(b.Context(), "ws")
				if err != nil {
					b.Fatalf("%d streams: %v", len(conns), err)
				}
				conns = append(conns, conn)
			}
		}
		held := resident(b, pid) - before
		stop := time.AfterFunc(30*time.Second, func() { // a proxy may lose messages
			for _, c := range contexts {
				go c.Close()
			}
		})
		defer stop.Stop()
		busy := make([]sync.Mutex, len(conns))
		var next, unanswered atomic.Int64
		var mu sync.Mutex
		var took []time.Duration
		var all sync.WaitGroup
		b.ResetTimer()
		for range workers {
			all.Go(func() {
				message, buf := make([]byte, size), make([]byte, size)
				var mine []time.Duration
				for next.Add(1) <= int64(b.N) {
					i := rand.IntN(len(conns))
					busy[i].Lock()
					start := time.Now()
					_, err := conns[i].Write(message)
					if err == nil {
						_, err = conns[i].Read(buf)
					}
					busy[i].Unlock()
					if err != nil {
						unanswered.Add(1)
						break
					}
					mine = append(mine, time.Since(start))
				}
				mu.Lock()
				defer mu.Unlock()
				took = append(took, mine...)
			})
		}
		all.Wait()
		b.StopTimer()
		if len(took) == 0 {
			b.Fatal("no answer")
		}
		slices.Sort(took)
		if pid != 0 {
			b.ReportMetric(float64(held)/float64(len(conns)), "proxy-B/stream")
		}
		b.ReportMetric(float64(len(took))/b.Elapsed().Seconds(), "msg/s")
		b.ReportMetric(float64(unanswered.Load()), "unanswered")
		for _, p := range []int{50, 99} {
			b.ReportMetric(float64(took[len(took)*p/100].Microseconds()), fmt.Sprintf("p%d-µs", p))
		}
	}
	path, pid := startProxy(b, s)
	b.Run("sspolicy", func(b *testing.B) { measure(b, pid, "unix:"+path) })
	if command := strings.Fields(os.Getenv("SSPC_PROXY")); len(command) > 0 {
		b.Run("other", func(b *testing.B) { measure(b, startOther(b, command, types[1]), sspc.DefaultAddress) })
	}
	b.Run("direct", func(b *testing.B) { measure(b, 0, "") })
}

// startOther starts another proxy, until the end of the benchmark, and returns its
// process.
func startOther(b *testing.B, command []string, ws *policy.StreamType) int {
	b.Helper()
	file := filepath.Join(b.TempDir(), "policy.json")
	text := fmt.Sprintf(`{"release":"01234567","product":"p","schema-version":1,"retry":[{"default":{"backoff":[1000],"conceal":5}}],
"s":[{"ws":{"endpoint":%q,"port":%d,"protocol":"ws","http_url":"","ws_binary":true,"retry":"default"}}]}`, ws.Endpoint, ws.Port)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(command[0], append(command[1:], file)...)
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	time.Sleep(2 * time.Second) // until it listens
	return cmd.Process.Pid
}

// resident returns the resident memory of a process in bytes; 0 for process 0.
func resident(b *testing.B, pid int) int64 {
	b.Helper()
	if pid == 0 {
		return 0
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0 // another system
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			return kb << 10
		}
	}
	return 0
}
