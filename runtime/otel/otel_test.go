package otel_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/secure-streams/sspolicy/runtime"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/otel"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

func TestHooks(t *testing.T) {
	exporter := tracetest.NewInMemoryExporter()
	tracers := trace.NewTracerProvider(trace.WithSyncer(exporter))
	reader := metric.NewManualReader()
	hooks, err := otel.Hooks(otel.Options{
		TracerProvider: tracers,
		MeterProvider:  metric.NewMeterProvider(metric.WithReader(reader)),
		Propagator:     propagation.TraceContext{},
	})
	if err != nil {
		t.Fatal(err)
	}
	const secret = "s3cret"
	var parents []string
	busy := 1
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		parents = append(parents, r.Header.Get("Traceparent"))
		if busy > 0 {
			busy--
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if r.Header.Get("Authorization") != secret {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		io.Copy(w, r.Body)
	}))
	c, err := runtime.NewContext(&policy.Policy{StreamTypes: []*policy.StreamType{{
		Name: "post", Protocol: policy.ProtocolH1, Endpoint: server.URL + "/?" + secret, Opportunistic: true,
		Retry:    &policy.Retry{Backoff: []time.Duration{time.Millisecond}, Conceal: 1},
		Metadata: []policy.Metadata{{Name: "traceparent", Header: "traceparent:"}, {Name: "token", Header: "authorization:"}},
		HTTP:     &policy.HTTP{Method: "POST"},
	}}}, runtime.Options{
		Transports: []transport.Transport{sshttp.New()}, Hooks: hooks, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	ctx, parent := tracers.Tracer("test").Start(t.Context(), "parent")
	fetch := func(ctx context.Context, token string) {
		c.Fetch(ctx, "post", runtime.WithMetadata("token", token), runtime.WithBody([]byte(secret)))
	}
	fetch(ctx, secret)
	parent.End()
	fetch(t.Context(), "wrong")
	var data metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &data); err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprintf("%+v", data); strings.Contains(text, secret) {
		t.Errorf("the metrics give the secret away: %s", text)
	}
	server.Close()
	fetch(t.Context(), secret)
	c.Close()

	var got []string
	var ids []string
	for _, s := range exporter.GetSpans() {
		if s.Name == "parent" {
			continue
		}
		var events []string
		for _, e := range s.Events {
			events = append(events, e.Name)
		}
		attrs := map[string]string{}
		for _, a := range s.Attributes {
			attrs[string(a.Key)] = a.Value.String()
		}
		inside := s.Parent.SpanID() == parent.SpanContext().SpanID()
		got = append(got, fmt.Sprint(s.Name, " ", inside, " ", attrs["sspolicy.streamtype"], attrs["sspolicy.protocol"], " ",
			attrs["sspolicy.outcome"], " ", attrs["error.type"], " ", s.Status.Code == codes.Error, " ", events))
		ids = append(ids, fmt.Sprintf("00-%s-%s-01", s.SpanContext.TraceID(), s.SpanContext.SpanID()))
		if text := fmt.Sprintf("%+v", s); strings.Contains(text, secret) {
			t.Errorf("the span gives the secret away: %s", text)
		}
	}
	want := []string{
		"sspolicy post true posth1 unreachable other true [UNREACHABLE]",
		"sspolicy post true posth1 ack  false [CONNECTED QOS_ACK_REMOTE DISCONNECTED]",
		"sspolicy post false posth1 nack  true [CONNECTED QOS_NACK_REMOTE DISCONNECTED]",
		"sspolicy post false posth1 unreachable other true [UNREACHABLE]",
		"sspolicy post false posth1 unreachable other true [UNREACHABLE]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("spans:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !slices.Equal(parents, ids[:min(3, len(ids))]) {
		t.Errorf("sent to the server: %q, want %q", parents, ids)
	}

	sums := map[string]int64{}
	for _, m := range data.ScopeMetrics[0].Metrics {
		switch d := m.Data.(type) {
		case metricdata.Sum[int64]:
			for _, p := range d.DataPoints {
				v, _ := p.Attributes.Value("network.io.direction")
				sums[m.Name+" "+v.String()] += p.Value
			}
		case metricdata.Histogram[float64]:
			for _, p := range d.DataPoints {
				sums[m.Name] += int64(p.Count)
			}
		}
	}
	// The body goes out three times: it is sent again after the 503.
	wantSums := map[string]int64{"sspolicy.attempt.duration": 3, "sspolicy.retry.wait": 1, "sspolicy.io receive": 6, "sspolicy.io transmit": 18}
	if fmt.Sprint(sums) != fmt.Sprint(wantSums) {
		t.Errorf("metrics %v, want %v", sums, wantSums)
	}
}
