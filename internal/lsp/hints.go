package lsp

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

// inlayHints shows the delays of backoff schemes with their jitter, and the URLs of
// streamtypes.
func (s *server) inlayHints(_ context.Context, snap *snapshot, p inlayHintParams) (any, error) {
	list := []inlayHint{}
	for _, d := range snap.scan().policy.Definitions {
		r := snap.span(d.Value.Span)
		if comparePositions(r.End, p.Range.Start) < 0 || comparePositions(p.Range.End, r.Start) < 0 {
			continue
		}
		add := func(key, label, tooltip string) {
			if set := d.Get(key); set != nil && label != "" {
				list = append(list, inlayHint{snap.text.position(set.Member.Value.Span.End), label, tooltip, true})
			}
		}
		switch d.Section {
		case schema.Retry:
			add("backoff", waits(d), "The wait before each retry, with its jitter")
		case schema.Streams:
			add("endpoint", target(d), "Where this streamtype connects to")
		}
	}
	return list, nil
}

// waits returns the delays of a backoff scheme as ranges.
func waits(d *schema.Definition) string {
	var ms []string
	if set := d.Get("backoff"); set != nil && set.Member.Value.Kind == schema.Number {
		ms = []string{set.Member.Value.Raw()}
	} else {
		ms = stringsOf(set)
	}
	retry := &policy.Retry{}
	for _, text := range ms {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return ""
		}
		retry.Backoff = append(retry.Backoff, time.Duration(n)*time.Millisecond)
	}
	if set := d.Get("jitterpc"); set != nil {
		n, err := strconv.ParseUint(set.Member.Value.Raw(), 10, 8)
		if err != nil {
			return ""
		}
		retry.JitterPercent = uint8(n)
	}
	var list []string
	for i := range min(len(retry.Backoff), math.MaxUint16) {
		least, most := retry.Delay(uint16(i), 0), retry.Delay(uint16(i), math.MaxUint16)
		list = append(list, fmt.Sprintf("%v–%v", least, most.Round(10*time.Millisecond)))
	}
	return strings.Join(list, ", ")
}

// target returns the URL of a streamtype, or "" if that depends on metadata.
func target(d *schema.Definition) string {
	endpoint := d.Text("endpoint")
	protocol, ok := policy.ParseProtocol(d.Protocol())
	port, err := strconv.ParseUint("0"+d.Text("port"), 10, 16)
	if endpoint == "" || strings.Contains(endpoint, "${") || !ok || err != nil || d.Bool("server") {
		return ""
	}
	t, err := policy.ParseTarget(endpoint, &policy.StreamType{Endpoint: endpoint, Port: uint16(port), TLS: d.Bool("tls"), Protocol: protocol})
	if err != nil || t.Network != "tcp" {
		return ""
	}
	schemes := map[string]string{"ws": "ws", "mqtt": "mqtt", "raw": "tcp"}
	scheme, known := schemes[d.Protocol()]
	if !known {
		scheme = "http"
	}
	switch {
	case t.TLS && scheme == "tcp":
		scheme = "tls"
	case t.TLS:
		scheme += "s"
	}
	path := t.Path
	if path == "" && d.Text("http_url") != "" {
		path = "/" + strings.TrimPrefix(d.Text("http_url"), "/")
	}
	return "→ " + scheme + "://" + t.Address() + path
}
