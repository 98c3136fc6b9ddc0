package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
)

func TestLoginProxy(t *testing.T) {
	var starts atomic.Int32
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Start") == "yes" {
			starts.Add(1)
			w.Header().Set("Set-Cookie", "sid=s3kr1t")
		} else if c, err := r.Cookie("sid"); err != nil || c.Value != "s3kr1t" {
			t.Errorf("no session: %v", r.Header)
		}
		io.WriteString(w, "hello")
	}))
	defer gateway.Close()
	ca := testcert.New("ca")
	cert := filepath.Join(t.TempDir(), "cert.pem")
	testcert.WritePEM(cert, ca.Certify(testcert.Key(), time.Now().Add(-time.Hour), "127.0.0.1"))
	for _, flags := range [][]string{nil, {"--cert", cert}} {
		starts.Store(0)
		parser := newParser(io.Discard, io.Discard)
		ctx, err := parser.Parse(append([]string{"login-proxy", "--listen", "127.0.0.1:0", "--cookie", "sid", "--start", "X-Start: yes", "--key", "none", gateway.URL}, flags...))
		if err != nil {
			t.Fatal(err)
		}
		c := ctx.Selected().Target.Interface().(loginProxyCmd)
		life, end := context.WithCancel(t.Context())
		out, in := io.Pipe()
		done := make(chan error, 1)
		go func() {
			done <- c.serve(life, &program{stderr: in})
			in.Close()
		}()
		lines := bufio.NewReader(out)
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		go io.Copy(io.Discard, lines)
		at, _, _ := strings.Cut(strings.TrimPrefix(line, "listening on "), " ")
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}, DisableKeepAlives: true}}
		for _, path := range []string{"/a", "/b", "/b"} {
			r, err := http.NewRequest("GET", at+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.SetBasicAuth("ann", "right")
			resp, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(body) != "hello" || resp.Header.Get("Set-Cookie") != "" {
				t.Errorf("%s: %q %v", line, body, err)
			}
		}
		if starts.Load() != 1 {
			t.Errorf("%s: %d sessions", line, starts.Load())
		}
		end()
		if err := <-done; err != nil {
			t.Error(err)
		}
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	}
}

func TestLoginProxyUsage(t *testing.T) {
	for _, args := range [][]string{
		{}, {"gateway.example"}, {"ftp://gateway.example"}, {"--key", "user", "http://g"}, {"--key", "none,path", "http://g"},
		{"--start", "x", "http://g"}, {"--idle", "0s", "http://g"}, {"--lifetime", "-1s", "http://g"}, {"--cert-key", "x", "http://g"},
		{"--cookie", "a b", "http://g"},
	} {
		var stderr strings.Builder
		if code := run(append([]string{"login-proxy"}, args...), nil, io.Discard, &stderr); code != exitUsage || stderr.Len() == 0 {
			t.Errorf("%q: exit %d: %s", args, code, stderr.String())
		}
	}
	var stderr strings.Builder
	if code := run([]string{"login-proxy", "--cert", "nothere", "http://g"}, nil, io.Discard, &stderr); code != exitFailed || !strings.Contains(stderr.String(), "nothere") {
		t.Errorf("exit %d: %s", code, stderr.String())
	}
}
