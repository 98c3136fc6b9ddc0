package farm_test

import (
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/runtime/tlssession/farm"
)

// TestSimulation runs a farm in virtual time. Clients return to random members, and offer
// their latest ticket: an id, and an encrypted session. FARM is the number of clients for
// 200 members, as in docs/sessions.md.
func TestSimulation(t *testing.T) {
	members, clients := 6, 200
	if n, err := strconv.Atoi(os.Getenv("FARM")); err == nil {
		members, clients = 200, n
	}
	const every = 10 * time.Minute // between two visits of a client
	template()
	encoded, _ := template().Bytes()
	synctest.Test(t, func(t *testing.T) {
		var n network
		var nodes []*node
		for range members {
			nodes = append(nodes, n.start(t, func(o *farm.Options) { o.Rotate, o.Beat = time.Hour, time.Minute }))
		}
		time.Sleep(10 * time.Minute) // until all are ready
		type client struct{ id, ticket []byte }
		all := make([]client, clients)
		visit := func(c *client, m *node) (ids, tickets bool) {
			use := func(config *tls.Config, ticket *[]byte) bool {
				s, err := config.UnwrapSession(*ticket, tls.ConnectionState{})
				if err != nil {
					t.Fatal(err)
				}
				state, err := tls.ParseSessionState(encoded)
				if err == nil {
					*ticket, err = config.WrapSession(tls.ConnectionState{}, state)
				}
				if err != nil {
					t.Fatal(err)
				}
				return s != nil
			}
			return use(m.server, &c.id), use(m.ticket, &c.ticket)
		}
		var b strings.Builder
		// phase runs the clients for some time, and returns the hit rates.
		phase := func(name string, d time.Duration) (ids, tickets float64) {
			n.mu.Lock()
			n.count, n.bytes = 0, 0
			n.mu.Unlock()
			visits, byID, byTicket := int(d/every)*clients, 0, 0
			for range visits {
				time.Sleep(d / time.Duration(visits))
				i, k := visit(&all[rand.IntN(clients)], nodes[rand.IntN(members)])
				if i {
					byID++
				}
				if k {
					byTicket++
				}
			}
			ids, tickets = float64(byID)/float64(visits), float64(byTicket)/float64(visits)
			n.mu.Lock()
			defer n.mu.Unlock()
			fmt.Fprintf(&b, "\n%-12s hit rate %.4f by id, %.4f by ticket; %.2f messages and %.0f bytes a visit, %.1f messages/s",
				name, ids, tickets, float64(n.count)/float64(visits), float64(n.bytes)/float64(visits), float64(n.count)/d.Seconds())
			return ids, tickets
		}
		phase("start", time.Hour)
		if ids, tickets := phase("normal", 20*time.Minute); ids < 0.98 || tickets < 0.98 {
			t.Errorf("normal: %f by id, %f by ticket", ids, tickets)
		}
		if _, tickets := phase("rotation", 70*time.Minute); tickets < 0.99 {
			t.Errorf("rotation: %f by ticket", tickets)
		}
		for _, m := range nodes[members/2:] {
			m.bus.setDown(true)
		}
		if ids, tickets := phase("partition", 20*time.Minute); ids < 0.2 || tickets < 0.99 {
			t.Errorf("partition: %f by id, %f by ticket", ids, tickets)
		}
		for _, m := range nodes[members/2:] {
			m.bus.setDown(false)
		}
		time.Sleep(10 * time.Minute) // until all are ready
		if ids, tickets := phase("healed", 20*time.Minute); ids < 0.95 || tickets < 0.99 {
			t.Errorf("healed: %f by id, %f by ticket", ids, tickets)
		}
		for _, m := range nodes {
			if s := m.Stats(); s.Dropped+s.Rejected > 0 {
				t.Errorf("%+v", s)
			}
		}
		s := nodes[0].cache.Stats()
		t.Logf("%d members, %d clients, a visit every %v; %d sessions and %d bytes in a member%s", members, clients, every, s.Sessions, s.Bytes, &b)
	})
}

// TestSimulationKeys runs a farm that shares only ticket keys. Each client returns once per
// phase, to a random member. FARMKEYS is the number of clients for 200 members.
func TestSimulationKeys(t *testing.T) {
	members, clients := 6, 200
	if n, err := strconv.Atoi(os.Getenv("FARMKEYS")); err == nil {
		members, clients = 200, n
	}
	encoded, _ := template().Bytes()
	synctest.Test(t, func(t *testing.T) {
		var n network
		var nodes []*node
		for range members {
			nodes = append(nodes, n.start(t, func(o *farm.Options) { o.Cache, o.Rotate, o.Beat = nil, time.Hour, time.Minute }))
		}
		time.Sleep(10 * time.Minute) // until all are ready
		tickets := make([][]byte, clients)
		var b strings.Builder
		phase := func(name string, d time.Duration) (rate float64) {
			n.mu.Lock()
			n.count, n.bytes = 0, 0
			n.mu.Unlock()
			resumed, pause := 0, max(clients/1000, 1)
			for i := range tickets {
				if i%pause == 0 {
					time.Sleep(d * time.Duration(pause) / time.Duration(clients))
				}
				config := nodes[rand.IntN(members)].ticket
				if tickets[i] != nil {
					s, err := config.UnwrapSession(tickets[i], tls.ConnectionState{})
					if err != nil {
						t.Fatal(err)
					}
					if s != nil {
						resumed++
					}
				}
				state, err := tls.ParseSessionState(encoded)
				if err == nil {
					tickets[i], err = config.WrapSession(tls.ConnectionState{}, state)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			rate = float64(resumed) / float64(clients)
			n.mu.Lock()
			defer n.mu.Unlock()
			fmt.Fprintf(&b, "\n%-12s hit rate %.4f; %.1f messages/s, %.0f bytes/s", name, rate, float64(n.count)/d.Seconds(), float64(n.bytes)/d.Seconds())
			return rate
		}
		phase("start", 10*time.Minute)
		for _, name := range []string{"normal", "rotation", "partition", "healed"} {
			switch name {
			case "rotation":
				time.Sleep(time.Hour)
			case "partition", "healed":
				for _, m := range nodes[members/2:] {
					m.bus.setDown(name == "partition")
				}
			}
			if rate := phase(name, 10*time.Minute); rate < 0.999 {
				t.Errorf("%s: %f", name, rate)
			}
		}
		for _, m := range nodes {
			if s := m.Stats(); s.Dropped+s.Rejected > 0 {
				t.Errorf("%+v", s)
			}
		}
		t.Logf("%d members, %d clients%s", members, clients, &b)
	})
}
