package system_test

import (
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/secure-streams/sspolicy"
	"github.com/secure-streams/sspolicy/internal/leaktest"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/smd"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/schema"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// policy loads a policy.
func policy(t testing.TB, text string) *sspolicy.Policy {
	t.Helper()
	p, err := sspolicy.Parse("test.json", []byte(text), sspolicy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newContext(t testing.TB, p *policy.Policy) *runtime.Context {
	t.Helper()
	c, err := runtime.NewContext(p, runtime.Options{
		Transports: []transport.Transport{http.New()},
		Logger:     slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// fragment parses a fragment.
func fragment(text string) *schema.Document { return schema.Parse("fragment.json", []byte(text)) }

// portOf returns the port of the URL of a test server.
func portOf(url string) string { return url[strings.LastIndexByte(url, ':')+1:] }

// news collects messages.
type news struct {
	mu   sync.Mutex
	list []string
	more chan struct{}
}

func listen(c *runtime.Context, mask smd.Class) *news {
	n := &news{more: make(chan struct{}, 1000)}
	c.SMD().Register(mask, func(m smd.Message) {
		n.mu.Lock()
		n.list = append(n.list, string(m.Payload))
		n.mu.Unlock()
		n.more <- struct{}{}
	})
	return n
}

// next waits for a message and returns it.
func (n *news) next() string {
	<-n.more
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.list[0]
	n.list = n.list[1:]
	return m
}
