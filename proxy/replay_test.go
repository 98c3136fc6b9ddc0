package proxy

import (
	"bytes"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/internal/sspctrace"
	"github.com/secure-streams/sspolicy/internal/sspcwire"
)

// differs lists the recorded links on which the proxy intentionally differs from that of
// lws.
var differs = map[string]string{
	"h-handmade-client-vs-real-proxy/no bytes at all (handshake timeout)":                                   "see TestHandshakeTimeout",
	"h-handmade-client-vs-real-proxy/unknown streamtype; client leaves it open and stays silent":            "closes",
	"h-handmade-client-vs-real-proxy/unknown streamtype then ONWARD_CONNECT":                                "closes",
	"h-handmade-client-vs-real-proxy/unknown streamtype then PAYLOAD_LENGTH_HINT / TIMEOUT / TXCR":          "closes",
	"h-handmade-client-vs-real-proxy/METADATA zero-length value":                                            "stays open",
	"h-handmade-client-vs-real-proxy/TX_PAYLOAD queued before connect finishes":                             "stays open",
	"h-handmade-client-vs-real-proxy/everything in one write incl. metadata":                                "stays open",
	"h-handmade-client-vs-real-proxy/TX_PAYLOAD rem=15 (<16)":                                               "closes",
	"h-handmade-client-vs-real-proxy/ONWARD_CONNECT with rem=1: the extra byte is taken as next frame type": "closes, and the states of the request are lost",
	"h-handmade-client-vs-real-proxy/server:true streamtype":                                                "see TestRefused; lws crashes",
	"h-handmade-client-vs-real-proxy/captive_portal/_lws_smd streamtype with class mask 0xffffffff":         "see TestSMD; lws names it (null)",
	"h2-server-stream/server:true streamtype, no ONWARD_CONNECT, then an inbound http GET to its port":      "see TestRefused",
	"g1-metadata-not-in-policy-hangup/UDS connection 1":                                                     "closes, and the states of the request are lost",
}

// A record is what a client received on a link.
type record struct {
	metadata map[string]bool
	events   []string // of payload, see client.until
	body     []byte
	inside   bool
	abridged bool // body is not known
}

func (r *record) add(event string, data []byte) {
	switch {
	case strings.HasPrefix(event, "meta "):
		if r.metadata == nil {
			r.metadata = map[string]bool{}
		}
		r.metadata[event[:min(len(event), 20)]] = true // traces contain no more
	case strings.HasPrefix(event, "rx"):
		r.body = append(r.body, data...)
		end := strings.Contains(event, "EOM")
		if !r.inside {
			r.events = append(r.events, event)
		} else if end {
			r.events[len(r.events)-1] += " EOM"
		}
		r.inside = !end
	}
}

// TestTraces replays the bytes of recorded clients. It compares the states byte by byte,
// and metadata and payload, with the answers of the proxy of lws.
func TestTraces(t *testing.T) {
	links, err := sspctrace.Links()
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, newOrigin(t).streamtypes()...)
	for _, l := range links {
		if strings.HasPrefix(l.File, "i") { // of a hand-made proxy
			continue
		}
		difference := differs[l.Name()]
		if strings.HasPrefix(difference, "see ") {
			continue
		}
		t.Run(strings.ReplaceAll(l.Name(), " ", "_"), func(t *testing.T) {
			t.Parallel()
			c := f.dial(t)
			var want, got record
			wire := sspcwire.NewDecoder(sspcwire.FromProxy)
			for _, s := range l.Steps {
				if !s.FromProxy {
					c.Write(s.Bytes) // may be closed already
					continue
				}
				frame, n, err := wire.Next(s.Bytes)
				if err != nil || n != len(s.Bytes) {
					t.Fatal(n, err)
				}
				event, data, err := describe(t, frame)
				if err != nil {
					t.Fatal(err)
				}
				want.add(event, data)
				want.abridged = want.abridged || s.Abridged
				if frame.Type != sspcwire.TypeConnState && frame.Type != sspcwire.TypeCreateResult {
					continue
				}
				for {
					f, err := c.r.Next()
					if err == io.EOF && strings.HasSuffix(difference, "are lost") {
						return
					}
					if err != nil {
						t.Fatalf("%v, want %s", err, event)
					}
					answer, data, err := describe(t, f)
					if err != nil {
						t.Fatal(err)
					}
					got.add(answer, data)
					if f.Type != frame.Type {
						continue
					}
					if answer != event || !bytes.Equal(f.Body, frame.Body) {
						t.Fatalf("%s % x, want %s % x", answer, f.Body, event, frame.Body)
					}
					break
				}
			}
			closes := l.Closed == "proxy" && difference == "" || strings.HasPrefix(difference, "closes") || strings.HasPrefix(l.File, "b-")
			if closes {
				c.end()
			}
			for len(got.body) < len(want.body) && !closes {
				event, data, err := c.next()
				if err != nil {
					t.Fatalf("%v after %d of %d bytes", err, len(got.body), len(want.body))
				}
				got.add(event, data)
			}
			ours := l.File == "j1-h2-post-txcr" || l.File == "f2-rideshare" // of another origin
			if m := slices.Sorted(maps.Keys(want.metadata)); !ours && !slices.Equal(m, slices.Sorted(maps.Keys(got.metadata))) {
				t.Errorf("metadata %q, want %q", slices.Sorted(maps.Keys(got.metadata)), m)
			}
			if strings.Contains(l.Title, "without ONWARD_CONNECT") {
				return // lws loses the payload
			}
			if !ours && !slices.Equal(got.events, want.events) {
				t.Errorf("payload %q, want %q", got.events, want.events)
			}
			if !ours && (len(got.body) != len(want.body) || !want.abridged && !bytes.Equal(got.body, want.body)) {
				t.Errorf("%d bytes of payload, want %d: %q, want %q", len(got.body), len(want.body), got.body, want.body)
			}
		})
	}
}
