package transport_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// An opener is a transport whose Open and Run are recorded as events.
type opener struct {
	trace *teststream.Trace
	open  func(transport.Link) error
}

func (*opener) Protocols() []policy.Protocol { return []policy.Protocol{policy.ProtocolRaw} }

func (o *opener) Prepare(*transport.Setup) (transport.Connector, error) { return o, nil }

func (o *opener) Open(l transport.Link) error {
	o.trace.Note(nil, "open")
	return o.open(l)
}

func (o *opener) Run(ctx context.Context, l transport.Link) error {
	o.trace.Note(nil, "run")
	<-ctx.Done()
	return context.Cause(ctx)
}

func (*opener) Close() error { return nil }

// TestOpener checks that Open precedes the return of NewStream, and that Run
// follows unless Open fails.
func TestOpener(t *testing.T) {
	errOpen := errors.New("open failed")
	for _, tt := range []struct {
		name         string
		open         func(transport.Link) error
		on           teststream.Actions
		begin, after string // events before NewStream returns, and after a minute
		err          error  // of NewStream
	}{
		{"connected", transport.Link.Connected, nil, "CRE CNG open CON", "CRE CNG open CON run", nil},
		{"failed", func(transport.Link) error { return errOpen }, nil,
			"CRE CNG open UNR", "CRE CNG open UNR POL CNG run", nil},
		{"disconnected", transport.Link.Connected, teststream.Actions{"CON": teststream.Disconnect},
			"CRE CNG open CON DIS", "CRE CNG open CON DIS POL CNG run", nil},
		{"destroyed", transport.Link.Connected, teststream.Actions{"CON": teststream.Destroy},
			"CRE CNG open CON DIS DES", "CRE CNG open CON DIS DES", runtime.ErrRefused},
		{"failed and destroyed", func(transport.Link) error { return errOpen }, teststream.Actions{"UNR": teststream.Destroy},
			"CRE CNG open UNR DES", "CRE CNG open UNR DES", runtime.ErrRefused},
	} {
		synctest.Test(t, func(t *testing.T) {
			tr := &teststream.Trace{On: tt.on}
			c := teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{&opener{tr, tt.open}}, ConnectTimeout: -1}, &policy.StreamType{
				Name: "s", Protocol: policy.ProtocolRaw, Endpoint: "h", Port: 1, NailedUp: true,
				Retry: &policy.Retry{Backoff: []time.Duration{time.Second}, Conceal: 1},
			})
			_, err := c.NewStream("s", runtime.Handlers{State: tr.State})
			if !errors.Is(err, tt.err) {
				t.Errorf("%s: %v, want %v", tt.name, err, tt.err)
			}
			if got := tr.String(); !strings.HasPrefix(got, tt.begin) { // Run may have begun
				t.Errorf("%s: NewStream brings %s, want %s", tt.name, got, tt.begin)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			tr.Want(t, tt.after)
		})
	}
}
