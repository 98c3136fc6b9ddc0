//go:build linux

package apilogin_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/runtime/apilogin"
)

// nginxConfig emulates a gateway: clientless-mode and the right password start a
// session, and a request with neither session nor clientless-mode is redirected. It
// logs each start. %[1]s is the folder, %[2]s the address, %[3]s the user.
const nginxConfig = `%[3]s
daemon off;
worker_processes 1;
pid %[1]s/nginx.pid;
error_log stderr crit;
events { worker_connections 512; }
http {
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	log_format line '$remote_user $cookie_MRHSession $http_cookie';
	map $cookie_MRHSession/$http_clientless_mode $kind {
		default session;
		"/" none;
		"/1" start;
	}
	map $kind $starts { default 0; start 1; }
	keepalive_requests 100000;
	server {
		listen %[2]s;
		access_log %[1]s/starts line if=$starts;
		location / {
			if ($kind = none) { return 302 /my.policy; }
			if ($kind = start) { rewrite ^ /start last; }
			return 200 "session $cookie_MRHSession";
		}
		location /start {
			internal;
			auth_basic api;
			auth_basic_user_file %[1]s/users;
			add_header Set-Cookie "MRHSession=$request_id; Path=/; HttpOnly";
			try_files /started =500;
			root %[1]s;
		}
	}
}
`

// startNginx starts the gateway. starts returns the lines of its log when there are n: nginx
// writes one after the answer.
func startNginx(t testing.TB) (gateway *url.URL, starts func(n int) []string) {
	t.Helper()
	exe, err := exec.LookPath("nginx")
	if err != nil {
		if exe, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			t.Fatal("nginx is missing; make need installs it (Debian: apt install nginx-light)")
		}
	}
	dir := t.TempDir()
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	file, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	for name, text := range map[string]string{"nginx.conf": fmt.Sprintf(nginxConfig, dir, addr, user), "users": "ann:{PLAIN}right\n", "started": "started"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(exe, "-p", dir, "-c", filepath.Join(dir, "nginx.conf"), "-e", "stderr")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.ExtraFiles = []*os.File{file} // avoids a guessed port
	cmd.Env = append(os.Environ(), "NGINX=3;")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	file.Close()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("nginx: %v\n%s", err, out.Bytes())
		}
	})
	u := &url.URL{Scheme: "http", Host: addr}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, _ := http.NewRequestWithContext(ctx, "GET", u.String()+"/my.policy", nil)
	resp, err := http.DefaultTransport.RoundTrip(r) // waits until nginx accepts
	if err != nil {
		t.Fatalf("nginx: %v\n%s", err, out.Bytes())
	}
	resp.Body.Close()
	if resp.StatusCode != 302 {
		t.Fatal(resp.Status)
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	return u, func(n int) []string {
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			text, _ := os.ReadFile(filepath.Join(dir, "starts"))
			lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
			if len(lines) >= n || time.Now().After(deadline) {
				return lines
			}
		}
	}
}

// TestNginx checks that ten thousand calls through the proxy to nginx make one
// session for each key, and curl keeps no cookie.
func TestNginx(t *testing.T) {
	gateway, starts := startNginx(t)
	p := newProxy(t, apilogin.Options{})
	h := p.Proxy(gateway)
	calls := int64(10_000)
	if testing.Short() {
		calls = 100
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				n := next.Add(1)
				if n > calls {
					return
				}
				r := httptest.NewRequest("GET", fmt.Sprintf("/%d", n%5), nil)
				r.SetBasicAuth("ann", "right")
				r.Header.Set("Cookie", "MRHSession=evil")
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				if body := w.Body.String(); w.Code != 200 || body != "started" && (len(body) != 40 || !strings.HasPrefix(body, "session ")) {
					t.Errorf("%d %q", w.Code, body)
					return
				}
			}
		})
	}
	wg.Wait()
	sessions := starts(5)
	for _, line := range sessions {
		if line != "ann - -" {
			t.Errorf("a start with a session: %q", line)
		}
	}
	if n := len(sessions); n != 5 || p.Len() != 5 {
		t.Errorf("%d sessions for 5 keys", n)
	}

	front := serve(t, h)
	curl := func(args ...string) string {
		t.Helper()
		jar := filepath.Join(t.TempDir(), "jar")
		out, err := exec.CommandContext(t.Context(), "curl", append([]string{"-s", "-S", "-m", "10", "-i", "-c", jar, "-b", jar}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("curl: %v\n%s", err, out)
		}
		if cookies, err := os.ReadFile(jar); err == nil && bytes.Contains(cookies, []byte("MRHSession")) {
			t.Errorf("curl got a session:\n%s", cookies)
		}
		return string(out)
	}
	call := front.String() + "/curl"
	if out := curl("-u", "ann:right", call); !strings.Contains(out, "200 OK") || !strings.HasSuffix(out, "started") {
		t.Error(out)
	}
	if out := curl("-u", "ann:right", "-b", "MRHSession=evil", "-d", "body", call); !strings.Contains(out, "200 OK") || !strings.Contains(out, "\nsession ") || strings.Contains(out, "evil") {
		t.Error(out)
	}
	if out := curl("-u", "ann:wrong", call); !strings.Contains(out, "403 Forbidden") {
		t.Error(out)
	}
	if out := curl(call); !strings.Contains(out, "401 Unauthorized") {
		t.Error(out)
	}
	if n := len(starts(7)); n != 7 { // by curl: one allowed, one denied
		t.Errorf("%d starts", n)
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}
