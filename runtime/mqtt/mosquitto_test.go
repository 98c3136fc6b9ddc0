//go:build linux

package mqtt

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/testbroker"
	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A broker is a mosquitto with listeners for TCP, TLS and unix sockets.
type broker struct {
	addr netip.AddrPort
	tls  netip.AddrPort
	unix string
	own  *testcert.Authority
}

// startBroker runs a broker with additional settings until the end of the test.
func startBroker(t testing.TB, settings string) *broker {
	t.Helper()
	dir := t.TempDir()
	b := &broker{addr: testserver.FreePort(t), tls: testserver.FreePort(t), unix: filepath.Join(dir, "s"), own: testcert.New("own")}
	pem := filepath.Join(dir, "server.pem")
	testcert.WritePEM(pem, b.own.Certify(testcert.Ed25519Key(), time.Now().Add(-time.Hour), "127.0.0.1", "localhost"))
	if !strings.Contains(settings, "password_file") {
		settings += "\nallow_anonymous true"
	}
	config := fmt.Sprintf(`
listener %d 127.0.0.1
listener 0 %s
listener %d 127.0.0.1
certfile %s
keyfile %s
%s
`, b.addr.Port(), b.unix, b.tls.Port(), pem, pem, strings.ReplaceAll(settings, "DIR", dir))
	if strings.Contains(settings, "password_file") {
		passwd := filepath.Join(dir, "passwd")
		if out, err := exec.Command("mosquitto_passwd", "-b", "-c", passwd, "me", "secret").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	testbroker.Start(t, config)
	return b
}

// pub publishes with mosquitto's client.
func (b *broker) pub(t testing.TB, args ...string) {
	t.Helper()
	args = append([]string{"-h", "127.0.0.1", "-p", fmt.Sprint(b.addr.Port())}, args...)
	if out, err := exec.Command("mosquitto_pub", args...).CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_pub: %v: %s", err, out)
	}
}

// sub subscribes with mosquitto's client. wait returns its output when it has received n
// messages, or after 20 s.
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

// A lineReader calls saw for each line that it reads.
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

// TestMosquitto checks the basic sequences, with a program that receives its own
// messages.
func TestMosquitto(t *testing.T) {
	b := startBroker(t, "")
	for _, network := range []string{"TCP", "TLS", "unix"} {
		for qos := range byte(3) {
			t.Run(fmt.Sprintf("%s/qos %d", network, qos), func(t *testing.T) {
				st := streamType("s", b.addr, topics("a/b", "a/+", qos))
				switch network {
				case "TLS":
					st.Port, st.TLS, st.TrustStore = b.tls.Port(), true, b.own.Store()
				case "unix":
					st.Endpoint = "+" + b.unix
				}
				c := newContext(t, runtime.Options{}, st)
				cl := open(t, c, "s")
				cl.Connect()
				cl.await(t, 1, "CON")
				for i, msg := range []string{"one", "", "three"} {
					cl.publish(msg)
					cl.await(t, 1, "rx("+msg+")")
					cl.await(t, i+1, "ACK")
				}
				if got := cl.received(); !slices.Equal(got, []string{"one", "", "three"}) {
					t.Errorf("received %q", got)
				}
				teststream.Shutdown(t, c)
				got := cl.String()
				for _, msg := range []string{"rx(one) ", "rx() ", "rx(three) "} {
					got = strings.Replace(got, msg, "", 1)
				}
				if got != "CRE CNG CON tx ACK tx ACK tx ACK DIS DES" {
					t.Errorf("got %s", cl)
				}
			})
		}
	}
}

// TestLarge checks a message of 3 MB, which is sent and received in pieces.
func TestLarge(t *testing.T) {
	b := startBroker(t, "")
	big := make([]byte, 3_000_001)
	rand.Read(big)
	for qos := range byte(3) {
		t.Run(fmt.Sprint(qos), func(t *testing.T) {
			c := newContext(t, runtime.Options{}, streamType("s", b.addr, topics("big", "big", qos)),
				streamType("sibling", b.addr, topics("small", "", 1)))
			other := open(t, c, "sibling")
			other.Connect()
			other.await(t, 1, "CON")
			cl := open(t, c, "s")
			cl.Connect()
			cl.await(t, 1, "CON")
			cl.publish(string(big))
			other.publish("in between")
			cl.publish("after")
			cl.await(t, 1, "rx(after)")
			cl.await(t, 2, "ACK")
			other.await(t, 1, "ACK")
			if got := cl.received(); len(got) != 2 || got[0] != string(big) {
				t.Errorf("%d messages, the first one of %d bytes", len(got), len(got[0]))
			}
		})
	}
}

// TestPasswords checks user names and passwords.
func TestPasswords(t *testing.T) {
	b := startBroker(t, "password_file DIR/passwd")
	for _, c := range []struct{ user, password, want string }{
		{"me", "secret", "CRE POL CNG CON"}, {"me", "wrong", "CRE POL CNG UNR ARF"}, {"", "", "CRE POL CNG UNR ARF"},
	} {
		ctx := newContext(t, identify("", c.user, c.password), streamType("s", b.addr, topics("t", "", 0)))
		cl := open(t, ctx, "s")
		cl.RequestTx()
		cl.await(t, 1, c.want[len(c.want)-3:])
		cl.want(t, c.want)
		if refused, ok := errors.AsType[*RefusedError](cl.Err()); strings.HasSuffix(c.want, "ARF") && (!ok || refused.Code != 5) {
			t.Errorf("Err %v", cl.Err())
		}
	}
}

// TestOtherClients checks messages to and from mosquitto's programs.
func TestOtherClients(t *testing.T) {
	b := startBroker(t, "")
	st := streamType("s", b.addr, topics("up/${n}", "down/#", 1))
	st.Metadata = []policy.Metadata{{Name: "n"}}
	c := newContext(t, runtime.Options{}, st)
	cl := open(t, c, "s")
	cl.Connect()
	cl.await(t, 1, "CON")
	wait := b.sub(t, 3, "-t", "up/+", "-q", "2", "-F", "%t %q %r %p")
	for i := range 3 {
		cl.SetMetadata("n", fmt.Sprint(i))
		cl.publish(fmt.Sprint("message ", i))
		cl.await(t, i+1, "ACK")
	}
	if got, want := wait(), "up/0 1 0 message 0\nup/1 1 0 message 1\nup/2 1 0 message 2"; got != want {
		t.Errorf("mosquitto_sub got\n%s\nwant\n%s", got, want)
	}
	b.pub(t, "-t", "down/a/b", "-q", "2", "-m", "hello")
	b.pub(t, "-t", "down", "-m", "there")
	b.pub(t, "-t", "$down", "-m", "no match")
	cl.await(t, 1, "rx(hello)")
	cl.await(t, 1, "rx(there)")
}

// TestRetained checks that the broker keeps a message with mqtt_retain.
func TestRetained(t *testing.T) {
	b := startBroker(t, "")
	st := streamType("s", b.addr, topics("state", "", 1))
	st.MQTT.Retain = true
	c := newContext(t, runtime.Options{}, st, streamType("r", b.addr, topics("", "state", 1)))
	cl := open(t, c, "s")
	cl.publish("on")
	cl.await(t, 1, "ACK")
	late := open(t, c, "r")
	late.Connect()
	late.await(t, 1, "rx(on)")
}

// TestWill checks that the will is published if the connection is lost, and not if the
// stream is destroyed.
func TestWill(t *testing.T) {
	b := startBroker(t, "")
	st := streamType("s", b.addr, topics("t", "", 0))
	st.MQTT.WillTopic, st.MQTT.WillMessage, st.MQTT.WillQoS, st.MQTT.WillRetain = "will/${n}", "gone ${n}", 1, false
	st.Metadata = []policy.Metadata{{Name: "n"}}
	var mu sync.Mutex
	var conns []net.Conn
	c := newContext(t, runtime.Options{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		nc, err := new(net.Dialer).DialContext(ctx, network, address)
		mu.Lock()
		defer mu.Unlock()
		conns = append(conns, nc)
		return nc, err
	}}, st)
	wait := b.sub(t, 1, "-t", "will/#", "-q", "1", "-F", "%t %p")
	for _, n := range []string{"1", "2"} {
		cl := open(t, c, "s", runtime.WithMetadata("n", n))
		cl.Connect()
		cl.await(t, 1, "CON")
		if n == "1" {
			cl.Destroy()
			cl.await(t, 1, "DES")
			continue
		}
		mu.Lock()
		conns[1].Close()
		mu.Unlock()
		cl.await(t, 1, "DIS")
	}
	if got := wait(); got != "will/2 gone 2" {
		t.Errorf("mosquitto_sub got %q", got)
	}
}

// TestSession checks that the broker keeps messages for a session without a
// connection.
func TestSession(t *testing.T) {
	b := startBroker(t, "")
	st := streamType("s", b.addr, topics("", "kept", 1))
	st.MQTT.CleanStart = false
	c := newContext(t, identify("device", "", ""), st)
	cl := open(t, c, "s")
	cl.Connect()
	cl.await(t, 1, "CON")
	cl.Destroy()
	cl.await(t, 1, "DES")
	b.pub(t, "-t", "kept", "-q", "1", "-m", "one")
	b.pub(t, "-t", "kept", "-q", "1", "-m", "two")
	cl = open(t, c, "s")
	cl.Connect()
	cl.await(t, 1, "rx(two)")
	cl.want(t, "CRE CNG CON rx(one) rx(two)")
}

// TestSystemTopics checks that only aws_iot allows topics that begin with '$'.
func TestSystemTopics(t *testing.T) {
	b := startBroker(t, "sys_interval 1")
	aws := streamType("aws", b.addr, topics("", "$SYS/broker/version", 0))
	aws.MQTT.AWSIoT = true
	c := newContext(t, runtime.Options{}, aws, streamType("all", b.addr, topics("", "#", 0)), streamType("plain", b.addr, topics("", "$SYS/#", 0)))
	if _, err := c.NewStream("plain", runtime.Handlers{}); !errors.Is(err, ErrTopic) {
		t.Errorf("err %v", err)
	}
	all := open(t, c, "all")
	all.Connect()
	all.await(t, 1, "CON")
	cl := open(t, c, "aws")
	cl.Connect()
	cl.await(t, 1, "rx(24)")
	if got := cl.received()[0]; !strings.HasPrefix(got, "mosquitto version ") {
		t.Errorf("received %q", got)
	}
	all.want(t, "CRE CNG CON")
}

// TestCalls checks Fetch and Open.
func TestCalls(t *testing.T) {
	b := startBroker(t, "")
	echo := streamType("echo", b.addr, topics("e/${n}", "e/+", 1))
	echo.Metadata = []policy.Metadata{{Name: "n"}, {Name: "from", Header: "topic"}}
	c := newContext(t, runtime.Options{}, echo, streamType("pub", b.addr, topics("p", "", 2)), streamType("sub", b.addr, topics("", "p", 2)))
	ctx := t.Context()

	t.Run("Open", func(t *testing.T) {
		conn, err := c.Open(ctx, "echo")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go func() {
			for i := range 5 {
				fmt.Fprint(conn, "message ", i)
			}
		}()
		i := 0
		for msg, err := range conn.Messages() {
			if err != nil || string(msg) != fmt.Sprint("message ", i) {
				t.Fatalf("%q, %v", msg, err)
			}
			if i++; i == 5 {
				break
			}
		}
		for i := range 20 {
			b.pub(t, "-t", fmt.Sprint("e/", i), "-m", fmt.Sprint(i))
		}
		i = 0
		for msg, err := range conn.Messages() {
			if from, _ := conn.Metadata("from"); err != nil || from != fmt.Sprint("e/", i) || string(msg) != fmt.Sprint(i) {
				t.Errorf("%q from %q, %v", msg, from, err)
			}
			if i++; i == 20 {
				break
			}
		}
	})
	t.Run("Fetch", func(t *testing.T) {
		conn, err := c.Open(ctx, "sub")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("x")); !errors.Is(err, runtime.ErrNoBody) {
			t.Errorf("Write: %v", err)
		}
		long := strings.Repeat("long ", 30_000)
		for _, o := range []struct {
			o    runtime.CallOption
			want string
		}{
			{runtime.WithBody([]byte("hello")), "hello"}, {runtime.WithBody(nil), ""}, {runtime.WithBody([]byte(long)), long},
			{runtime.WithBodyReader(strings.NewReader(long), int64(len(long))), long}, {runtime.WithBodyReader(strings.NewReader(long), -1), long},
		} {
			done := make(chan error)
			go func() {
				_, err := c.Fetch(ctx, "pub", o.o)
				done <- err
			}()
			for msg, err := range conn.Messages() {
				if err != nil || string(msg) != o.want {
					t.Errorf("%.20q (%d bytes), %v; want %d bytes", msg, len(msg), err, len(o.want))
				}
				break
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if _, err := c.Fetch(ctx, "sub", runtime.WithBody([]byte("x"))); !errors.Is(err, runtime.ErrNoBody) {
			t.Errorf("Fetch: %v", err)
		}
	})
}

// A cutConn ends after in received bytes or out sent bytes.
type cutConn struct {
	net.Conn
	in, out *atomic.Int64
}

func (c cutConn) Read(b []byte) (int, error) {
	left := c.in.Load()
	if left <= 0 {
		c.Conn.Close()
		return 0, io.EOF
	}
	n, err := c.Conn.Read(b[:min(int64(len(b)), left)])
	c.in.Add(-int64(n))
	return n, err
}

func (c cutConn) Write(b []byte) (int, error) {
	left := c.out.Load()
	if int64(len(b)) > left {
		c.Conn.Write(b[:left])
		c.out.Store(0)
		c.Conn.Close()
		return int(left), io.ErrClosedPipe
	}
	c.out.Add(-int64(len(b)))
	return c.Conn.Write(b)
}

// TestCutEverywhere cuts a short exchange after each byte in either direction. The stream
// must end as documented, and the next attempt must succeed.
func TestCutEverywhere(t *testing.T) {
	b := startBroker(t, "")
	for _, out := range []bool{false, true} {
		t.Run(fmt.Sprint("out ", out), func(t *testing.T) {
			whole := false
			for after := int64(0); !whole; after++ {
				var in, to atomic.Int64
				in.Store(1 << 30)
				to.Store(1 << 30)
				if out {
					to.Store(after)
				} else {
					in.Store(after)
				}
				clean := false
				c := newContext(t, runtime.Options{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
					nc, err := new(net.Dialer).DialContext(ctx, network, address)
					if err != nil || clean {
						return nc, err
					}
					clean = true
					return cutConn{nc, &in, &to}, nil
				}}, streamType("s", b.addr, topics("t", "t", 2)))
				cl := open(t, c, "s")
				over := make(chan struct{}, 10)
				end := func(*runtime.Stream) policy.Result { over <- struct{}{}; return policy.OK }
				got := func(s *runtime.Stream) policy.Result {
					if cl.events.Count("ACK") > 0 && cl.events.Count("rx(x)") > 0 {
						over <- struct{}{}
					}
					return policy.OK
				}
				cl.on(teststream.Actions{"DIS": end, "ARF": end, "ACK": got, "rx(x)": got})
				cl.publish("x")
				<-over
				events := cl.String()
				whole = strings.Contains(events, "ACK") && strings.Contains(events, "rx(x)") && !strings.Contains(events, "DIS")
				if !whole {
					ok := []string{
						"CRE POL CNG UNR ARF", "CRE POL CNG CON DIS", "CRE POL CNG CON tx DIS", "CRE POL CNG CON tx ACK DIS",
						"CRE POL CNG CON tx rx(x) DIS", "CRE POL CNG CON tx ACK rx(x) DIS", "CRE POL CNG CON tx rx(x) ACK DIS",
					}
					if !slices.Contains(ok, events) {
						t.Errorf("after %d bytes: %s", after, events)
					}
					if after > 200 {
						t.Fatalf("after %d bytes: %s", after, events)
					}
					cl.Connect()
					cl.await(t, 1+strings.Count(events, "CON"), "CON")
				}
				teststream.Shutdown(t, c)
			}
		})
	}
}

// TestNothingIsLost checks that every message accepted by Write before Close, CloseWrite or
// Shutdown arrives, however soon those follow.
func TestNothingIsLost(t *testing.T) {
	b := startBroker(t, "max_queued_messages 0\nmax_inflight_messages 1000")
	for _, qos := range []byte{0, 1, 2} {
		for _, end := range []string{"Close", "CloseWrite", "Shutdown"} {
			const n = 300
			topic := fmt.Sprintf("lost/%d/%s", qos, end)
			wait := b.sub(t, n, "-q", fmt.Sprint(qos), "-t", topic)
			c := newContext(t, runtime.Options{}, streamType("s", b.addr, topics(topic, "", qos)))
			conn := teststream.Must(c.Open(t.Context(), "s"))
			var want []string
			for i := range n {
				want = append(want, fmt.Sprint("m", i))
				write(t, conn, want[i])
			}
			var err error
			switch end {
			case "Close":
				err = conn.Close()
			case "CloseWrite":
				err = conn.CloseWrite()
			case "Shutdown":
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				err = c.Shutdown(ctx)
				cancel()
			}
			if err != nil {
				t.Errorf("QoS %d, %s: %v", qos, end, err)
			}
			conn.Close()
			if got := strings.Fields(wait()); !slices.Equal(got, want) {
				t.Errorf("QoS %d, %s: %d of %d messages arrived", qos, end, len(got), n)
			}
		}
	}
	// A Conn for each message.
	const n = 30
	wait := b.sub(t, n, "-q", "2", "-t", "single")
	c := newContext(t, runtime.Options{}, streamType("s", b.addr, topics("single", "", 2)))
	for i := range n {
		conn := teststream.Must(c.Open(t.Context(), "s"))
		write(t, conn, fmt.Sprint(i))
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
	if got := strings.Fields(wait()); len(got) != n {
		t.Errorf("%d of %d single messages arrived", len(got), n)
	}
}
