package bench

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/netip"
	"testing"

	"github.com/quic-go/quic-go/http3"

	"github.com/secure-streams/sspolicy/runtime/h3"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// BenchmarkH3 is BenchmarkHTTP over h3, compared with the http3 of quic-go by hand.
func BenchmarkH3(b *testing.B) {
	s := startServers(b)
	addr := netip.MustParseAddrPort(s.H3)
	store, roots := trust(b, s)
	st := &policy.StreamType{Name: "s", Protocol: policy.ProtocolH3, Opportunistic: true, TLS: true, TrustStore: store,
		Endpoint: addr.Addr().String(), Port: addr.Port(), HTTP: &policy.HTTP{}}
	tr := &http3.Transport{DisableCompression: true, TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer tr.Close()
	for _, streams := range []int{1, 16} {
		b.Run(fmt.Sprintf("streams=%d", streams), func(b *testing.B) {
			ours := policyClient(b, h3.New(), st, streams)
			against(b, "http3", streams, ours, netHTTPClient(b, &http.Client{Transport: tr}, "https://"+s.H3+"/", streams))
		})
	}
}
