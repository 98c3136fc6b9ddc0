package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/secure-streams/sspolicy/proxy"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
	"github.com/secure-streams/sspolicy/runtime/sspc"
	"github.com/secure-streams/sspolicy/runtime/transport"
	ssws "github.com/secure-streams/sspolicy/runtime/ws"
)

// proxyVar makes the test binary a proxy, which listens on this path. rawVar and wsVar
// are the addresses of the origins.
const (
	proxyVar = "SSPOLICY_BENCH_PROXY"
	rawVar   = "SSPOLICY_BENCH_RAW"
	wsVar    = "SSPOLICY_BENCH_WS"
)

// proxiedTypes are the streamtypes of the proxy.
func proxiedTypes(rawAddr, wsAddr netip.AddrPort) []*policy.StreamType {
	return []*policy.StreamType{
		{Name: "raw", Protocol: policy.ProtocolRaw, Endpoint: rawAddr.Addr().String(), Port: rawAddr.Port()},
		{Name: "ws", Protocol: policy.ProtocolWS, Endpoint: wsAddr.Addr().String(), Port: wsAddr.Port(), HTTP: &policy.HTTP{WSBinary: true}},
	}
}

// serveProxy serves links until the standard input ends.
func serveProxy() error {
	l, err := net.Listen("unix", os.Getenv(proxyVar))
	if err != nil {
		return err
	}
	types := proxiedTypes(netip.MustParseAddrPort(os.Getenv(rawVar)), netip.MustParseAddrPort(os.Getenv(wsVar)))
	c, err := runtime.NewContext(&policy.Policy{StreamTypes: types}, runtime.Options{Transports: []transport.Transport{raw.New(), ssws.New()}})
	if err != nil {
		return err
	}
	go proxy.New(c, proxy.Options{}).Serve(l)
	fmt.Println(os.Getpid()) // it is ready
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// startProxy starts the proxy process, until the end of the benchmark. It returns the
// path of its socket, and its number.
func startProxy(b *testing.B, s servers) (path string, pid int) {
	b.Helper()
	path = filepath.Join(b.TempDir(), "proxy")
	out := startSelf(b, proxyVar+"="+path, rawVar+"="+s.Raw, wsVar+"="+s.WS)
	if _, err := fmt.Fscanln(out, &pid); err != nil {
		b.Fatal(err)
	}
	return path, pid
}

// BenchmarkConnProxied exchanges echoes by Write and Read of a runtime.Conn through a
// proxy, which is a process of its own, compared with a Conn without one.
func BenchmarkConnProxied(b *testing.B) {
	s := startServers(b)
	types := proxiedTypes(netip.MustParseAddrPort(s.Raw), netip.MustParseAddrPort(s.WS))
	direct, err := runtime.NewContext(&policy.Policy{StreamTypes: types}, runtime.Options{Transports: []transport.Transport{raw.New(), ssws.New()}})
	if err != nil {
		b.Fatal(err)
	}
	path, _ := startProxy(b, s)
	p, err := sspc.New("unix:"+path, sspc.Options{})
	if err != nil {
		b.Fatal(err)
	}
	proxied, err := runtime.NewContext(&policy.Policy{StreamTypes: types}, runtime.Options{Proxy: p})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		direct.Shutdown(context.Background())
		proxied.Shutdown(context.Background())
	})
	open := func(c *runtime.Context, name string) func(*testing.B) io.ReadWriteCloser {
		return func(b *testing.B) io.ReadWriteCloser {
			conn, err := c.Open(context.Background(), name)
			if err != nil {
				b.Fatal(err)
			}
			if name == "raw" {
				return hello(b, conn)
			}
			return conn
		}
	}
	for _, st := range types {
		b.Run(st.Name, func(b *testing.B) {
			for _, size := range []int{64, 4 << 10, 64 << 10} {
				for _, conns := range []int{1, 16} {
					b.Run(fmt.Sprintf("%d B/conns=%d", size, conns), func(b *testing.B) {
						against(b, "direct", conns, echoes(b, open(proxied, st.Name), size, conns), echoes(b, open(direct, st.Name), size, conns))
					})
				}
			}
		})
	}
}
