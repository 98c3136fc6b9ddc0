package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	metrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	traces "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/protobuf/proto"
)

// A collector receives OTLP over HTTP.
type collector struct {
	mu      sync.Mutex
	figures map[string]int64  // sums by name
	spans   map[string]string // outcomes by name
	service string
	headers http.Header
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.Header.Get("Content-Type") != "application/x-protobuf" {
		http.Error(w, "not OTLP", http.StatusBadRequest)
		return
	}
	c.headers = r.Header
	switch r.URL.Path {
	case "/v1/metrics":
		var m metrics.ExportMetricsServiceRequest
		err = proto.Unmarshal(body, &m)
		for _, rm := range m.ResourceMetrics {
			c.service = value(rm.Resource.Attributes, "service.name")
			for _, sm := range rm.ScopeMetrics {
				for _, metric := range sm.Metrics {
					for _, p := range metric.GetSum().GetDataPoints() {
						c.figures[metric.Name] += p.GetAsInt()
					}
					for _, p := range metric.GetHistogram().GetDataPoints() {
						c.figures[metric.Name] += int64(p.GetCount())
					}
				}
			}
		}
	case "/v1/traces":
		var t traces.ExportTraceServiceRequest
		err = proto.Unmarshal(body, &t)
		for _, rs := range t.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				for _, span := range ss.Spans {
					c.spans[span.Name] = value(span.Attributes, "sspolicy.outcome")
				}
			}
		}
	default:
		http.NotFound(w, r)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

func value(attributes []*common.KeyValue, key string) string {
	for _, a := range attributes {
		if a.Key == key {
			return a.Value.GetStringValue()
		}
	}
	return ""
}

// TestProxyOTLP runs a proxy that reports to a collector, which receives the rest when the
// proxy ends.
func TestProxyOTLP(t *testing.T) {
	c := &collector{figures: map[string]int64{}, spans: map[string]string{}}
	server := httptest.NewServer(c)
	defer server.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-token=secret")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=gateway")
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }))
	defer origin.Close()
	dir := t.TempDir()
	file, address := filepath.Join(dir, "policy.json"), "unix:"+filepath.Join(dir, "proxy")
	writeProxyPolicy(t, file, "get", origin.URL)
	p := startProxy(t, "--listen", address, file)
	p.log("listening")
	if got := get(t, address, "get"); got != "hello" {
		t.Errorf("answer %q", got)
	}
	p.stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, want := range map[string]int64{
		"sspolicy.proxy.links_opened": 1, "sspolicy.proxy.streams": 1, "sspolicy.proxy.payload_sent_bytes": 5,
		"sspolicy.attempt.duration": 1, "sspolicy.io": 5,
	} {
		if c.figures[name] != want {
			t.Errorf("%s is %d, want %d", name, c.figures[name], want)
		}
	}
	if c.spans["sspolicy get"] != "ack" {
		t.Errorf("spans %v", c.spans)
	}
	if c.service != "gateway" || c.headers.Get("X-Token") != "secret" {
		t.Errorf("service %q, headers %v", c.service, c.headers)
	}
}

// TestProxyOTLPSettings checks environments that request nothing, or something unsupported.
func TestProxyOTLPSettings(t *testing.T) {
	for _, tt := range []struct {
		name, set string
		err       string
	}{
		{"none", "", ""},
		{"disabled", "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1 OTEL_SDK_DISABLED=true", ""},
		{"no exporter", "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1 OTEL_TRACES_EXPORTER=none OTEL_METRICS_EXPORTER=none", ""},
		{"grpc", "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1 OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc is not supported: want http/protobuf"},
		{"grpc for metrics", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=http://127.0.0.1:1 OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=grpc", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=grpc is not supported: want http/protobuf"},
		{"no URL", "OTEL_EXPORTER_OTLP_ENDPOINT=127.0.0.1:1", "OTEL_EXPORTER_OTLP_ENDPOINT=127.0.0.1:1: want a URL such as http://localhost:4318"},
		{"no URL for traces", "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1 OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=localhost:1", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=localhost:1: want a URL such as http://localhost:4318"},
		{"a URL of another scheme", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=grpc://localhost:4317", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=grpc://localhost:4317: want a URL such as http://localhost:4318"},
		{"console", "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1 OTEL_TRACES_EXPORTER=console", "OTEL_TRACES_EXPORTER=console is not supported: want otlp or none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for setting := range strings.FieldsSeq(tt.set) {
				name, value, _ := strings.Cut(setting, "=")
				t.Setenv(name, value)
			}
			s := new(proxyServer)
			_, end, err := s.export(context.Background())
			end()
			text := ""
			if err != nil {
				text = err.Error()
			}
			if text != tt.err || s.exporter != nil {
				t.Errorf("error %q, want %q; an exporter: %v", text, tt.err, s.exporter != nil)
			}
		})
	}
}
