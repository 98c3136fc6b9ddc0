package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
)

// A Telemetry sends measurements over mqtt, and those that the broker does not acknowledge
// over HTTP. It shows how a program can avoid losing data. It is not safe for concurrent
// use.
type Telemetry struct {
	Context    *runtime.Context // with streamtypes "mqtt" (QoS 1 or 2, opportunistic) and "report"
	AckTimeout time.Duration    // limits the wait for the broker
	conn       *runtime.Conn    // nil before the first Send, and after a failure
}

// Send returns nil if all measurements have arrived. Otherwise arrived is the number of
// leading measurements that have, and the caller must keep the others.
func (t *Telemetry) Send(ctx context.Context, measurements ...[]byte) (arrived int, err error) {
	arrived, failure := t.publish(ctx, measurements)
	if failure == nil {
		return arrived, nil
	}
	for _, m := range measurements[arrived:] {
		if _, err := t.Context.Fetch(ctx, "report", runtime.WithBody(m)); err != nil {
			return arrived, fmt.Errorf("neither broker nor server: %w", errors.Join(failure, err))
		}
		arrived++
	}
	return arrived, nil
}

// publish returns the number of leading measurements that the broker has acknowledged.
func (t *Telemetry) publish(ctx context.Context, measurements [][]byte) (acknowledged int, err error) {
	if t.conn == nil {
		if t.conn, err = t.Context.Open(context.WithoutCancel(ctx), "mqtt"); err != nil {
			t.conn = nil
			return 0, err
		}
	}
	for _, m := range measurements {
		if _, err = t.conn.Write(m); err != nil {
			break
		}
	}
	ctx, cancel := context.WithTimeout(ctx, t.AckTimeout)
	defer cancel()
	if err = errors.Join(err, t.conn.Flush(ctx)); err == nil {
		return len(measurements), nil
	}
	if missing, ok := errors.AsType[*runtime.UnacknowledgedError](err); ok {
		acknowledged = missing.Acknowledged
	}
	t.conn.Close()
	t.conn = nil // the next Send reconnects
	return acknowledged, err
}

// Close waits for pending acknowledgements, and disconnects.
func (t *Telemetry) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return t.Context.Shutdown(ctx)
}
