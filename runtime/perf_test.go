package runtime

import (
	"encoding/json"
	"net"
	"strings"
	"testing"
)

// TestPerfSize checks that the figures stay within lws's limit and are JSON,
// however many addresses a name has.
func TestPerfSize(t *testing.T) {
	p := new(perf)
	for i := range p.took {
		p.took[i] = 1 << 62
	}
	addrs := make([]net.IPAddr, 1000)
	for i := range addrs {
		addrs[i].IP = net.IP("0123456789abcdef")
	}
	p.resolved(addrs, nil)
	p.setStatus(599)
	b := p.take()
	var f struct{ DNS []string }
	if err := json.Unmarshal(b, &f); err != nil || len(b) > maxPerf || len(f.DNS) < 5 {
		t.Errorf("%d bytes, %d addresses, %v: %s", len(b), len(f.DNS), err, b)
	}
	if !strings.Contains(string(b), `"dns_us":4294967295,"dns_disp":1,"sockconn_us":4294967295,`) {
		t.Errorf("%s", b)
	}
	if b := p.take(); b != nil {
		t.Errorf("the second take returns %s", b)
	}
}

// TestPerfNone checks that a stream without "perf" has no overhead.
func TestPerfNone(t *testing.T) {
	l := &link{s: new(Stream), ctx: t.Context()}
	if n := testing.AllocsPerRun(100, func() {
		l.perf.setStatus(200)
		l.deliverPerf(Handlers{})
		if l.runContext() != l.ctx {
			t.Error("the context of Run carries a trace")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
