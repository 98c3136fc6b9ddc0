// Package storm simulates the effect of a fleet of devices on a server that fails
// and comes back. Time is simulated: an hour of a million devices takes seconds.
// The same scenario always has the same result.
//
// # The model
//
// A device has one stream. It is connected when the simulation starts, or boots at
// a time of its own and connects. It loses its connection when the outage begins,
// and then follows the state machine of the runtime: it counts failures, waits as
// [policy.Retry.Delay] specifies, retries, and gives up after the failures that the
// policy conceals. Boots do not depend on the server (open arrivals); all other
// actions of a device depend on the answer that it got (a closed loop).
//
// The server makes a number of handshakes per second, one after the other, in the
// order of their arrival. It does not know that a client has given up, and still
// makes the handshake: that work is wasted, and can keep the system down when the
// outage is over (Bronson et al., Metastable Failures in Distributed Systems, 2021;
// Huang et al., Metastable Failures in the Wild, 2022). It may refuse clients that
// would wait for longer than a limit.
//
// # Limits
//
// The network loses no packets and has one round-trip time. All handshakes cost the
// same. A client that waits for a silent network sees nothing before its timeout,
// even if the network is back. Streams of a device do not share connections. Times
// are whole milliseconds, as in lws.
package storm

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"runtime"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A Client describes how the stream of each device retries.
type Client struct {
	Name   string
	Stream *policy.StreamType

	// LWS means that every connection ends a series of failures at once, as in lws.
	// In the runtime it has to last; see [policy.Retry.Steady].
	LWS bool

	// FirstWait means that only the first wait of the backoff scheme is used, as lws
	// 4.4 to 5.0 do with a policy that they read themselves.
	FirstWait bool

	// Timeout is the time limit of an attempt; 0 means LWSTimeout or
	// RuntimeTimeout.
	Timeout time.Duration
}

// The timeouts of attempts by default.
const (
	LWSTimeout     = 20 * time.Second // connect_timeout_secs of lws
	RuntimeTimeout = 15 * time.Second // DefaultConnectTimeout of package runtime
)

func (c *Client) timeout() time.Duration {
	if c.LWS {
		return cmp.Or(c.Timeout, LWSTimeout)
	}
	return cmp.Or(c.Timeout, RuntimeTimeout)
}

// retry returns the scheme that the client uses.
func (c *Client) retry() *policy.Retry {
	r := c.Stream.Retry
	if r == nil || !c.FirstWait || len(r.Backoff) < 2 {
		return r
	}
	first := *r
	first.Backoff = r.Backoff[:1]
	return &first
}

// A Kind is a way in which a server fails.
type Kind uint8

const (
	Refused     Kind = iota // the host refuses connections
	Silent                  // no answers: attempts end by their timeout
	Closed                  // each connection is made, and closed at once
	Unavailable             // HTTP status 503, perhaps with Retry-After
)

var kinds = [...]string{"refused", "silent", "closed", "unavailable"}

func (k Kind) String() string { return kinds[k] }

// UnmarshalText parses the name of a kind.
func (k *Kind) UnmarshalText(text []byte) error {
	for i, name := range kinds {
		if name == string(text) {
			*k = Kind(i)
			return nil
		}
	}
	return fmt.Errorf("unknown kind of outage %q: use one of refused, silent, closed, unavailable", text)
}

// A Scenario describes the events of a fleet.
type Scenario struct {
	Devices int
	Seed    uint64

	// Boot is the time within which the devices boot, at random moments. 0 means
	// that they are connected when the simulation starts.
	Boot time.Duration

	// The outage begins at From and lasts Outage. The simulation ends after For, or
	// when no more events are possible. If For is 0, it ends half an hour after the
	// outage.
	From, Outage, For time.Duration
	Kind              Kind
	RetryAfter        time.Duration // for Unavailable

	// Notice is the time within which devices notice that their connection is lost,
	// at random moments. If it is 0 they notice at once or, in a Silent outage,
	// when the validity checks of the policy fail.
	Notice time.Duration

	// Every is the interval at which the program requests a connection that the
	// stream does not have or attempt; 0 means never. ClockSpread is the time over
	// which the requests of the devices are spread at random; 0 means Every, so
	// that they are spread evenly.
	Every, ClockSpread time.Duration

	// ClockError is the maximum error of the devices' clocks in percent: the factor
	// of a device is random, and constant.
	ClockError float64

	// Churn is the average duration of a connection without an outage; 0 means
	// forever.
	Churn time.Duration

	RTT time.Duration // time until the answer to an attempt; 0 means 50 ms

	// Capacity is the number of handshakes per second that the server can make; 0
	// means no limit. MaxWait is the maximum wait in its queue; a client that would
	// wait for longer is refused. 0 means no limit.
	Capacity float64
	MaxWait  time.Duration
}

// DefaultRTT is the default time until the answer to an attempt.
const DefaultRTT = 50 * time.Millisecond

// The limits of scenarios.
const (
	MaxDevices = 20_000_000
	maxTime    = 40 * 24 * time.Hour // ticks are 32 bits
	minEvery   = time.Second
)

// Check reports what is wrong with a scenario.
func (s *Scenario) Check() error {
	switch {
	case s.Devices < 1 || s.Devices > MaxDevices:
		return fmt.Errorf("the number of devices must be 1 to %d, not %d", MaxDevices, s.Devices)
	case min(s.Boot, s.From, s.Outage, s.For, s.RetryAfter, s.Notice, s.Every, s.ClockSpread, s.Churn, s.RTT, s.MaxWait) < 0:
		return errors.New("times must not be negative")
	case s.Outage == 0 && s.Boot == 0:
		return errors.New("nothing happens: an outage (--outage) or boots (--boot) must have a duration")
	case s.Outage > maxTime || s.From > maxTime || s.end() > maxTime:
		return errors.New("the simulation may last up to 40 days")
	case s.For > 0 && s.For < s.From+s.Outage:
		return fmt.Errorf("the simulation ends after %v, before the outage does at %v", s.For, s.From+s.Outage)
	case s.RetryAfter > 0 && s.Kind != Unavailable:
		return fmt.Errorf("Retry-After is for outages of kind unavailable, not %v", s.Kind)
	case s.Every > 0 && s.Every < minEvery || s.ClockSpread > s.Every:
		return fmt.Errorf("the program may ask every %v or less often, and clocks may be apart by that time at most", minEvery)
	case math.IsNaN(s.ClockError) || s.ClockError < 0 || s.ClockError > 50:
		return errors.New("clocks may be off by 0 to 50 percent")
	case math.IsNaN(s.Capacity) || s.Capacity < 0 || math.IsInf(s.Capacity, 0):
		return errors.New("the capacity must not be negative")
	}
	return nil
}

// end returns when the simulation ends.
func (s *Scenario) end() time.Duration {
	if s.For > 0 {
		return s.For
	}
	return max(s.From+s.Outage, s.Boot) + 30*time.Minute
}

func (s *Scenario) rtt() time.Duration { return cmp.Or(s.RTT, DefaultRTT) }

// check reports what is wrong with a client in a scenario.
func (s *Scenario) check(c *Client) error {
	st := c.Stream
	switch {
	case st.Server:
		return fmt.Errorf("streamtype %q is a server: the devices of a fleet are clients", st.Name)
	case st.Opportunistic && s.Boot == 0 && s.Every == 0:
		return fmt.Errorf("streamtype %q is opportunistic: it connects when its program asks. Say when: as devices boot (--boot), or how often (--every)", st.Name)
	case st.LocalSink || !st.Protocol.Named():
		return fmt.Errorf("streamtype %q does not use the network", st.Name)
	}
	if s.Kind == Unavailable && !c.Stream.Protocol.IsHTTP() {
		return fmt.Errorf("streamtype %q has no HTTP status: an outage of kind unavailable does not fit %v", c.Stream.Name, c.Stream.Protocol)
	}
	return nil
}

// Run simulates a fleet. It uses all processors for the outage.
func Run(c Client, s Scenario) (*Result, error) {
	f, err := newFleet(&c, &s)
	if err != nil {
		return nil, err
	}
	f.toOutageEnd()
	f.serve(f.outageEnd, f.end)
	return f.result(), nil
}

// newFleet returns a fleet at the start of a scenario.
func newFleet(c *Client, s *Scenario) (*fleet, error) {
	if err := errors.Join(s.Check(), s.check(c)); err != nil {
		return nil, err
	}
	return start(c, s), nil
}

// start is newFleet for a scenario that has been checked.
func start(c *Client, s *Scenario) *fleet {
	f := &fleet{
		client: c, scenario: s, retry: c.retry(),
		from: tick(s.From), outageEnd: tick(s.From + s.Outage), end: tick(s.end()),
		rtt: tick(s.rtt()), timeout: tick(c.timeout()), workers: runtime.GOMAXPROCS(0),
		devices: make([]device, s.Devices),
	}
	f.steady = tick(f.retry.Steady())
	f.attempts = make([]uint32, f.end/second+1)
	f.connects = make([]int32, f.end/tenth+1)
	f.boot()
	return f
}
