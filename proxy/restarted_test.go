package proxy

import (
	"testing"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// TestRestartedMessage checks that a message replaces an unfinished one, whose first part the
// client sent before it received DISCONNECTED. The peer never receives both as one message.
func TestRestartedMessage(t *testing.T) {
	const som, eom = policy.FlagSOM, policy.FlagEOM
	t.Run("queued", func(t *testing.T) {
		var b inbox
		b.put([]byte("first"), som|eom, true)
		b.put([]byte("part"), som, true)
		b.put([]byte("of it"), 0, true)
		b.put([]byte("second"), som|eom, true)
		buf := make([]byte, 100)
		for _, want := range []string{"first", "second"} {
			if n, flags, ok := b.get(buf); string(buf[:n]) != want || flags != som|eom || !ok || b.broken {
				t.Errorf("%q with flags %d, %v, broken %v; want %q", buf[:n], flags, ok, b.broken, want)
			}
		}
		if n, _, ok := b.get(buf); ok || b.size != 0 {
			t.Errorf("%q is left, of %d bytes", buf[:n], b.size)
		}
	})
	t.Run("taken", func(t *testing.T) {
		f := newFixture(t, newOrigin(t).streamtypes()...)
		c := f.open(t, "spam", 0)
		c.connect()
		c.expect("CREATE, CRE, CNG, CON")
		c.tx("part", som)
		l := f.all()[0]
		eventually(t, "the stream takes the first part", func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.in.inside
		})
		c.tx("second", som|eom)
		c.expect("DIS")
		c.connect()
		c.expect("CNG, CON")
		if body := c.expect("rx SOM EOM"); body != "second" {
			t.Errorf("%q", body)
		}
	})
	t.Run("raw", func(t *testing.T) { // has no messages
		var b inbox
		b.put([]byte("one"), som, false)
		b.put([]byte("two"), som, false)
		buf := make([]byte, 10)
		for _, want := range []string{"one", "two"} {
			if n, flags, ok := b.get(buf); string(buf[:n]) != want || flags != som || !ok || b.broken {
				t.Errorf("%q %v %v, broken %v, want %q", buf[:n], flags, ok, b.broken, want)
			}
		}
	})
}
