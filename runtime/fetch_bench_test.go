package runtime_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// BenchmarkFetch compares Fetch with net/http.
func BenchmarkFetch(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "hello")
	}))
	defer server.Close()
	b.Run("net-http", func(b *testing.B) {
		b.ReportAllocs()
		client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
		defer client.CloseIdleConnections()
		for b.Loop() {
			req, err := http.NewRequestWithContext(b.Context(), "GET", server.URL, nil)
			if err != nil {
				b.Fatal(err)
			}
			resp, err := client.Do(req)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadAll(resp.Body); err != nil {
				b.Fatal(err)
			}
			resp.Body.Close()
		}
	})
	b.Run("fetch", func(b *testing.B) {
		b.ReportAllocs()
		c := teststream.NewContext(b, runtime.Options{Transports: []transport.Transport{sshttp.New()}}, &policy.StreamType{
			Name: "s", Protocol: policy.ProtocolH1, Endpoint: server.URL, Opportunistic: true, HTTP: &policy.HTTP{},
		})
		for b.Loop() {
			if _, err := c.Fetch(b.Context(), "s"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
