//go:build linux

package mqtt

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/runtime"
)

// A broker is a mosquitto.
type broker struct {
	addr netip.AddrPort
	tls  netip.AddrPort
	unix string
	own  *testcert.Authority
}

func freePort(t testing.TB) netip.AddrPort {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String())
}

// startBroker starts a mosquitto with more settings, until the end of the test.
func startBroker(t testing.TB, settings string) *broker {
	t.Helper()
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		program = "/usr/sbin/mosquitto"
	}
	dir := t.TempDir()
	b := &broker{addr: freePort(t), tls: freePort(t), unix: filepath.Join(dir, "s"), own: testcert.New("own")}
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	cert := b.own.Certify(key, time.Now().Add(-time.Hour), "127.0.0.1", "localhost")
	der, _ := x509.MarshalPKCS8PrivateKey(key)
	certFile := write("cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}))
	keyFile := write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if !strings.Contains(settings, "password_file") {
		settings += "\nallow_anonymous true"
	}
	config := write("mosquitto.conf", fmt.Appendf(nil, `
log_dest none
user root
listener %d 127.0.0.1
listener 0 %s
listener %d 127.0.0.1
certfile %s
keyfile %s
%s
`, b.addr.Port(), b.unix, b.tls.Port(), certFile, keyFile, strings.ReplaceAll(settings, "DIR", dir)))
	if strings.Contains(settings, "password_file") {
		passwd := filepath.Join(dir, "passwd")
		if out, err := exec.Command("mosquitto_passwd", "-b", "-c", passwd, "me", "secret").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	cmd := exec.Command(program, "-c", config)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if c, err := net.Dial("tcp", b.tls.String()); err == nil {
			c.Close()
			return b
		}
		if time.Now().After(deadline) {
			t.Fatalf("mosquitto does not listen: %s", log.String())
		}
	}
}

// pub publishes by mosquitto's own client.
func (b *broker) pub(t testing.TB, args ...string) {
	t.Helper()
	args = append([]string{"-h", "127.0.0.1", "-p", fmt.Sprint(b.addr.Port())}, args...)
	if out, err := exec.Command("mosquitto_pub", args...).CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_pub: %v: %s", err, out)
	}
}

// sub returns what mosquitto's own client prints until it has had n messages,
// or been there for 20 s. It is subscribed when sub returns.
func (b *broker) sub(t testing.TB, n int, args ...string) (wait func() string) {
	t.Helper()
	args = append([]string{"-h", "127.0.0.1", "-p", fmt.Sprint(b.addr.Port()), "-C", fmt.Sprint(n), "-W", "20", "-d"}, args...)
	cmd := exec.Command("stdbuf", append([]string{"-oL", "mosquitto_sub"}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	subscribed := make(chan struct{})
	var lines []string
	go func() {
		defer close(done)
		all, _ := io.ReadAll(&lineReader{r: out, saw: func(line string) {
			if strings.HasPrefix(line, "Subscribed ") {
				close(subscribed)
			}
		}})
		cmd.Wait()
		for line := range strings.Lines(string(all)) {
			if line = strings.TrimSpace(line); !strings.HasPrefix(line, "Client ") && !strings.HasPrefix(line, "Subscribed ") {
				lines = append(lines, line)
			}
		}
	}()
	t.Cleanup(func() { cmd.Process.Kill(); <-done })
	select {
	case <-subscribed:
	case <-done:
		t.Fatal("mosquitto_sub did not subscribe")
	}
	return func() string { <-done; return strings.Join(lines, "\n") }
}

// A lineReader tells of each line that it reads.
type lineReader struct {
	r    io.Reader
	saw  func(string)
	part []byte
}

func (l *lineReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	l.part = append(l.part, p[:n]...)
	for {
		i := bytes.IndexByte(l.part, '\n')
		if i < 0 {
			return n, err
		}
		l.saw(string(l.part[:i]))
		l.part = l.part[i+1:]
	}
}

// TestMosquitto is the basic sequences: the program hears its own messages.
func TestMosquitto(t *testing.T) {
	b := startBroker(t, "")
	for _, way := range []string{"tcp", "TLS", "unix"} {
		for qos := range byte(3) {
			t.Run(fmt.Sprintf("%s/qos %d", way, qos), func(t *testing.T) {
				st := streamType("s", b.addr, topics("a/b", "a/+", qos))
				switch way {
				case "TLS":
					st.Port, st.TLS, st.TrustStore = b.tls.Port(), true, b.own.Store()
				case "unix":
					st.Endpoint = "+" + b.unix
				}
				c := newContext(t, runtime.Options{}, st)
				tr := new(trace)
				tr.open(t, c, "s")
				tr.Connect()
				tr.await(t, 1, "CON")
				for i, msg := range []string{"one", "", "three"} {
					tr.publish(msg)
					tr.await(t, 1, "rx("+msg+")")
					tr.await(t, i+1, "ACK")
				}
				tr.mu.Lock()
				msgs := slices.Clone(tr.msgs)
				tr.mu.Unlock()
				if !slices.Equal(msgs, []string{"one", "", "three"}) {
					t.Errorf("received %q", msgs)
				}
				c.Close()
				got := tr.String()
				for _, msg := range []string{"rx(one) ", "rx() ", "rx(three) "} {
					got = strings.Replace(got, msg, "", 1)
				}
				if got != "CRE CNG CON tx ACK tx ACK tx ACK DIS DES" {
					t.Errorf("got %s", tr)
				}
			})
		}
	}
}

// TestLarge sends 3 MB in pieces, and gets it back.
func TestLarge(t *testing.T) {
	b := startBroker(t, "")
	big := make([]byte, 3_000_001)
	rand.Read(big)
	for qos := range byte(3) {
		t.Run(fmt.Sprint(qos), func(t *testing.T) {
			c := newContext(t, runtime.Options{}, streamType("s", b.addr, topics("big", "big", qos)),
				streamType("sibling", b.addr, topics("small", "", 1)))
			other := new(trace).open(t, c, "sibling")
			other.Connect()
			other.await(t, 1, "CON")
			tr := new(trace).open(t, c, "s")
			tr.Connect()
			tr.await(t, 1, "CON")
			tr.publish(string(big))
			other.publish("in between")
			tr.publish("after")
			tr.await(t, 1, "rx(after)")
			tr.await(t, 2, "ACK")
			other.await(t, 1, "ACK")
			tr.mu.Lock()
			defer tr.mu.Unlock()
			if len(tr.msgs) != 2 || tr.msgs[0] != string(big) {
				t.Errorf("%d messages, the first one of %d bytes", len(tr.msgs), len(tr.msgs[0]))
			}
		})
	}
}

var _ = errors.Is
var _ = context.Background
var _ sync.Mutex
var _ atomic.Int32
