package thirdparty

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"

	"github.com/quic-go/quic-go/http3"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/credentials"
	"github.com/secure-streams/sspolicy/runtime/h3"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// TestSigV4H3 checks the signatures of requests over h3.
func TestSigV4H3(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http3.Server{TLSConfig: http3.ConfigureTLSConfig(own.Server(nil, "127.0.0.1")), Logger: slog.New(slog.DiscardHandler),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err == nil {
				err = verify(r, body)
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusForbidden)
				return
			}
			fmt.Fprintf(w, "%s %s %d", r.Method, r.RequestURI, len(body))
		})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(pc)
	}()
	t.Cleanup(func() {
		srv.Close()
		<-done
		pc.Close()
	})
	creds := new(credentials.Memory)
	creds.SetBlob(policy.BlobAWSKeyID, 0, "AKID")
	creds.SetBlob(policy.BlobAWSSecret, 0, "s3kr1t")
	for _, tt := range []struct{ service, method, url, body, want string }{
		{"execute-api", "GET", "a b?z=1&a=x+y", "", "GET /a%20b?z=1&a=x%20y 0"},
		{"execute-api", "POST", "", "body", "POST / 4"},
		{"s3", "GET", "bucket/a:b+c", "", "GET /bucket/a%3Ab%2Bc 0"},
	} {
		addr := pc.LocalAddr().(*net.UDPAddr).AddrPort()
		c := teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{h3.New(sshttp.SigV4)}, Credentials: creds}, &policy.StreamType{
			Name: "s", Protocol: policy.ProtocolH3, Opportunistic: true, TLS: true, TrustStore: own.Store(), Endpoint: addr.Addr().String(), Port: addr.Port(),
			HTTP: &policy.HTTP{Method: tt.method, URL: tt.url}, Auth: &policy.Auth{Type: policy.AuthSigV4},
			AWSRegion: "region", AWSService: "service", Metadata: []policy.Metadata{{Name: "region"}, {Name: "service"}}})
		o := []runtime.CallOption{runtime.WithFields("region", "eu-west-1", "service", tt.service)}
		if tt.body != "" {
			o = append(o, runtime.WithBody([]byte(tt.body)))
		}
		answer, err := c.Fetch(t.Context(), "s", o...)
		if err != nil || string(answer.Body) != tt.want {
			t.Errorf("%s %s: %v, %v, want %s", tt.method, tt.url, answer, err, tt.want)
		}
	}
}
