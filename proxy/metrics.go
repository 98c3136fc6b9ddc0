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

// A Figure is a metric of a Proxy.
type Figure struct {
	Name    string // such as "links_opened"
	Help    string // a sentence
	Unit    string // "By" for bytes, "" for counts
	Counter bool   // the values only grow
	Values  []FigureValue
}

// A FigureValue is the value of a Figure, for a role if Role is not "".
type FigureValue struct {
	Role  string
	Value int64
}

// Figures returns the metrics of the proxy: those of [Proxy.Stats], and those of its
// roles. Each call returns the same ones in the same order.
func (p *Proxy) Figures() []Figure {
	s := p.Stats()
	p.mu.Lock()
	budgets := p.budgets
	p.mu.Unlock()
	one := func(n uint64) []FigureValue { return []FigureValue{{Value: int64(n)}} }
	var links, buffered []FigureValue
	for _, b := range budgets {
		links = append(links, FigureValue{b.role.Name, b.links.Load()})
		buffered = append(buffered, FigureValue{b.role.Name, b.buffered.Load()})
	}
	return []Figure{
		{"links", "Links that exist.", "", false, one(uint64(s.Links))},
		{"links_opened", "Links that were accepted.", "", true, one(s.LinksOpened)},
		{"links_refused", "Links that were closed at once, since there were too many.", "", true, one(s.LinksRefused)},
		{"links_failed", "Links that broke the protocol or a limit.", "", true, one(s.LinksFailed)},
		{"streams", "Streams that clients opened.", "", true, one(s.Streams)},
		{"streams_refused", "Streams that clients wanted and did not get.", "", true, one(s.StreamsRefused)},
		{"frames_received", "Frames from clients.", "", true, one(s.FramesIn)},
		{"frames_sent", "Frames to clients.", "", true, one(s.FramesOut)},
		{"payload_received_bytes", "Payload from clients.", "By", true, one(s.PayloadIn)},
		{"payload_sent_bytes", "Payload to clients.", "By", true, one(s.PayloadOut)},
		{"role_links", "Links that a role has.", "", false, links},
		{"role_buffered_bytes", "Bytes that wait in the links of a role.", "By", false, buffered},
	}
}

// WriteMetrics writes the figures of a Proxy, and the counts of m unless it is nil, in
// the text format of Prometheus.
func (p *Proxy) WriteMetrics(w io.Writer, m *Metrics) error {
	var b strings.Builder
	family := func(name, kind, help string) {
		fmt.Fprintf(&b, "# HELP sspolicy_proxy_%s %s\n# TYPE sspolicy_proxy_%s %s\n", name, help, name, kind)
	}
	for _, f := range p.Figures() {
		name, kind := f.Name, "gauge"
		if f.Counter {
			name, kind = name+"_total", "counter"
		}
		family(name, kind, f.Help)
		for _, v := range f.Values {
			label := ""
			if v.Role != "" {
				label = "{role=" + strconv.Quote(v.Role) + "}"
			}
			fmt.Fprintf(&b, "sspolicy_proxy_%s%s %d\n", name, label, v.Value)
		}
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
