package testfarm

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/runtime/tlssession"
	"github.com/secure-streams/sspolicy/runtime/tlssession/farm"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A counter counts log messages.
type counter struct{ n atomic.Int64 }

func (c *counter) Warn(string, ...any)  { c.n.Add(1) }
func (c *counter) Error(string, ...any) { c.n.Add(1) }

// waitLimit limits the time until the members agree.
const waitLimit = 30 * time.Second

// A test is a farm of two members.
type test struct {
	*testing.T
	ca           *testcert.Authority
	members      []*member
	ids, tickets *balancer
}

// Run tests a bus. down and up make it unreachable and reachable again. attack is a
// bus of the same name.
func Run(t *testing.T, url string, attack farm.Bus, down, up func()) {
	f := &test{T: t, ca: testcert.New("farm")}
	cert := filepath.Join(t.TempDir(), "cert.pem")
	testcert.WritePEM(cert, f.ca.Certify(testcert.Key(), time.Now().Add(-time.Hour), "localhost"))
	for range 2 {
		f.members = append(f.members, start(t, url, cert))
	}
	f.ids = balance(t, f.members[0].ids, f.members[1].ids)
	f.tickets = balance(t, f.members[0].tickets, f.members[1].tickets)
	f.agree()

	for _, b := range []*balancer{f.ids, f.tickets} {
		for _, version := range []string{"-tls1_2", "-tls1_3"} {
			f.openssl(b, version)
		}
		f.client(b)
	}
	f.reconnect()
	f.rotation()
	f.poison(attack)
	f.outage(down, up)
}

// agree waits until the members have the same sessions and keys.
func (f *test) agree() []status {
	f.Helper()
	var all []status
	for end := time.Now().Add(waitLimit); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		all = nil
		same := true
		for _, m := range f.members {
			s := m.status(f.T)
			all = append(all, s)
			same = same && s.Connected && s.Members == len(f.members) && s.Keys > 0 && s.Queued == 0 && s.Sessions == all[0].Sessions && s.KeyHash == all[0].KeyHash
		}
		if same {
			return all
		}
	}
	f.Fatalf("the members do not agree: %+v", all)
	return nil
}

// sClient runs openssl s_client and returns its output.
func (f *test) sClient(addr string, args ...string) string {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "openssl", append([]string{"s_client", "-connect", addr, "-servername", "localhost", "-ign_eof"}, args...)...).CombinedOutput()
	if ctx.Err() != nil || !bytes.Contains(out, []byte("member ")) {
		f.Fatalf("openssl: %v\n%s", err, out)
	}
	return string(out)
}

func reused(out string) bool { return strings.Contains(out, "Reused, TLS") }

func memberOf(out string) string {
	_, after, _ := strings.Cut(out, "member ")
	name, _, _ := strings.Cut(after, "\n")
	return name
}

// openssl resumes a session from a file on both members.
func (f *test) openssl(b *balancer, version string) {
	f.Helper()
	file := filepath.Join(f.TempDir(), "session")
	first := f.sClient(b.addr(), version, "-sess_out", file)
	if reused(first) {
		f.Error("openssl resumed without a session")
	}
	f.agree()
	names := map[string]bool{}
	for range 4 {
		out := f.sClient(b.addr(), version, "-sess_in", file)
		if !reused(out) {
			f.Errorf("%s: openssl has not resumed", version)
		}
		names[memberOf(out)] = true
	}
	if len(names) != len(f.members) {
		f.Errorf("openssl reached %d members", len(names))
	}
}

// dial connects to a member, and reports whether it has resumed.
func (f *test) dial(addr string, config *tls.Config) bool {
	f.Helper()
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", addr, config)
	if err != nil {
		f.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if text, err := io.ReadAll(c); err != nil || memberOf(string(text)) == "" {
		f.Fatalf("%q %v", text, err)
	}
	return c.ConnectionState().DidResume
}

// config returns a config with sessions of this module's client.
func (f *test) config() *tls.Config {
	config := &tls.Config{RootCAs: f.ca.Pool(), ServerName: "localhost"}
	tlssession.NewClients(0).Client(transport.Scope{}, config)
	return config
}

// client resumes in each handshake except the first.
func (f *test) client(b *balancer) {
	f.Helper()
	config := f.config()
	for i := range 6 {
		if got := f.dial(b.addr(), config); got != (i > 0) {
			f.Errorf("handshake %d: resumed %v", i, got)
		}
		f.agree()
	}
}

// reconnect lets openssl connect six times in a row.
func (f *test) reconnect() {
	f.Helper()
	out := f.sClient(f.tickets.addr(), "-tls1_2", "-reconnect")
	if n := strings.Count(out, "Reused, TLS"); n != 5 {
		f.Errorf("openssl -reconnect resumed %d times\n%s", n, out)
	}
}

// rotation resumes a ticket of a key that only decrypts.
func (f *test) rotation() {
	f.Helper()
	before := f.agree()[0]
	config := f.config()
	f.dial(f.tickets.addr(), config)
	for end := time.Now().Add(waitLimit); f.agree()[0].Newest == before.Newest; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			f.Fatal("the keys are not rotated")
		}
	}
	for range 2 {
		if !f.dial(f.tickets.addr(), config) {
			f.Error("not resumed after a rotation")
		}
	}
}

// poison sends messages of an attacker.
func (f *test) poison(bus farm.Bus) {
	f.Helper()
	before := f.agree()
	ctx, cancel := context.WithCancel(f.Context())
	defer cancel()
	received, ready := make(chan []byte, 100), make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		bus.Subscribe(ctx, func() { close(ready) }, func(m []byte) {
			select {
			case received <- m:
			default:
			}
		})
	}()
	<-ready
	for i := range 50 {
		m := bytes.Clone(<-received)
		for len(m) < 100 { // a message of a member
			m = bytes.Clone(<-received)
		}
		if i%2 == 0 {
			m[len(m)-1-i%len(m)] ^= 1
		}
		junk := make([]byte, 1+i*100)
		rand.Read(junk)
		for _, m := range [][]byte{m, junk, m[:len(m)/2]} {
			if err := bus.Publish(ctx, m); err != nil {
				f.Fatal(err)
			}
		}
	}
	cancel()
	<-done
	after := f.agree()
	for i := range after {
		if after[i].Sessions != before[i].Sessions || after[i].Rejected == 0 {
			f.Errorf("after the attack: %+v", after[i])
		}
	}
	f.client(f.ids)
}

// outage disconnects the bus: all handshakes succeed, members resume their own sessions,
// warn once, and agree when the bus is back.
func (f *test) outage(down, up func()) {
	f.Helper()
	warned := f.agree()[0].Warnings
	config, tickets := f.config(), f.config()
	f.dial(f.members[0].ids, config)
	f.dial(f.members[0].tickets, tickets)
	f.agree()
	down()
	for end := time.Now().Add(waitLimit); ; time.Sleep(10 * time.Millisecond) {
		s := f.members[0].status(f.T)
		if !s.Connected && !f.members[1].status(f.T).Connected {
			break
		}
		if time.Now().After(end) {
			f.Fatalf("the members do not notice: %+v", s)
		}
	}
	for range 4 {
		if !f.dial(f.tickets.addr(), tickets) {
			f.Error("a ticket is not resumed without the bus")
		}
	}
	if !f.dial(f.members[1].ids, config) {
		f.Error("a member does not resume what it has")
	}
	fresh := f.config()
	for i, want := range []bool{false, true} {
		if got := f.dial(f.members[0].ids, fresh); got != want {
			f.Errorf("without the bus, handshake %d: resumed %v", i, got)
		}
	}
	if s := f.members[0].status(f.T); s.Warnings != warned+1 || s.Queued == 0 {
		f.Errorf("without the bus: %+v", s)
	}
	up()
	f.agree()
	if !f.dial(f.members[1].ids, fresh) {
		f.Error("a session of the outage is not shared")
	}
	if s := f.members[0].status(f.T); s.Warnings != warned+2 {
		f.Errorf("%d warnings", s.Warnings-warned)
	}
	f.Logf("%+v", f.agree())
}
