package policy

import (
	"testing"
	"time"
)

func TestDelay(t *testing.T) {
	const ms = time.Millisecond
	table := []time.Duration{200 * ms, 900 * ms, 1500 * ms}
	for _, tt := range []struct {
		retry         *Retry
		tries, random uint16
		want          time.Duration
	}{
		{nil, 0, 0, 3000 * ms},
		{nil, 9, 65535, 3899 * ms},
		{&Retry{}, 0, 0, 3000 * ms},
		{&Retry{Backoff: table}, 0, 0, 200 * ms},
		{&Retry{Backoff: table}, 2, 0, 1500 * ms},
		{&Retry{Backoff: table}, 3, 0, 1500 * ms},
		{&Retry{Backoff: table}, 65535, 0, 1500 * ms},
		{&Retry{Backoff: table[:1], JitterPercent: 100}, 0, 32768, 300 * ms},
		{&Retry{Backoff: table[:1], JitterPercent: 255}, 0, 65535, 709 * ms},
		{&Retry{Backoff: []time.Duration{1500 * time.Microsecond}}, 0, 0, 1 * ms},
		{&Retry{Backoff: []time.Duration{-1}}, 0, 65535, 0},
		{&Retry{Backoff: []time.Duration{1<<63 - 1}}, 0, 65535, 9223372036854 * ms},
	} {
		if got := tt.retry.Delay(tt.tries, tt.random); got != tt.want {
			t.Errorf("%+v after %d tries, random %d: %v, want %v", tt.retry, tt.tries, tt.random, got, tt.want)
		}
	}
}

func TestConceals(t *testing.T) {
	for _, tt := range []struct {
		retry    *Retry
		failures uint16
		want     bool
	}{
		{nil, 1, false},
		{&Retry{}, 1, false},
		{&Retry{Conceal: 2}, 2, true},
		{&Retry{Conceal: 2}, 3, false},
		{&Retry{Conceal: 65534}, 65535, false},
		{&Retry{Conceal: 65535}, 65535, true},
	} {
		if got := tt.retry.Conceals(tt.failures); got != tt.want {
			t.Errorf("%+v after %d failures: %v", tt.retry, tt.failures, got)
		}
	}
}

func TestSteady(t *testing.T) {
	for _, tt := range []struct {
		retry *Retry
		want  time.Duration
	}{
		{nil, 10 * time.Second},
		{&Retry{Backoff: []time.Duration{time.Second, 5 * time.Second}}, 10 * time.Second},
		{&Retry{Backoff: []time.Duration{time.Second, time.Minute, 2 * time.Second}, JitterPercent: 50}, 90 * time.Second},
	} {
		if got := tt.retry.Steady(); got < tt.want-time.Second || got > tt.want {
			t.Errorf("%+v: %v, want %v", tt.retry, got, tt.want)
		}
	}
}
