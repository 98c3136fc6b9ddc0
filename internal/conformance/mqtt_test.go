//go:build linux

package conformance

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/faulttest/link"
	"github.com/secure-streams/sspolicy/internal/testbroker"
	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/mqtt"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// startMosquitto runs a broker until the end of the test, with a port that rejects every
// client. more is added to its configuration.
func startMosquitto(t *testing.T, own *testcert.Authority, more string) (plain, tls, closed netip.AddrPort) {
	t.Helper()
	cert := own.Certify(testcert.Ed25519Key(), time.Now().Add(-time.Hour), "127.0.0.1")
	pem := filepath.Join(t.TempDir(), "server.pem")
	testcert.WritePEM(pem, cert)
	plain, tls, closed = testserver.FreePort(t), testserver.FreePort(t), testserver.FreePort(t)
	testbroker.Start(t, fmt.Sprintf(`%s
per_listener_settings true
listener %d 127.0.0.1
allow_anonymous true
listener %d 127.0.0.1
allow_anonymous true
certfile %s
keyfile %s
listener %d 127.0.0.1
allow_anonymous false
`, more, plain.Port(), tls.Port(), pem, pem, closed.Port()))
	return plain, tls, closed
}

// mqttType makes a streamtype subscribe to its own messages over mqtt.
func mqttType(qos byte) change {
	return func(st *policy.StreamType) {
		st.Protocol, st.HTTP = policy.ProtocolMQTT, nil
		st.MQTT = &policy.MQTT{Topic: "echo", Subscribe: "echo", QoS: qos, CleanStart: true}
	}
}

// TestMQTT runs the sequences of docs/runtime.md against mosquitto.
func TestMQTT(t *testing.T) {
	checkLeaks(t)
	own, other := testcert.New("own"), testcert.New("other")
	plain, tls, closed := startMosquitto(t, own, "")
	const echo = "rx(5 bytes, flags 3)"
	refused := func(err error) bool { r, ok := errors.AsType[*mqtt.RefusedError](err); return ok && r.Code == 5 }
	for _, r := range []struct {
		name  string
		addr  netip.AddrPort
		st    change
		want  string // without the echo, which may come before or after ACK
		cause func(error) bool
	}{
		{"QoS 0", plain, mqttType(0), "CRE POL CNG CON tx ACK", nil},
		{"QoS 1", plain, mqttType(1), "CRE POL CNG CON tx ACK", nil},
		{"QoS 2", plain, mqttType(2), "CRE POL CNG CON tx ACK", nil},
		{"nailed_up", plain, func(st *policy.StreamType) { st.NailedUp = true }, "CRE CNG CON tx ACK", nil},
		{"TLS", tls, secure(own.Store()), "CRE POL CNG CON tx ACK", nil},
		{"wrong store", tls, secure(other.Store()), unreachable, isTLS},
		{"TLS to a plain port", plain, secure(own.Store()), unreachable, nil},
		{"plain to a TLS port", tls, mqttType(0), unreachable, nil},
		{"nobody there", testserver.Refused(t), mqttType(0), unreachable, nil},
		{"not allowed", closed, mqttType(0), unreachable, refused},
	} {
		t.Run(r.name, func(t *testing.T) {
			c := newContext(t, runtime.Options{}, streamType(r.addr, mqttType(1), r.st, conceal(2)))
			tr := newTrace(nil)
			tr.text, tr.noteTx = "hello", true
			s := newStream(t, c, tr.handlers())
			s.RequestTx()
			done := func() bool { return tr.Count("ACK") == 1 && tr.Count(echo) == 1 || tr.Count("ARF") == 1 }
			if !tr.Await(done) {
				t.Fatalf("stuck after %s (%v)", tr, s.Err())
			}
			if got := strings.Replace(tr.String(), " "+echo, "", 1); got != r.want {
				t.Errorf("got %s, want %s (%v)", tr, r.want, s.Err())
			}
			if r.cause != nil && !r.cause(s.Err()) {
				t.Errorf("the cause is %v", s.Err())
			}
		})
	}
	t.Run("faults", func(t *testing.T) { mqttFaults(t, plain) })
}

// mqttFaults breaks connections in the middle of a short exchange.
func mqttFaults(t *testing.T, server netip.AddrPort) {
	endings := []string{"CRE POL CNG UNR ARF", "CRE POL CNG CON DIS", "CRE POL CNG CON tx DIS", "CRE POL CNG CON tx ACK DIS", "CRE POL CNG CON tx ACK"}
	for _, f := range []link.Fault{{Kind: link.Reset}, {Kind: link.Reset, Reply: true}, {Kind: link.FIN}, {Kind: link.FIN, Reply: true}} {
		t.Run(fmt.Sprintf("kind %v reply %v", f.Kind, f.Reply), func(t *testing.T) {
			counts := map[string]int{}
			for after := 0; counts[endings[4]] == 0 && after < 300; after += 3 {
				f.After = after
				p := newProxy(server.String(), func() link.Fault { return f })
				st := streamType(p.Addr(), mqttType(2), func(st *policy.StreamType) { st.MQTT.Subscribe = "" })
				c := newContext(t, runtime.Options{}, st)
				tr := newTrace(nil)
				tr.text, tr.noteTx = "hello", true
				newStream(t, c, tr.handlers()).RequestTx()
				if !tr.Await(func() bool { return tr.ends()+tr.Count("ACK") > 0 }) {
					t.Fatalf("after %d bytes: stuck after %s", after, tr)
				}
				got := tr.String()
				if !slices.Contains(endings, got) {
					t.Errorf("after %d bytes: %s", after, got)
				}
				counts[got]++
				teststream.Shutdown(t, c)
				p.Close()
			}
			if counts[endings[0]] == 0 || counts[endings[4]] == 0 {
				t.Errorf("some endings did not occur: %v", counts)
			}
		})
	}
}
