package proxy

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// Metrics counts the events of the streams of a context, for a program that has no
// other metrics; package runtime/otel reports to OpenTelemetry. The zero value is
// ready to use, by one context.
type Metrics struct {
	states sync.Map // map from stateKey to *atomic.Uint64
}

type stateKey struct {
	streamtype string
	state      policy.State
}

// Hooks returns the hooks that count.
func (m *Metrics) Hooks() runtime.Hooks {
	return runtime.Hooks{State: func(_ context.Context, s *runtime.Stream, state policy.State, _ uint32) {
		key := stateKey{s.String(), state}
		n, ok := m.states.Load(key)
		if !ok {
			n, _ = m.states.LoadOrStore(key, new(atomic.Uint64))
		}
		n.(*atomic.Uint64).Add(1)
	}}
}

// WriteMetrics writes the counts of a Proxy, and those of m unless it is nil, in
// the text format of Prometheus.
func (p *Proxy) WriteMetrics(w io.Writer, m *Metrics) error {
	var b strings.Builder
	family := func(name, kind, help string) {
		fmt.Fprintf(&b, "# HELP sspolicy_proxy_%s %s\n# TYPE sspolicy_proxy_%s %s\n", name, help, name, kind)
	}
	s := p.Stats()
	for _, f := range []struct {
		name, kind, help string
		value            uint64
	}{
		{"links", "gauge", "Links that exist.", uint64(s.Links)},
		{"links_opened_total", "counter", "Links that were accepted.", s.LinksOpened},
		{"links_refused_total", "counter", "Links that were closed at once, since there were too many.", s.LinksRefused},
		{"links_failed_total", "counter", "Links that broke the protocol or a limit.", s.LinksFailed},
		{"streams_total", "counter", "Streams that clients opened.", s.Streams},
		{"streams_refused_total", "counter", "Streams that clients wanted and did not get.", s.StreamsRefused},
		{"frames_received_total", "counter", "Frames from clients.", s.FramesIn},
		{"frames_sent_total", "counter", "Frames to clients.", s.FramesOut},
		{"payload_received_bytes_total", "counter", "Payload from clients.", s.PayloadIn},
		{"payload_sent_bytes_total", "counter", "Payload to clients.", s.PayloadOut},
	} {
		family(f.name, f.kind, f.help)
		fmt.Fprintf(&b, "sspolicy_proxy_%s %d\n", f.name, f.value)
	}
	p.mu.Lock()
	budgets := p.budgets
	p.mu.Unlock()
	family("role_links", "gauge", "Links that a role has.")
	for _, r := range budgets {
		fmt.Fprintf(&b, "sspolicy_proxy_role_links{role=%s} %d\n", strconv.Quote(r.role.Name), r.links.Load())
	}
	family("role_buffered_bytes", "gauge", "Bytes that wait in the links of a role.")
	for _, r := range budgets {
		fmt.Fprintf(&b, "sspolicy_proxy_role_buffered_bytes{role=%s} %d\n", strconv.Quote(r.role.Name), r.buffered.Load())
	}
	if m != nil {
		family("stream_states_total", "counter", "States that streams reached.")
		for _, line := range m.lines() {
			b.WriteString(line)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// lines returns the counts, sorted.
func (m *Metrics) lines() (lines []string) {
	m.states.Range(func(key, n any) bool {
		k := key.(stateKey)
		lines = append(lines, fmt.Sprintf("sspolicy_proxy_stream_states_total{streamtype=%s,state=%s} %d\n",
			strconv.Quote(k.streamtype), strconv.Quote(k.state.String()), n.(*atomic.Uint64).Load()))
		return true
	})
	slices.Sort(lines)
	return lines
}
