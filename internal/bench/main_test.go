// Package bench measures the runtime and, in the same run, an alternative to it.
package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"testing"

	"github.com/quic-go/quic-go/http3"

	"github.com/secure-streams/sspolicy/internal/testcert"
)

// serverVar makes the test binary a server, so that the costs of a server are not those
// of the client.
const serverVar = "SSPOLICY_BENCH_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(serverVar) != "" {
		if err := serve(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv(proxyVar) != "" {
		if err := serveProxy(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// servers are the addresses of the server process.
type servers struct {
	Plain, TLS string // TLS has h1 and h2
	H3, Raw    string
	WS         string // echoes messages
	Root       []byte // certificate of the authority of TLS and H3, DER
}

// serve serves until its standard input ends.
func serve() error {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello, world") })
	own := testcert.New("bench")
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	secure, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go http.Serve(plain, handler)
	srv := &http.Server{Handler: handler, TLSConfig: own.Server(nil, "127.0.0.1")}
	go srv.ServeTLS(secure, "", "")
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go (&http3.Server{Handler: handler, TLSConfig: http3.ConfigureTLSConfig(own.Server(nil, "127.0.0.1"))}).Serve(udp)
	bytes, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go serveRaw(bytes)
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go http.Serve(echo, http.HandlerFunc(echoWS))
	if err := json.NewEncoder(os.Stdout).Encode(servers{Plain: plain.Addr().String(), TLS: secure.Addr().String(),
		H3: udp.LocalAddr().String(), Raw: bytes.Addr().String(), WS: echo.Addr().String(), Root: own.Cert.Raw}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// startServers starts the server process, until the end of the benchmark.
func startServers(b *testing.B) (s servers) {
	b.Helper()
	if err := json.NewDecoder(startSelf(b, serverVar+"=1")).Decode(&s); err != nil {
		b.Fatal(err)
	}
	return s
}

// startSelf starts this program with variables until the end of the benchmark, and returns
// what it prints. The program ends when its standard input does.
func startSelf(b *testing.B, variables ...string) io.Reader {
	b.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), variables...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	return out
}
