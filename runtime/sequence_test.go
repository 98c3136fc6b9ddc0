package runtime_test

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// body returns an HTTP transaction whose response has n pieces.
func body(pieces int, good bool) run {
	return func(_ context.Context, l transport.Link) error {
		if err := l.Connected(); err != nil {
			return err
		}
		flags := runtime.FlagSOM
		for range pieces {
			if err := l.Rx([]byte("piece"), flags); err != nil {
				return err
			}
			flags = 0
		}
		if pieces > 0 {
			if err := l.RxEnd(); err != nil {
				return err
			}
		}
		return l.Done(good)
	}
}

// post is an HTTP transaction whose request has a body.
func post(ctx context.Context, l transport.Link) error {
	for {
		_, flags, err := tx(l, make([]byte, 10))
		if err != nil {
			return err
		}
		if flags&runtime.FlagEOM != 0 {
			return fetch(ctx, l)
		}
	}
}

// cut is an HTTP transaction whose connection is lost within the response body.
func cut(_ context.Context, l transport.Link) error {
	if err := l.Connected(); err != nil {
		return err
	}
	if err := l.Rx([]byte("piece"), runtime.FlagSOM); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}

// busy returns an attempt whose server answers with Retry-After.
func busy(retryAfter time.Duration) run {
	return func(_ context.Context, l transport.Link) error {
		l.Answer(transport.Answer{RetryAfter: retryAfter})
		return errFake
	}
}

// publish is a connection whose peer acknowledges each message.
func publish(ctx context.Context, l transport.Link) error {
	if err := l.Connected(); err != nil {
		return err
	}
	ready := l.Ready()
	for {
		select {
		case <-ready:
		case <-ctx.Done():
			return ctx.Err()
		}
		_, flags, err := tx(l, make([]byte, 10))
		if err != nil {
			return err
		}
		if flags&runtime.FlagEOM != 0 {
			if err := l.Ack(true); err != nil {
				return err
			}
		}
	}
}

// TestSequenceTable checks the rows of the table "Sequences" in docs/runtime.md that do not
// depend on a protocol, in its order, and others that were measured with lws. The tests of
// the transports check the same rows with servers, and those of their protocols. The rows
// of destroyed streams are in TestDestroy and TestClose.
func TestSequenceTable(t *testing.T) {
	conceal := func(n uint16) *policy.Retry { return &policy.Retry{Backoff: ms(300), Conceal: n} }
	const h1, mqtt, raw = policy.ProtocolH1, policy.ProtocolMQTT, policy.ProtocolRaw
	byTx, byConnect := on{"CRE": requestTx}, on{"CRE": connect}
	for _, tt := range []struct {
		name string
		st   policy.StreamType
		run  run
		on   on
		want string // without the end of the context
	}{
		{"GET 200", policy.StreamType{Opportunistic: true, Retry: conceal(2)}, body(3, true), byTx,
			"CRE POL CNG CON rx rx rx eom ACK DIS"},
		{"GET 200, not opportunistic", policy.StreamType{Retry: conceal(2)}, body(1, true), byTx,
			"CRE POL CNG CON rx eom ACK DIS"},
		{"the same by Connect", policy.StreamType{Retry: conceal(2)}, body(2, true), byConnect,
			"CRE CNG CON rx rx eom ACK DIS"},
		{"the same by nailed_up", policy.StreamType{NailedUp: true, Retry: conceal(2)}, body(2, true), nil,
			"CRE CNG CON rx rx eom ACK DIS"},
		{"empty body", policy.StreamType{Retry: conceal(2)}, body(0, true), byTx,
			"CRE POL CNG CON ACK DIS"},
		{"404", policy.StreamType{Retry: conceal(2)}, body(1, false), byTx,
			"CRE POL CNG CON rx eom NAK DIS"},
		{"530 mapped to 1530", policy.StreamType{Retry: conceal(2)}, func(ctx context.Context, l transport.Link) error {
			if err := l.State(1530); err != nil {
				return err
			}
			return body(1, false)(ctx, l)
		}, byTx, "CRE POL CNG USER_1530 CON rx eom NAK DIS"},
		{"POST", policy.StreamType{Retry: conceal(2)}, post, byTx,
			"CRE POL CNG tx tx CON rx eom ACK DIS"},
		{"503 with Retry-After, conceal 1", policy.StreamType{Retry: conceal(1)}, busy(2 * time.Second), byTx,
			"CRE POL CNG UNR 2000:POL 2000:CNG 2000:UNR 2000:ARF"},
		{"503, then 200", policy.StreamType{Retry: conceal(1)}, each(busy(2*time.Second), fetch), byTx,
			"CRE POL CNG UNR 2000:POL 2000:CNG 2000:CON 2000:rx 2000:eom 2000:ACK 2000:DIS"},
		{"redirect not allowed, conceal 1", policy.StreamType{Retry: conceal(1)}, unreachable, byTx,
			"CRE POL CNG UNR 300:POL 300:CNG 300:UNR 300:ARF"},
		{"refused, conceal 2", policy.StreamType{Retry: conceal(2)}, unreachable, byTx,
			"CRE POL CNG UNR 300:POL 300:CNG 300:UNR 600:POL 600:CNG 600:UNR 600:ARF"},
		{"refused, by Connect", policy.StreamType{Retry: conceal(2)}, unreachable, byConnect,
			"CRE CNG UNR 300:POL 300:CNG 300:UNR 600:POL 600:CNG 600:UNR 600:ARF"},
		{"refused, by nailed_up", policy.StreamType{NailedUp: true, Retry: conceal(2)}, unreachable, nil,
			"CRE CNG UNR 300:POL 300:CNG 300:UNR 600:POL 600:CNG 600:UNR 600:ARF"},
		{"no retry", policy.StreamType{}, unreachable, byTx, "CRE POL CNG UNR ARF"},
		{"conceal 0", policy.StreamType{Retry: conceal(0)}, unreachable, byTx, "CRE POL CNG UNR ARF"},
		{"no retry, by Connect", policy.StreamType{}, unreachable, byConnect, "CRE CNG UNR ARF"},
		{"conceal 0, by Connect", policy.StreamType{Retry: conceal(0)}, unreachable, byConnect, "CRE CNG UNR ARF"},
		{"no retry, by nailed_up", policy.StreamType{NailedUp: true}, unreachable, nil, "CRE CNG UNR ARF"},
		{"conceal 0, by nailed_up", policy.StreamType{NailedUp: true, Retry: conceal(0)}, unreachable, nil, "CRE CNG UNR ARF"},
		{"no reply", policy.StreamType{Retry: conceal(1)}, hang, byTx,
			"CRE POL CNG 15000:UNR 15300:POL 15300:CNG 30300:UNR 30300:ARF"},
		{"body cut short, opportunistic", policy.StreamType{Opportunistic: true, Retry: conceal(2)}, cut, byTx,
			"CRE POL CNG CON rx DIS"},
		{"body cut short, not opportunistic", policy.StreamType{Retry: conceal(3)}, each(cut, cut, cut, fetch), byTx,
			"CRE POL CNG CON rx DIS 300:POL 300:CNG 300:CON 300:rx 300:DIS " +
				"600:POL 600:CNG 600:CON 600:rx 600:DIS 900:POL 900:CNG 900:CON 900:rx 900:eom 900:ACK 900:DIS"},
		{"body cut short again and again", policy.StreamType{Retry: conceal(1)}, cut, byTx,
			"CRE POL CNG CON rx DIS 300:POL 300:CNG 300:CON 300:rx 300:DIS 300:UNR 300:ARF"},
		{"lost, server gone for good", policy.StreamType{Protocol: raw, Retry: conceal(2)}, each(lose, unreachable), byTx,
			"CRE POL CNG CON DIS 300:POL 300:CNG 300:UNR 600:POL 600:CNG 600:UNR 600:ARF"},
		{"lost, server gone for good, nailed_up", policy.StreamType{Protocol: raw, NailedUp: true, Retry: conceal(2)}, each(lose, unreachable), nil,
			"CRE CNG CON DIS 300:POL 300:CNG 300:UNR 600:POL 600:CNG 600:UNR 600:ARF"},
		{"lost, no retry", policy.StreamType{Protocol: raw}, lose, byTx, "CRE POL CNG CON DIS UNR ARF"},
		{"lost, conceal 0", policy.StreamType{Protocol: raw, Retry: conceal(0)}, lose, byTx, "CRE POL CNG CON DIS UNR ARF"},
		{"lost, opportunistic", policy.StreamType{Protocol: raw, Opportunistic: true, Retry: conceal(2)}, lose, byTx,
			"CRE POL CNG CON DIS"},
		{"lost, and reconnected", policy.StreamType{Protocol: raw, Retry: conceal(2)}, each(lose, lose, stay), byTx,
			"CRE POL CNG CON DIS 300:POL 300:CNG 300:CON 300:DIS 600:POL 600:CNG 600:CON"},
		{"after ARF, RequestTx", policy.StreamType{Retry: conceal(1)}, unreachable,
			on{"CRE": requestTx, "ARF": firstOnly(requestTx)},
			"CRE POL CNG UNR 300:POL 300:CNG 300:UNR 300:ARF 300:POL 300:CNG 300:UNR 300:ARF"},
		{"after ARF, Connect", policy.StreamType{Retry: conceal(1)}, unreachable,
			on{"CRE": requestTx, "ARF": firstOnly(connect)},
			"CRE POL CNG UNR 300:POL 300:CNG 300:UNR 300:ARF 300:CNG 300:UNR 600:POL 600:CNG 600:UNR 600:ARF"},
		{"endpoint without its metadata", policy.StreamType{Endpoint: "${m}", Port: 1, Metadata: []policy.Metadata{{Name: "m"}}, Retry: conceal(1)}, fetch, byTx,
			"CRE POL CNG UNR 300:POL 300:CNG 300:UNR 300:ARF"},
		{"acknowledged messages", policy.StreamType{Protocol: mqtt, MQTT: &policy.MQTT{}, Retry: conceal(2)}, publish,
			on{"CRE": requestTx, "ACK": firstOnly(requestTx)},
			"CRE POL CNG CON tx tx ACK tx tx ACK"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.st.Protocol == 0 {
				tt.st.Protocol = h1
			}
			tr := newTrace(tt.on)
			tr.times, tr.sends = true, true
			got := play(t, tt.st, tt.run, tr)
			got, _, _ = strings.Cut(got, " 86400000:")
			if got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
		})
	}
}

// firstOnly returns an action that does f only the first time.
func firstOnly(f action) action {
	done := false
	return func(s *runtime.Stream) runtime.Result {
		if done {
			return runtime.OK
		}
		done = true
		return f(s)
	}
}
