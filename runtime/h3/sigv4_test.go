package h3_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/credentials"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// TestSigV4 checks that what a server gets over h3 is what was signed, by
// signing it again with AWS's own library.
func TestSigV4(t *testing.T) {
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		hash := fmt.Sprintf("%x", sha256.Sum256(body))
		at, _ := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
		again, err := http.NewRequest(r.Method, "http://"+r.Host+r.RequestURI, nil)
		if err != nil {
			t.Error(err)
			return
		}
		again.Header.Set("X-Amz-Content-Sha256", hash)
		err = v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = strings.Contains(r.RequestURI, "%3A") }).SignHTTP(context.Background(),
			aws.Credentials{AccessKeyID: "AKID", SecretAccessKey: "s3kr1t"}, again, hash, r.Header.Get("X-Service"), "eu-west-1", at)
		if got, want := r.Header.Get("Authorization"), again.Header.Get("Authorization"); err != nil || got != want {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, "got %s, want %s, %v", got, want, err)
			return
		}
		fmt.Fprintf(w, "%s %s %d", r.Method, r.RequestURI, len(body))
	})
	creds := new(credentials.Memory)
	creds.SetBlob(policy.BlobAWSKeyID, 0, "AKID")
	creds.SetBlob(policy.BlobAWSSecret, 0, "s3kr1t")
	for _, tt := range []struct{ service, method, url, body, want string }{
		{"execute-api", "GET", "a b?z=1&a=x+y", "", "GET /a%20b?z=1&a=x%20y 0"},
		{"execute-api", "POST", "", "body", "POST / 4"},
		{"s3", "GET", "bucket/a:b+c", "", "GET /bucket/a%3Ab%2Bc 0"},
	} {
		c := newContext(t, runtime.Options{Credentials: creds}, streamType(addr, func(st *policy.StreamType) {
			st.HTTP = &policy.HTTP{Method: tt.method, URL: tt.url}
			st.Auth = &policy.Auth{Type: "sigv4"}
			st.AWSRegion, st.AWSService = "region", "service"
			st.Metadata = []policy.Metadata{{Name: "region"}, {Name: "service", Header: "x-service:"}}
		}))
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
