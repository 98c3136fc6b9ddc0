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

// DefaultTimeout is the default time limit of a check for a captive portal, as in
// lws.
const DefaultTimeout = 3 * time.Second

// An Outcome is the result of a check for a captive portal.
type Outcome uint8

const (
	Unknown    Outcome = iota // no check has been completed
	OK                        // the internet can be reached
	Captive                   // a captive portal answers
	NoInternet                // the internet cannot be reached
)

// String returns the name that lws and the messages use.
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

// DetectorOptions configure a [Detector]. The zero value is ready to use.
type DetectorOptions struct {
	// Bypass makes every outcome OK without a check.
	Bypass bool

	// Platform, if not nil, replaces the check with the streamtype. It must return
	// when ctx is done, which happens after Timeout. An error or Unknown means
	// NoInternet.
	Platform func(ctx context.Context) (Outcome, error)

	// Timeout is the time limit of a check; 0 means DefaultTimeout.
	Timeout time.Duration

	// SMD, if not nil, carries messages that start checks and report outcomes.
	SMD *smd.SMD
}

// A Detector checks whether the internet can be reached, with a stream of
// captive_portal_detect. The outcome is
//
//	OK          if the peer accepts the request, usually by the policy's http_expect
//	Captive     if it answers with a redirect and the policy sets http_fail_redirect
//	NoInternet  otherwise, and after the timeout
//
// Start, Check, and the messages {"trigger":"cpdcheck"} and {"type":"ipacq"} of
// ClassNetwork start a check. The outcome is sent as a message such as
// {"type":"cpd","result":"OK"}. If the policy changes the streamtype, a running
// check restarts. Its methods are safe for concurrent use.
type Detector struct {
	c        *runtime.Context
	o        DetectorOptions
	listener *smd.Listener
	ctx      context.Context // done after Close
	cancel   context.CancelFunc
	platform sync.WaitGroup

	mu      sync.Mutex
	outcome Outcome
	check   *check // the running check, or nil
}

// A check is a running or completed check. The mu of the Detector guards it.
type check struct {
	s       *runtime.Stream
	done    chan struct{} // closed at the end
	outcome Outcome
	err     error
}

// NewDetector returns a Detector. The caller must close it.
func NewDetector(c *runtime.Context, o DetectorOptions) *Detector {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	d := &Detector{c: c, o: o}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	if o.SMD != nil {
		d.listener = o.SMD.Register(smd.ClassNetwork, d.handle)
	}
	return d
}

// Close ends the running check with runtime.ErrClosed; later checks fail with it
// too. It waits for Platform, which must not call it.
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

// Outcome returns the outcome of the latest check, or Unknown while it runs.
func (d *Detector) Outcome() Outcome {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.outcome
}

// Start starts a check without waiting for its outcome. It does nothing while one
// runs. The errors are those of [runtime.Context.NewStream], such as
// runtime.ErrUnknownStreamType if the policy has no captive_portal_detect.
func (d *Detector) Start() error {
	_, err := d.start()
	return err
}

// Check starts a check, unless one is running, and returns its outcome. The errors
// are those of Start and of ctx, whose end does not end the check.
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
		d.platform.Go(func() { d.askPlatform(k) })
	}
	d.mu.Unlock()
	switch {
	case d.o.Bypass:
		d.finish(k, OK, nil)
	case d.o.Platform == nil:
		if err := d.connect(k); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// connect makes the stream of a check.
func (d *Detector) connect(k *check) error {
	_, err := d.c.NewStream(CaptivePortalDetect, runtime.Handlers{
		State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result { return d.state(k, s, state) },
	})
	select {
	case <-k.done: // in a callback, which may have made NewStream fail
		return nil
	default:
	}
	if err == nil || errors.Is(err, runtime.ErrPolicyChanged) { // state has restarted the check
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

// askPlatform makes a check with Platform.
func (d *Detector) askPlatform(k *check) {
	ctx, cancel := context.WithTimeout(d.ctx, d.o.Timeout)
	defer cancel()
	outcome, err := d.o.Platform(ctx)
	if err != nil || outcome == Unknown || outcome > NoInternet {
		outcome = NoInternet
	}
	d.finish(k, outcome, nil)
}

// state is the State handler of the stream of a check.
func (d *Detector) state(k *check, s *runtime.Stream, state runtime.State) runtime.Result {
	switch state {
	case runtime.StateCreating:
		d.mu.Lock()
		k.s = s
		ended := d.check != k
		d.mu.Unlock()
		if ended {
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
			return runtime.OK // DESTROYING follows
		}
		d.finish(k, NoInternet, nil)
	case runtime.StateTimeout, runtime.StateAllRetriesFailed:
		d.finish(k, NoInternet, nil)
	case runtime.StateDestroying:
		d.mu.Lock()
		ended := d.check != k
		d.mu.Unlock()
		switch {
		case ended:
		case s.Err() == runtime.ErrPolicyChanged:
			_ = d.connect(k)
		default:
			d.finish(k, Unknown, d.fail(runtime.ErrClosed))
		}
		return runtime.OK
	default:
		return runtime.OK
	}
	return runtime.DestroyMe
}

// finish ends a check, unless it has ended.
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
		d.c.Logger().Warn("sspolicy: captive portal detection: cannot send the outcome", "outcome", outcome, "err", err)
	}
}

// handle starts a check if the message requests one.
func (d *Detector) handle(m smd.Message) {
	var request struct {
		Trigger string `json:"trigger"`
		Type    string `json:"type"`
	}
	if json.Unmarshal(m.Payload, &request) != nil || request.Trigger != "cpdcheck" && request.Type != "ipacq" {
		return
	}
	if err := d.Start(); err != nil && !errors.Is(err, runtime.ErrUnknownStreamType) && !errors.Is(err, runtime.ErrClosed) {
		d.c.Logger().Warn("sspolicy: captive portal detection: cannot start a check", "err", err)
	}
}
