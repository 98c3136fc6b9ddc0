package breaking

import (
	"fmt"
	"math"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A Schedule describes the retries of a stream, by the arithmetic of the runtime.
type Schedule struct {
	Retries int           // successive failures that are followed by a retry; -1 for no limit
	Total   time.Duration // the sum of the waits without jitter; 0 for no limit

	retry  *policy.Retry
	jitter float64 // maximum random addition, as a fraction of a wait
}

// NewSchedule returns the schedule of a backoff scheme, or of none if it is nil.
func NewSchedule(r *policy.Retry) Schedule {
	s := Schedule{retry: r}
	if r == nil {
		return s
	}
	probe := *r
	probe.Backoff = []time.Duration{time.Hour}
	s.jitter = (probe.Delay(0, math.MaxUint16) - probe.Delay(0, 0)).Hours()
	if r.Conceals(math.MaxUint16) {
		s.Retries = -1
		return s
	}
	s.Retries = int(r.Conceal)
	for k := range s.Retries {
		if k == s.waits()-1 { // the last wait repeats
			s.Total += time.Duration(s.Retries-k) * s.wait(k)
			break
		}
		s.Total += s.wait(k)
	}
	return s
}

// waits returns the number of waits that may differ.
func (s *Schedule) waits() int {
	if s.retry == nil {
		return 0
	}
	return max(1, len(s.retry.Backoff))
}

// wait returns the shortest wait before a retry, counted from 0.
func (s *Schedule) wait(k int) time.Duration { return s.retry.Delay(uint16(min(k, math.MaxUint16)), 0) }

// String describes when a stream gives up.
func (s *Schedule) String() string {
	switch s.Retries {
	case -1:
		return "never"
	case 0:
		return "at the first failure"
	case 1:
		return fmt.Sprintf("after 1 retry in %v", s.Total)
	}
	return fmt.Sprintf("after %d retries in %v", s.Retries, s.Total)
}

// retry compares the schedules of retries, and the times of probes.
func (s *streamComparison) retry() {
	if s.old.Server {
		return
	}
	a, b := NewSchedule(s.old.Retry), NewSchedule(s.new.Retry)
	in := func(rule *Rule, keys []string, format string, args ...any) {
		if s.old.Retry == nil || s.new.Retry == nil {
			s.report(rule, []string{"retry"}, format, args...)
			return
		}
		s.reportIn(rule, "retry", keys, format, args...)
	}
	if a.Retries != b.Retries || a.Total != b.Total {
		rule := givesUpSooner
		if b.Retries == -1 || a.Retries != -1 && a.Total <= b.Total && !(a.Total == b.Total && b.Retries < a.Retries) {
			rule = nil
		}
		if rule != nil || a.Retries != b.Retries {
			format, args := "it gives up %s instead of %s", []any{&b, &a}
			if b.Retries == -1 {
				format, args = "it retries for ever instead of giving up %s", []any{&a}
			}
			in(rule, []string{"conceal", "backoff"}, format, args...)
		}
	}
	both := max(a.waits(), b.waits())
	for _, n := range []int{a.Retries, b.Retries} {
		if n >= 0 {
			both = min(both, n)
		}
	}
	sooner, later := false, false
	for k := range both {
		switch x, y := a.wait(k), b.wait(k); {
		case y < x && !sooner:
			sooner = true
			in(retriesSooner, []string{"backoff"}, "it waits %v before retry %d instead of %v", y, k+1, x)
		case y > x && !later:
			later = true
			in(nil, []string{"backoff"}, "it waits %v before retry %d instead of %v", y, k+1, x)
		}
	}
	if a.retry != nil && b.retry != nil && a.jitter != b.jitter {
		rule := jitterLowered
		if b.jitter > a.jitter {
			rule = nil
		}
		in(rule, []string{"jitterpc"}, "waits vary by up to %.0f%% instead of %.0f%%", b.jitter*100, a.jitter*100)
	}
	s.validity(in)
}

// validity compares how long a connection may last without proof of validity. No
// probe is sent unless it is due before the end of the connection.
func (s *streamComparison) validity(in func(*Rule, []string, string, ...any)) {
	ping1, hangup1 := s.old.Validity()
	ping2, hangup2 := s.new.Validity()
	later := func(old, new time.Duration) bool { return old != 0 && (new == 0 || new > old) }
	text := func(d time.Duration) string {
		if d == 0 {
			return "never"
		}
		return "after " + d.String()
	}
	if ping1 != ping2 {
		rule := probesLater
		if !later(ping1, ping2) {
			rule = nil
		}
		in(rule, []string{"svalidping"}, "it probes an idle connection %s instead of %s", text(ping2), text(ping1))
	}
	if hangup1 != hangup2 {
		rule := hangsUpSooner
		if later(hangup1, hangup2) {
			rule = noticesLater
		}
		in(rule, []string{"svalidhup"}, "it closes a silent connection %s instead of %s", text(hangup2), text(hangup1))
	}
}
