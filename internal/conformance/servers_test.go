//go:build linux

package conformance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
)

// A program is a server of another project.
type program struct {
	name   string
	config func(s *site) string         // text of the configuration
	args   func(config string) []string // arguments to run in the foreground
	env    func(fds int) []string       // environment that names the inherited sockets
}

// A site is the pages of a program, at several addresses.
type site struct {
	dir     string          // of its files
	backend string          // address of the server behind it
	stalled <-chan struct{} // signals of stallListener for the backend
	names   []string
	addrs   map[string]netip.AddrPort
}

// fd returns the file descriptor of the inherited socket of an address.
func (s *site) fd(name string) int {
	for i, n := range s.names {
		if n == name {
			return 3 + i
		}
	}
	panic("no address " + name)
}

var nginx = program{
	name: "nginx",
	args: func(config string) []string {
		return []string{"-p", filepath.Dir(config), "-c", config, "-e", "stderr"}
	},
	// This is how a new nginx takes over from an old one.
	env: func(fds int) []string {
		v := "NGINX="
		for i := range fds {
			v += fmt.Sprintf("%d;", 3+i)
		}
		return []string{v}
	},
	config: func(s *site) string {
		var b strings.Builder
		if os.Geteuid() == 0 {
			b.WriteString("user root;\n") // to read the files of the test
		}
		fmt.Fprintf(&b, `
daemon off;
worker_processes 1;
pid %[1]s/nginx.pid;
error_log stderr crit;
events { worker_connections 512; }
http {
	access_log off;
	keepalive_timeout 10s;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	client_max_body_size 64m;
	default_type text/plain;
`, s.dir)
		for _, name := range s.names {
			addr, tls := s.addrs[name], ""
			switch name {
			case "plain", "closing":
			case "no h2":
				tls = " ssl"
			default:
				tls = " ssl http2"
			}
			fmt.Fprintf(&b, "\tserver {\n\t\tlisten %s%s;\n", addr, tls)
			if tls != "" {
				fmt.Fprintf(&b, "\t\tssl_certificate %[1]s;\n\t\tssl_certificate_key %[1]s;\n", s.pem(name))
			}
			switch name {
			case "TLS 1.1":
				b.WriteString("\t\tssl_protocols TLSv1 TLSv1.1;\n\t\tssl_ciphers ALL:@SECLEVEL=0;\n")
			case "TLS 1.2":
				b.WriteString("\t\tssl_protocols TLSv1.2;\n")
			case "closing":
				b.WriteString("\t\tkeepalive_timeout 0;\n")
			default:
				if tls != "" {
					b.WriteString("\t\tssl_protocols TLSv1.2 TLSv1.3;\n")
				}
			}
			fmt.Fprintf(&b, `
		location = /hello { return 200 "hello"; }
		location = /port { return 200 "$remote_port"; }
		location = /204 { return 204; }
		location = /empty { return 200 ""; }
		location = /404 { return 404 "there is no such page"; }
		location = /503 { add_header Retry-After 1 always; return 503 "later"; }
		location = /429 { return 429 "too many"; }
		location = /redirect { return 302 /hello; }
		location = /reject { return 444; }
		location = /large { alias %[1]s/large; }
		location /ws/ {
			proxy_pass http://%[2]s;
			proxy_http_version 1.1;
			proxy_set_header Upgrade $http_upgrade;
			proxy_set_header Connection "upgrade";
			proxy_read_timeout 2s;
		}
		proxy_request_buffering off;
		proxy_buffering off;
		proxy_http_version 1.1;
		location / {
			proxy_pass http://%[2]s;
			proxy_set_header X-Client-Framing $http_transfer_encoding;
		}
		location = /stall {
			proxy_pass http://%[2]s;
			proxy_read_timeout 1s;
		}
	}
`, s.dir, s.backend)
		}
		b.WriteString("}\n")
		return b.String()
	},
}

var haproxy = program{
	name: "haproxy",
	args: func(config string) []string { return []string{"-db", "-f", config} },
	config: func(s *site) string {
		var b strings.Builder
		b.WriteString(`
global
	nbthread 1
	maxconn 500
	tune.ssl.default-dh-param 2048
defaults
	mode http
	timeout connect 5s
	timeout client 10s
	timeout server 60s
	timeout http-request 5s
	timeout tarpit 200ms
frontend main
`)
		for _, name := range s.names {
			crt := fmt.Sprintf("ssl crt %s alpn ", s.pem(name))
			switch name {
			case "reject", "silent-drop", "closing":
				continue
			case "plain":
				crt = ""
			case "no h2":
				crt += "http/1.1"
			case "TLS 1.1":
				crt += "h2,http/1.1 ssl-min-ver TLSv1.0 ssl-max-ver TLSv1.1 ciphers ALL:@SECLEVEL=0"
			case "TLS 1.2":
				crt += "h2,http/1.1 ssl-min-ver TLSv1.2 ssl-max-ver TLSv1.2"
			default:
				crt += "h2,http/1.1"
			}
			fmt.Fprintf(&b, "\tbind fd@%d %s\n", s.fd(name), crt)
		}
		fmt.Fprintf(&b, `
	http-request return status 200 content-type text/plain string "hello" if { path /hello }
	http-request return status 200 content-type text/plain lf-string "%%[src_port]" if { path /port }
	http-request return status 204 if { path /204 }
	http-request return status 200 if { path /empty }
	http-request return status 404 content-type text/plain string "there is no such page" if { path /404 }
	http-request return status 503 hdr Retry-After 1 content-type text/plain string "later" if { path /503 }
	http-request return status 429 content-type text/plain string "too many" if { path /429 }
	http-request redirect location /hello code 302 if { path /redirect }
	http-request reject if { path /reject }
	http-request silent-drop if { path /silent-drop }
	http-request tarpit deny_status 500 if { path /tarpit }
	use_backend impatient if { path /stall } || { path_beg /ws/ }
	default_backend go
frontend closing
	bind fd@%[1]d
	option httpclose
	http-request return status 200 content-type text/plain lf-string "%%[src_port]"
frontend reject
	bind fd@%[2]d
	tcp-request connection reject
frontend silent-drop
	bind fd@%[3]d
	tcp-request connection silent-drop
backend go
	server go %[4]s
backend impatient
	timeout server 2s
	server go %[4]s
`, s.fd("closing"), s.fd("reject"), s.fd("silent-drop"), s.backend)
		return b.String()
	},
}

// pem returns the file with the certificate and key of an address.
func (s *site) pem(name string) string {
	switch name {
	case "expired", "self-signed", "wrong host":
		return filepath.Join(s.dir, strings.ReplaceAll(name, " ", "-")+".pem")
	}
	return filepath.Join(s.dir, "good.pem")
}

// start runs the program until the end of the test. The program inherits listening sockets,
// so that the test does not guess free ports.
func (p *program) start(t *testing.T, own *testcert.Authority) *site {
	t.Helper()
	exe, err := exec.LookPath(p.name)
	if err != nil {
		if exe, err = exec.LookPath("/usr/sbin/" + p.name); err != nil {
			t.Fatalf("%s is missing; make need installs it (Debian: apt install nginx-light haproxy)", p.name)
		}
	}
	s := &site{dir: t.TempDir(), addrs: map[string]netip.AddrPort{}}
	s.backend, s.stalled = startBackend(t)
	s.names = []string{"plain", "TLS", "no h2", "TLS 1.1", "TLS 1.2", "expired", "self-signed", "wrong host", "closing"}
	if p.name == "haproxy" {
		s.names = append(s.names, "reject", "silent-drop")
	}
	now := time.Now().Add(-time.Hour)
	if strings.Contains(s.dir, " ") {
		t.Fatalf("the configuration of %s cannot have a path with a space: %q", p.name, s.dir)
	}
	testcert.WritePEM(s.pem("good"), own.Certify(testcert.Key(), now, "127.0.0.1"))
	testcert.WritePEM(s.pem("expired"), own.Certify(testcert.Key(), now.Add(-48*time.Hour), "127.0.0.1"))
	testcert.WritePEM(s.pem("self-signed"), (*testcert.Authority)(nil).Certify(testcert.Key(), now, "127.0.0.1"))
	testcert.WritePEM(s.pem("wrong host"), own.Certify(testcert.Key(), now, "elsewhere.test", "127.0.0.2"))
	if err := os.WriteFile(filepath.Join(s.dir, "large"), large, 0o600); err != nil {
		t.Fatal(err)
	}
	var files []*os.File
	for _, name := range s.names {
		ln := teststream.Must(net.Listen("tcp", "127.0.0.1:0")).(*net.TCPListener)
		s.addrs[name] = ln.Addr().(*net.TCPAddr).AddrPort()
		files = append(files, teststream.Must(ln.File()))
		ln.Close()
	}
	config := filepath.Join(s.dir, p.name+".conf")
	if err := os.WriteFile(config, []byte(p.config(s)), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, p.args(config)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	cmd.Env = os.Environ()
	if p.env != nil {
		cmd.Env = append(cmd.Env, p.env(len(files))...)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		_ = syscall.SetNonblock(int(f.Fd()), true) // os/exec has made it blocking
		f.Close()
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		select {
		case <-ended:
			t.Errorf("%s has ended: %v\n%s", p.name, cmd.ProcessState, out.Bytes())
		default:
			_ = cmd.Process.Signal(syscall.SIGTERM) // nginx forwards it to its worker
			select {
			case <-ended:
			case <-time.After(time.Minute):
				_ = cmd.Process.Kill()
				<-ended
				t.Errorf("%s had to be killed", p.name)
			}
			if t.Failed() && out.Len() > 0 {
				t.Logf("output of %s:\n%s", p.name, out.Bytes())
			}
		}
	})
	// The connection is queued until the server accepts it. A server that rejects its
	// configuration exits, which resets the connection.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req := teststream.Must(http.NewRequestWithContext(ctx, "GET", "http://"+s.addrs["plain"].String()+"/hello", nil))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s does not answer: %v", p.name, err) // its output follows
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	return s
}

// large is a large body.
var large = bytes.Repeat([]byte("0123456789abcdef"), 4<<20/16)

// stallTime is how long a write blocks before it counts as stalled.
const stallTime = 200 * time.Millisecond

// A stallListener accepts connections that signal a write that has been blocked for
// stallTime, repeatedly after each stallTime.
type stallListener struct {
	net.Listener
	stalled chan struct{}
}

func newStallListener(t *testing.T) stallListener {
	return stallListener{testserver.Listen(t), make(chan struct{}, 1)}
}

func (l stallListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return stallConn{c, l.stalled}, nil
}

type stallConn struct {
	net.Conn
	stalled chan<- struct{}
}

func (c stallConn) Write(b []byte) (n int, err error) {
	for {
		c.SetWriteDeadline(time.Now().Add(stallTime))
		k, err := c.Conn.Write(b[n:])
		n += k
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		select {
		case c.stalled <- struct{}{}:
		default:
		}
	}
}

// awaitStall waits until a write stalls after the call.
func awaitStall(t *testing.T, stalled <-chan struct{}) {
	t.Helper()
	select {
	case <-stalled: // may be old
	default:
	}
	select {
	case <-stalled:
	case <-time.After(20 * time.Second):
		t.Error("the peer still sends")
	}
}

// startBackend runs the server behind a program, for responses that a program cannot
// produce.
func startBackend(t *testing.T) (addr string, stalled <-chan struct{}) {
	end := make(chan struct{})
	hijack := func(w http.ResponseWriter, text string, then func()) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		io.WriteString(c, text)
		if then != nil {
			then()
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		framing := r.Header.Get("X-Client-Framing") // nginx replaces the framing of a body that it has read
		switch {
		case framing != "":
		case r.ContentLength >= 0:
			framing = fmt.Sprint(r.ContentLength)
		default:
			framing = "chunked"
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		w.Header().Set("X-Framing", framing)
		w.Write(body)
	})
	mux.HandleFunc("/form", func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(16 << 20); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		known := r.Header.Get("X-Client-Framing") == "" && r.ContentLength > 0
		file, h, err := r.FormFile("file")
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		defer file.Close()
		body, err := io.ReadAll(file)
		fmt.Fprintf(w, "%q %s %s %d %x %v %v", r.FormValue("about"), h.Filename, h.Header.Get("Content-Type"), len(body), sha256.Sum256(body), err, known)
	})
	mux.HandleFunc("/parts", func(w http.ResponseWriter, r *http.Request) {
		b := strings.Repeat("0123456789", 7)
		w.Header().Set("Content-Type", `multipart/related; boundary="`+b+`"`)
		body := "--" + b + "\r\nContent-Type: text/plain\r\n\r\n" + string(large[:1<<20]) + "\r\n--" + b + "\r\n\r\nlast\r\n--" + b + "--\r\n"
		sent := 0
		for _, end := range []int{30, 1<<20 + 120, 1<<20 + 150, len(body) - 75, len(body) - 5, len(body)} {
			io.WriteString(w, body[sent:end])
			w.(http.Flusher).Flush()
			sent = end
		}
	})
	mux.HandleFunc("/ws/", serveWS)
	mux.HandleFunc("/large", func(w http.ResponseWriter, r *http.Request) { w.Write(large) })
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(100 * time.Millisecond)
		io.WriteString(w, "hello")
	})
	mux.HandleFunc("/drip", func(w http.ResponseWriter, r *http.Request) {
		for range 5 {
			io.WriteString(w, "hello")
			w.(http.Flusher).Flush()
			time.Sleep(10 * time.Millisecond)
		}
	})
	mux.HandleFunc("/cut", func(w http.ResponseWriter, r *http.Request) {
		hijack(w, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", nil)
	})
	mux.HandleFunc("/cut-chunked", func(w http.ResponseWriter, r *http.Request) {
		hijack(w, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", nil)
	})
	mux.HandleFunc("/stall", func(w http.ResponseWriter, r *http.Request) {
		hijack(w, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", func() { <-end })
	})
	mux.HandleFunc("/never", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-end:
		case <-r.Context().Done():
		}
	})
	ln := newStallListener(t)
	testserver.HTTP(t, ln, &http.Server{Handler: mux})
	t.Cleanup(func() { close(end) })
	return ln.Addr().String(), ln.stalled
}
