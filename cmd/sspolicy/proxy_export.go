package main

import (
	"context"
	"time"

	"github.com/secure-streams/sspolicy/internal/otlp"
	"github.com/secure-streams/sspolicy/runtime"
)

// exportGrace limits the time of the last export.
const exportGrace = 5 * time.Second

// export starts the export to OpenTelemetry, if the environment requests it. It returns the
// hooks of the streams, and a function that ends the export.
func (s *proxyServer) export(ctx context.Context) (hooks runtime.Hooks, end func(), err error) {
	hooks, end = s.metrics.Hooks(), func() {}
	s.exporter, err = otlp.Start(ctx, version(), func(err error) { s.log.Warn("OpenTelemetry export failed", "err", err) })
	if err != nil {
		return hooks, end, usage("%s", plain(err))
	}
	if s.exporter == nil {
		return hooks, end, nil
	}
	count := hooks.State
	hooks = s.exporter.Hooks()
	report := hooks.State
	hooks.State = func(ctx context.Context, stream *runtime.Stream, state runtime.State, arg uint32) {
		count(ctx, stream, state, arg)
		report(ctx, stream, state, arg)
	}
	return hooks, func() {
		limit, cancel := context.WithTimeout(context.Background(), exportGrace)
		defer cancel()
		if err := s.exporter.Shutdown(limit); err != nil {
			s.log.Warn("OpenTelemetry export failed", "err", err)
		}
	}, nil
}
