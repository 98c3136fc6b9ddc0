package system

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/smd"
)

// DefaultTimeout is how long a check for a captive portal may take, as in lws.
const DefaultTimeout = 3 * time.Second

// An Outcome is what a check for a captive portal has found.
type Outcome uint8

const (
	Unknown    Outcome = iota // no check has come to its end
	OK                        // the internet can be reached
	Captive                   // someone else answers: a captive portal
	NoInternet                // it can not be reached
)

// String returns lws's name for it, which the messages have too.
func (o Outcome) String() string {
	switch o {
	case OK:
		return "OK"
	case Captive:
		return "Captive"
	case NoInternet:
		return "No internet"
	}
	return "Unknown"
}

// DetectorOptions are the settings of a Detector. The zero value is good.
type DetectorOptions struct {
	// Bypass makes every outcome OK, without a check.
	Bypass bool

	// Platform, if any, makes the check in place of the streamtype. It has to
	// return when ctx is done, as it is after Timeout; with an error, or
	// Unknown, the outcome is NoInternet.
	Platform func(ctx context.Context) (Outcome, error)

	// Timeout is how long a check may take; 0 means DefaultTimeout.
	Timeout time.Duration

	// SMD starts checks and gets their outcomes. Nil means that nobody does.
	SMD *smd.SMD
}

// A Detector finds out whether there is a way to the internet, by a stream of
// captive_portal_detect:
//
//	OK          the peer has accepted the request: mostly, by the policy's http_expect
//	Captive     it has answered with a redirect, and the policy says http_fail_redirect
//	NoInternet  anything else, and when the time is over
//
// Each check begins when Start or Check is called, or SMD has a message
// {"trigger":"cpdcheck"} or {"type":"ipacq"} of ClassNetwork, and its outcome is
// sent there as {"type":"cpd","result":"OK"}. If the policy of the streamtype
// changes meanwhile, the check begins anew. Its methods may be called from any
// goroutine.
type Detector struct {
	c        *runtime.Context
	o        DetectorOptions
	listener *smd.Listener
	ctx      context.Context // done once Close has been called
	cancel   context.CancelFunc
	platform sync.WaitGroup

	mu      sync.Mutex
	outcome Outcome
	check   *check // that is under way, or nil
}

// A check is one check. All is guarded by the mu of the Detector.
type check struct {
	s       *runtime.Stream
	done    chan struct{} // closed at the end
	outcome Outcome
	err     error
}

// NewDetector returns a Detector, which listens to SMD but makes no check yet.
// It has to be closed.
func NewDetector(c *runtime.Context, o DetectorOptions) *Detector {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	d := &Detector{c: c, o: o}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	if o.SMD != nil {
		d.listener = o.SMD.Register(smd.ClassNetwork, d.hear)
	}
	return d
}

// Close gives up the check that is under way, and makes no more of them. It waits
// for Platform, and so must not be called by it.
func (d *Detector) Close() {
	if d.listener != nil {
		d.listener.Close()
	}
	d.cancel()
	d.mu.Lock()
	k := d.check
	d.mu.Unlock()
	if k != nil {
		d.finish(k, Unknown, runtime.ErrClosed)
	}
	d.platform.Wait()
}

// Outcome returns the outcome of the latest check: Unknown while it is under way.
func (d *Detector) Outcome() Outcome {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.outcome
}

// Start begins a check, and does not wait for its outcome. While one is under way
// it does nothing. The errors are those of NewStream of a [runtime.Context]:
// runtime.ErrUnknownStreamType if the policy has no captive_portal_detect.
func (d *Detector) Start() error {
	_, err := d.start()
	return err
}

// Check begins a check, unless one is under way, and returns its outcome. The
// errors are those of Start, and that of ctx, without effect on the check.
func (d *Detector) Check(ctx context.Context) (Outcome, error) {
	k, err := d.start()
	if err != nil {
		return Unknown, err
	}
	select {
	case <-ctx.Done():
		return Unknown, fmt.Errorf("sspolicy: captive portal detection: %w", ctx.Err())
	case <-k.done:
		return k.outcome, k.err
	}
}

func (d *Detector) start() (*check, error) {
	d.mu.Lock()
	switch {
	case d.ctx.Err() != nil:
		d.mu.Unlock()
		return nil, d.fail(runtime.ErrClosed)
	case d.check != nil:
		k := d.check
		d.mu.Unlock()
		return k, nil
	}
	k := &check{done: make(chan struct{})}
	d.check, d.outcome = k, Unknown
	if !d.o.Bypass && d.o.Platform != nil {
		d.platform.Go(func() { d.ask(k) })
	}
	d.mu.Unlock()
	switch {
	case d.o.Bypass:
		d.finish(k, OK, nil)
	case d.o.Platform == nil:
		if err := d.begin(k); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// begin makes the stream of a check.
func (d *Detector) begin(k *check) error {
	_, err := d.c.NewStream(CaptivePortalDetect, runtime.Handlers{
		State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result { return d.state(k, s, state) },
	})
	select {
	case <-k.done: // by what the stream was told; NewStream may have failed of that
		return nil
	default:
	}
	if err == nil || errors.Is(err, runtime.ErrPolicyChanged) { // with which it has begun anew
		return nil
	}
	err = d.fail(err)
	d.finish(k, Unknown, err)
	return err
}

func (d *Detector) fail(err error) error {
	err = fmt.Errorf("sspolicy: captive portal detection: %w", err)
	if errors.Is(err, runtime.ErrUnknownStreamType) {
		info(d.c, "sspolicy: captive portal detection: the policy has no streamtype for it", "streamtype", CaptivePortalDetect)
	}
	return err
}

// ask makes a check by the platform.
func (d *Detector) ask(k *check) {
	ctx, cancel := context.WithTimeout(d.ctx, d.o.Timeout)
	defer cancel()
	outcome, err := d.o.Platform(ctx)
	if err != nil || outcome == Unknown || outcome > NoInternet {
		outcome = NoInternet
	}
	d.finish(k, outcome, nil)
}

func (d *Detector) state(k *check, s *runtime.Stream, state runtime.State) runtime.Result {
	switch state {
	case runtime.StateCreating:
		d.mu.Lock()
		k.s = s
		over := d.check != k
		d.mu.Unlock()
		if over {
			return runtime.DestroyMe
		}
		s.StartTimeout(d.o.Timeout)
		_ = s.RequestTx()
		return runtime.OK
	case runtime.StateUnreachable, runtime.StateConnected:
		if !s.CaptivePortal() {
			return runtime.OK
		}
		d.finish(k, Captive, nil)
	case runtime.StateQoSAckRemote:
		d.finish(k, OK, nil)
	case runtime.StateDisconnected:
		if s.Err() == runtime.ErrPolicyChanged {
			return runtime.OK // DESTROYING comes
		}
		d.finish(k, NoInternet, nil)
	case runtime.StateTimeout, runtime.StateAllRetriesFailed:
		d.finish(k, NoInternet, nil)
	case runtime.StateDestroying:
		d.mu.Lock()
		over := d.check != k
		d.mu.Unlock()
		switch {
		case over:
		case s.Err() == runtime.ErrPolicyChanged:
			_ = d.begin(k)
		default:
			d.finish(k, Unknown, d.fail(runtime.ErrClosed))
		}
		return runtime.OK
	default:
		return runtime.OK
	}
	return runtime.DestroyMe
}

// finish ends a check: the first outcome of it counts.
func (d *Detector) finish(k *check, outcome Outcome, err error) {
	d.mu.Lock()
	if d.check != k {
		d.mu.Unlock()
		return
	}
	d.check, d.outcome = nil, outcome
	k.outcome, k.err = outcome, err
	s := k.s
	close(k.done)
	d.mu.Unlock()
	if s != nil {
		s.Destroy()
	}
	if outcome == Unknown || d.o.SMD == nil {
		return
	}
	if err := d.o.SMD.Send(smd.ClassNetwork, fmt.Appendf(nil, `{"type":"cpd","result":"%s"}`, outcome)); err != nil {
		d.c.Logger().Warn("sspolicy: captive portal detection: the outcome can not be told", "outcome", outcome, "err", err)
	}
}

// hear begins a check if a message asks for one.
func (d *Detector) hear(m smd.Message) {
	var ask struct {
		Trigger string `json:"trigger"`
		Type    string `json:"type"`
	}
	if json.Unmarshal(m.Payload, &ask) != nil || ask.Trigger != "cpdcheck" && ask.Type != "ipacq" {
		return
	}
	if err := d.Start(); err != nil && !errors.Is(err, runtime.ErrUnknownStreamType) && !errors.Is(err, runtime.ErrClosed) {
		d.c.Logger().Warn("sspolicy: captive portal detection was asked for", "err", err)
	}
}
