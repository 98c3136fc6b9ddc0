// Package otlp exports metrics and traces of a proxy to OpenTelemetry, by OTLP over HTTP.
//
// The standard environment variables configure it: OTEL_EXPORTER_OTLP_ENDPOINT and the
// others of the exporters, OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME,
// OTEL_TRACES_SAMPLER, OTEL_METRIC_EXPORT_INTERVAL, and so on.
package otlp

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/secure-streams/sspolicy/proxy"
	"github.com/secure-streams/sspolicy/runtime"
	ssotel "github.com/secure-streams/sspolicy/runtime/otel"
)

// An Exporter exports metrics and traces.
type Exporter struct {
	hooks   runtime.Hooks
	metrics *sdkmetric.MeterProvider // nil if metrics are disabled
	traces  *sdktrace.TracerProvider // nil if traces are disabled
}

// setting returns a setting of the exporters for a signal, and the variable that sets it.
// The value is "" if no variable does.
func setting(signal, property string) (variable, value string) {
	for _, variable = range []string{"OTEL_EXPORTER_OTLP_" + signal + "_" + property, "OTEL_EXPORTER_OTLP_" + property} {
		if value = os.Getenv(variable); value != "" {
			break
		}
	}
	return variable, value
}

// signal reports whether the environment requests a signal, "TRACES" or "METRICS".
func signal(name string) (bool, error) {
	address, endpoint := setting(name, "ENDPOINT")
	if endpoint == "" || strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		return false, nil
	}
	variable := "OTEL_" + name + "_EXPORTER"
	switch exporter := os.Getenv(variable); exporter {
	case "", "otlp":
	case "none":
		return false, nil
	default:
		return false, fmt.Errorf("%s=%s is not supported: want otlp or none", variable, exporter)
	}
	if variable, protocol := setting(name, "PROTOCOL"); protocol != "" && protocol != "http/protobuf" {
		return false, fmt.Errorf("%s=%s is not supported: want http/protobuf", variable, protocol)
	}
	// The exporters fall back to localhost if they cannot parse an address.
	if u, err := url.Parse(endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return false, fmt.Errorf("%s=%s: want a URL such as http://localhost:4318", address, endpoint)
	}
	return true, nil
}

// Start returns an Exporter, or nil if the environment requests none. It calls failed with
// the errors of exports. version is that of the program.
func Start(ctx context.Context, version string, failed func(error)) (*Exporter, error) {
	traces, err := signal("TRACES")
	if err != nil {
		return nil, err
	}
	metrics, err := signal("METRICS")
	if err != nil || !metrics && !traces {
		return nil, err
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(failed))
	res, err := resource.New(ctx, resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", "sspolicy-proxy"), attribute.String("service.version", version)),
		resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	e := new(Exporter)
	o := ssotel.Options{TracerProvider: tracenoop.NewTracerProvider(), MeterProvider: noop.NewMeterProvider()}
	if traces {
		exporter, err := otlptracehttp.New(ctx)
		if err != nil {
			return nil, err
		}
		e.traces = sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(res))
		o.TracerProvider = e.traces
	}
	if metrics {
		exporter, err := otlpmetrichttp.New(ctx)
		if err != nil {
			return nil, err
		}
		e.metrics = sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exporter)), sdkmetric.WithResource(res))
		o.MeterProvider = e.metrics
	}
	e.hooks, err = ssotel.Hooks(o)
	return e, err
}

// Hooks returns the hooks for the context of the proxy.
func (e *Exporter) Hooks() runtime.Hooks { return e.hooks }

// Observe exports the metrics of a proxy.
func (e *Exporter) Observe(p *proxy.Proxy) error {
	if e.metrics == nil {
		return nil
	}
	meter := e.metrics.Meter("github.com/secure-streams/sspolicy/proxy")
	var instruments []metric.Observable
	for _, f := range p.Figures() {
		name, help, unit := "sspolicy.proxy."+f.Name, metric.WithDescription(f.Help), metric.WithUnit(f.Unit)
		var i metric.Observable
		var err error
		if f.Counter {
			i, err = meter.Int64ObservableCounter(name, help, unit)
		} else {
			i, err = meter.Int64ObservableUpDownCounter(name, help, unit)
		}
		if err != nil {
			return err
		}
		instruments = append(instruments, i)
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for i, f := range p.Figures() {
			for _, v := range f.Values {
				var role []attribute.KeyValue
				if v.Role != "" {
					role = []attribute.KeyValue{attribute.String("sspolicy.role", v.Role)}
				}
				o.ObserveInt64(instruments[i].(metric.Int64Observable), v.Value, metric.WithAttributes(role...))
			}
		}
		return nil
	}, instruments...)
	return err
}

// Shutdown exports what is pending.
func (e *Exporter) Shutdown(ctx context.Context) error {
	var errs []error
	if e.metrics != nil {
		errs = append(errs, e.metrics.Shutdown(ctx))
	}
	if e.traces != nil {
		errs = append(errs, e.traces.Shutdown(ctx))
	}
	return errors.Join(errs...)
}
