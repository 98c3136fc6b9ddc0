// Package otel reports the events of streams to OpenTelemetry.
//
//	hooks, err := otel.Hooks(otel.Options{})
//	...
//	c, err := runtime.NewContext(policy, runtime.Options{Hooks: hooks})
//
// Each attempt, together with its connection, is a span "sspolicy <streamtype>" of
// kind client. It is a child of the span in the context of Fetch, Open or
// WithContext. Its events are the states.
//
// The metrics are
//
//	sspolicy.attempt.duration  histogram, s  from the start of an attempt to its end
//	sspolicy.retry.wait        histogram, s  waits before retries
//	sspolicy.io                counter, By   payload, by direction
//
// No attribute contains metadata, payload or the text of an error, since these may
// be secret. The attribute sspolicy.outcome is how an attempt ended: "ack", "nack",
// "done", "unreachable", "lost" or "closed". error.type is why one failed:
// "timeout", "dns", "tls", "disconnected", "closed" or "other".
package otel

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/secure-streams/sspolicy/runtime"
)

const scope = "github.com/secure-streams/sspolicy/runtime/otel"

// Options configure the hooks. The zero value means the global providers.
type Options struct {
	TracerProvider trace.TracerProvider
	MeterProvider  metric.MeterProvider

	// Propagator, if not nil, inserts the span into metadata of the stream: into
	// the items that the policy declares under the names of its fields, such as
	// {"traceparent": "traceparent:"}.
	Propagator propagation.TextMapPropagator
}

// Hooks returns hooks that report to OpenTelemetry.
func Hooks(o Options) (runtime.Hooks, error) {
	if o.TracerProvider == nil {
		o.TracerProvider = otel.GetTracerProvider()
	}
	if o.MeterProvider == nil {
		o.MeterProvider = otel.GetMeterProvider()
	}
	r := &reporter{tracer: o.TracerProvider.Tracer(scope), propagator: o.Propagator}
	meter := o.MeterProvider.Meter(scope)
	var errs [3]error
	r.duration, errs[0] = meter.Float64Histogram("sspolicy.attempt.duration", metric.WithUnit("s"),
		metric.WithDescription("From the start of an attempt to its end."))
	r.wait, errs[1] = meter.Float64Histogram("sspolicy.retry.wait", metric.WithUnit("s"),
		metric.WithDescription("Waits before retries."))
	r.io, errs[2] = meter.Int64Counter("sspolicy.io", metric.WithUnit("By"),
		metric.WithDescription("Payload."))
	if err := errors.Join(errs[:]...); err != nil {
		return runtime.Hooks{}, err
	}
	return runtime.Hooks{State: r.state, Wait: r.waits, Rx: r.transfer("receive"), Tx: r.transfer("transmit")}, nil
}

type reporter struct {
	tracer     trace.Tracer
	propagator propagation.TextMapPropagator
	duration   metric.Float64Histogram
	wait       metric.Float64Histogram
	io         metric.Int64Counter
	attempts   sync.Map // map from *runtime.Stream to its current *attempt
}

// An attempt is guarded by the order of the hooks of its stream.
type attempt struct {
	span    trace.Span
	start   time.Time
	outcome string // so far; "" if there is none
}

func (r *reporter) state(ctx context.Context, s *runtime.Stream, state runtime.State, _ uint32) {
	if state == runtime.StateConnecting {
		r.end(ctx, s, "closed") // the program declined it
		r.begin(ctx, s)
		return
	}
	v, ok := r.attempts.Load(s)
	if !ok {
		return
	}
	a := v.(*attempt)
	a.span.AddEvent(state.String())
	switch state {
	case runtime.StateQoSAckRemote:
		a.outcome = "ack"
	case runtime.StateQoSNackRemote:
		a.outcome = "nack"
	case runtime.StateUnreachable:
		r.end(ctx, s, "unreachable")
	case runtime.StateDisconnected:
		switch err := s.Err(); {
		case err == nil:
			r.end(ctx, s, "done")
		case errors.Is(err, runtime.ErrClosed):
			r.end(ctx, s, "closed")
		default:
			a.outcome = ""
			r.end(ctx, s, "lost")
		}
	case runtime.StateDestroying:
		r.end(ctx, s, "closed")
	}
}

func (r *reporter) begin(ctx context.Context, s *runtime.Stream) {
	ctx, span := r.tracer.Start(ctx, "sspolicy "+s.StreamType().Name,
		trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attributes(s)...))
	r.attempts.Store(s, &attempt{span: span, start: time.Now()})
	if r.propagator == nil {
		return
	}
	carrier := propagation.MapCarrier{}
	r.propagator.Inject(ctx, carrier)
	for _, m := range s.StreamType().Metadata {
		if v, ok := carrier[m.Name]; ok {
			_ = s.SetMetadata(m.Name, v) // a span without it is better than none
		}
	}
}

// end ends the attempt of the stream, if any, with its outcome so far or, if it has
// none, with the given one.
func (r *reporter) end(ctx context.Context, s *runtime.Stream, outcome string) {
	v, ok := r.attempts.LoadAndDelete(s)
	if !ok {
		return
	}
	a := v.(*attempt)
	if a.outcome == "" {
		a.outcome = outcome
	}
	set := append(attributes(s), attribute.String("sspolicy.outcome", a.outcome))
	a.span.SetAttributes(attribute.String("sspolicy.outcome", a.outcome))
	switch a.outcome {
	case "unreachable", "lost":
		kind := attribute.String("error.type", errorType(s.Err()))
		set = append(set, kind)
		a.span.SetAttributes(kind)
		a.span.SetStatus(codes.Error, a.outcome)
	case "nack":
		a.span.SetStatus(codes.Error, a.outcome)
	}
	r.duration.Record(ctx, time.Since(a.start).Seconds(), metric.WithAttributes(set...))
	a.span.End()
}

func (r *reporter) waits(ctx context.Context, s *runtime.Stream, d time.Duration) {
	r.wait.Record(ctx, d.Seconds(), metric.WithAttributes(attributes(s)...))
}

func (r *reporter) transfer(direction string) func(context.Context, *runtime.Stream, int) {
	attr := attribute.String("network.io.direction", direction)
	return func(ctx context.Context, s *runtime.Stream, n int) {
		r.io.Add(ctx, int64(n), metric.WithAttributes(append(attributes(s), attr)...))
	}
}

// attributes returns the attributes of each report on the stream.
func attributes(s *runtime.Stream) []attribute.KeyValue {
	st := s.StreamType()
	return slices.Grow([]attribute.KeyValue{
		attribute.String("sspolicy.streamtype", st.Name),
		attribute.String("sspolicy.protocol", st.Protocol.String()),
	}, 2)
}

// errorType returns the class of an error.
func errorType(err error) string {
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return "dns"
	}
	if isTLS(err) {
		return "tls"
	}
	timeout, ok := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, runtime.ErrTimeout), ok && timeout.Timeout():
		return "timeout"
	case errors.Is(err, runtime.ErrDisconnected):
		return "disconnected"
	case errors.Is(err, runtime.ErrClosed):
		return "closed"
	}
	return "other"
}

func isTLS(err error) bool {
	_, verify := errors.AsType[*tls.CertificateVerificationError](err)
	_, trust := errors.AsType[*runtime.TrustError](err)
	_, record := errors.AsType[tls.RecordHeaderError](err)
	_, alert := errors.AsType[tls.AlertError](err)
	_, host := errors.AsType[x509.HostnameError](err)
	return verify || trust || record || alert || host
}
