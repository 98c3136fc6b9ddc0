package system

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/secure-streams/sspolicy/internal/atomicfile"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/signing"
	"github.com/secure-streams/sspolicy/runtime/smd"
)

// The default limits of a Fetcher.
const (
	DefaultMaxSize      = 1 << 20 // bytes of a policy
	DefaultFetchTimeout = time.Minute
	DefaultProbeTimeout = 15 * time.Second
)

// Errors of a [Fetcher], for use with [errors.Is]. Each wraps its cause.
var (
	// ErrRefused is returned when a policy that was fetched or read from File is
	// unusable. The old one stays in force. The cause is a [signing.Refusal], or
	// the error of Verify or Load.
	ErrRefused = errors.New("the policy is refused")
	// ErrRolledBack is returned when the new policy was in force but one of Probes
	// failed. The old one is in force again.
	ErrRolledBack = errors.New("the policy was rolled back")
	// ErrNotKept is returned when the new policy is in force but could not be
	// written to File.
	ErrNotKept = errors.New("the policy could not be written")
)

// FetcherOptions configure a [Fetcher].
type FetcherOptions struct {
	// Load parses and compiles the text of a policy. It is required. Loader of
	// package github.com/secure-streams/sspolicy returns one that makes all checks.
	Load func(text []byte) (*policy.Policy, error)

	// Signing, if not nil, makes the Fetcher accept only policies that its keys
	// have signed. Fetch first gets the bundle with the streamtype
	// fetch_policy_manifest of the current policy, at most signing.MaxBundle bytes,
	// and checks it before it reads the policy. File then also contains the bundle.
	// It is the memory of the device: removing it restores the initial state of
	// Signing.
	//
	// A zero NotBefore means the time of the commit in the build information of the
	// program, if present.
	Signing *signing.Config

	// Now returns the time of the device's clock, for Signing. Nil means time.Now.
	Now func() time.Time

	// Verify, if not nil, is called before Load. An error refuses the policy. It is
	// for signatures in other formats. from is the response, with its metadata, or
	// nil for the text of File.
	//
	// A policy that passes has full control, including over the next fetch_policy.
	// An old policy with a valid signature passes too, unless Verify compares its
	// release with the current one.
	Verify func(text []byte, from *runtime.Response) error

	// A refusal is logged. Refused, if not nil, is called with each error of Fetch
	// and Restore that is ErrRefused or ErrRolledBack, on the goroutine of the
	// call. SMD, if not nil, receives a message of ClassSystemState for it, such as
	// {"policy":"refused","reason":"rollback","ts":1796083200}. The reason is a
	// [signing.Refusal], "rolled-back", or "load" for Verify and Load.
	Refused func(error)
	SMD     *smd.SMD

	// MaxSize is the maximum size of a policy in bytes. Timeout is the time limit
	// of a fetch, including retries and the manifest. 0 means DefaultMaxSize and
	// DefaultFetchTimeout.
	MaxSize int
	Timeout time.Duration

	// Probes are streamtypes that must connect under the new policy, one after the
	// other and all within ProbeTimeout; otherwise the old policy is set again. The
	// streams are made with ProbeOptions, connected and destroyed; they send no
	// body. A ProbeTimeout of 0 means DefaultProbeTimeout.
	Probes       []string
	ProbeTimeout time.Duration
	ProbeOptions []runtime.StreamOption

	// File, if not "", keeps the latest valid policy for Restore. Only one Fetcher
	// at a time may use it.
	File string
}

// A Fetcher gets new policies with the streamtype fetch_policy of the current
// policy, and sets them if they are valid. Its methods are safe for concurrent use;
// they wait for each other.
type Fetcher struct {
	c     *runtime.Context
	o     FetcherOptions
	state atomic.Pointer[signing.State] // accepted state, with Signing
	sem   chan struct{}                 // holds a value while a method runs

	// Guarded by sem.
	initial signing.State  // before anything was accepted
	isRead  bool           // File has been read
	current *policy.Policy // the policy of state, set when it is in force and in File
}

// NewFetcher returns a Fetcher, which needs no Close. It fails if Load is nil, a
// limit is negative, or Signing is invalid.
func NewFetcher(c *runtime.Context, o FetcherOptions) (*Fetcher, error) {
	if o.Load == nil {
		return nil, errors.New("sspolicy: NewFetcher: FetcherOptions.Load is nil")
	}
	if o.MaxSize < 0 || o.Timeout < 0 || o.ProbeTimeout < 0 {
		return nil, errors.New("sspolicy: NewFetcher: a limit is negative")
	}
	for _, d := range []struct {
		set   *time.Duration
		value time.Duration
	}{{&o.Timeout, DefaultFetchTimeout}, {&o.ProbeTimeout, DefaultProbeTimeout}} {
		if *d.set == 0 {
			*d.set = d.value
		}
	}
	if o.MaxSize == 0 {
		o.MaxSize = DefaultMaxSize
	}
	f := &Fetcher{c: c, o: o, sem: make(chan struct{}, 1)}
	if o.Signing != nil {
		if err := f.initSigning(); err != nil {
			return nil, fmt.Errorf("sspolicy: NewFetcher: %w", err)
		}
	}
	return f, nil
}

// Fetch gets a policy and sets it with [runtime.Context.SetPolicy], which describes
// the effect on streams. It destroys its own stream before that. An error means
// that the policy has not changed, with two exceptions: after ErrRolledBack it has
// changed twice, and after ErrNotKept the new one is in force.
//
// Other errors are ErrRefused and those of [runtime.Context.Fetch], such as
// runtime.ErrUnknownStreamType if the policy has no fetch_policy. A policy that
// exceeds MaxSize or Timeout is refused.
//
// With Signing, a policy that is already in force is not fetched again, and Fetch
// returns nil.
func (f *Fetcher) Fetch(ctx context.Context) error {
	damaged, err := f.fetch(ctx)
	f.report(damaged)
	f.report(err)
	if err != nil {
		return fmt.Errorf("sspolicy: fetch policy: %w", err)
	}
	return nil
}

// fetch also returns the error of reading File, if Restore has not been called.
func (f *Fetcher) fetch(ctx context.Context) (damaged, err error) {
	if err := f.lock(ctx); err != nil {
		return nil, err
	}
	defer f.unlock()
	if f.o.Signing != nil && !f.isRead && f.o.File != "" {
		if _, err := f.read(); errors.Is(err, ErrRefused) {
			damaged = err
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err // the accepted state is not known
		}
	}
	return damaged, f.update(ctx)
}

// update fetches a policy and sets it.
func (f *Fetcher) update(ctx context.Context) error {
	n, err := f.next(ctx)
	if n == nil || err != nil {
		return err
	}
	for _, name := range f.o.Probes {
		if n.policy.StreamType(name) == nil {
			return fmt.Errorf("%w: it has no streamtype %q to probe", ErrRefused, name)
		}
	}
	old := f.c.Policy()
	if err := f.c.SetPolicy(n.policy); err != nil {
		return err
	}
	if name, err := f.probeAll(ctx); err != nil {
		err = fmt.Errorf("%w: streamtype %q: %w", ErrRolledBack, name, err)
		_, back := f.c.CompareAndSetPolicy(n.policy, old) // unless the program has set another one
		return errors.Join(err, back)
	}
	f.state.Store(n.state)
	if f.o.File != "" {
		if err := atomicfile.WritePrivate(f.o.File, n.file()); err != nil {
			return fmt.Errorf("%w: %w", ErrNotKept, err)
		}
	}
	f.current = n.policy
	return nil
}

// next fetches a policy. It returns nil if the server has the current one.
func (f *Fetcher) next(ctx context.Context) (*signedPolicy, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, f.o.Timeout, signing.ErrSlow)
	defer cancel()
	n, limit := &signedPolicy{}, f.o.MaxSize
	if f.o.Signing != nil {
		state, err := f.fetchManifest(ctx)
		if state == nil || err != nil {
			return nil, err
		}
		m, _ := state.Manifest()
		n.state, limit = state, int(m.Size)
	}
	r, err := f.get(ctx, FetchPolicy, limit)
	if err != nil {
		return nil, err
	}
	n.text = r.Body
	n.policy, err = f.load(n, r)
	return n, err
}

// get fetches the text of a streamtype.
func (f *Fetcher) get(ctx context.Context, streamtype string, limit int) (*runtime.Response, error) {
	r, err := f.c.Fetch(ctx, streamtype, runtime.WithLimit(limit))
	switch {
	case errors.Is(err, runtime.ErrTooLong):
		return nil, fmt.Errorf("%w: %w: %w", ErrRefused, signing.ErrSize, err)
	case err != nil && context.Cause(ctx) == signing.ErrSlow:
		return nil, fmt.Errorf("%w: %w: %w", ErrRefused, signing.ErrSlow, err)
	}
	return r, err
}

func (f *Fetcher) lock(ctx context.Context) error {
	select {
	case f.sem <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *Fetcher) unlock() { <-f.sem }

// load verifies and loads a policy.
func (f *Fetcher) load(n *signedPolicy, from *runtime.Response) (*policy.Policy, error) {
	if n.state != nil {
		m, _ := n.state.Manifest()
		if err := m.Check(n.text); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrRefused, err)
		}
	}
	if f.o.Verify != nil {
		if err := f.o.Verify(n.text, from); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrRefused, err)
		}
	}
	p, err := f.o.Load(n.text)
	if err == nil && p == nil {
		err = errors.New("neither a policy nor an error from Load")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return p, nil
}

// probeAll connects a stream of each of Probes. It returns the first that fails.
func (f *Fetcher) probeAll(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, f.o.ProbeTimeout)
	defer cancel()
	for _, name := range f.o.Probes {
		if err := f.probe(ctx, name); err != nil {
			return name, err
		}
	}
	return "", nil
}

// probe connects a stream of a streamtype.
func (f *Fetcher) probe(ctx context.Context, streamtype string) error {
	result := make(chan error, 1)
	finish := func(err error) runtime.Result {
		select {
		case result <- err:
		default:
		}
		return runtime.DestroyMe
	}
	s, err := f.c.NewStream(streamtype, runtime.Handlers{
		State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
			switch state {
			case runtime.StateCreating:
				_ = s.Connect()
			case runtime.StateConnected:
				return finish(nil)
			case runtime.StateAllRetriesFailed:
				return finish(fmt.Errorf("%w: %w", runtime.ErrAllRetriesFailed, s.Err()))
			case runtime.StateDestroying:
				finish(cmp.Or(s.Err(), runtime.ErrClosed))
			}
			return runtime.OK
		},
	}, f.o.ProbeOptions...)
	if err != nil {
		return err
	}
	defer s.Destroy()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		if err := s.Err(); err != nil {
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		return ctx.Err()
	}
}

// Restore sets the policy in File, after the checks of Fetch, but without probes.
// Call it at the start of a program, before there are streams. The error is
// fs.ErrNotExist if there is no file, and ErrRefused if its contents are unusable.
// After an error the policy has not changed.
//
// With Signing, a policy in File remains valid after its not_after: the policy in
// the program would be even older.
func (f *Fetcher) Restore() error {
	err := f.restore()
	if err == nil {
		return nil
	}
	f.report(err)
	return fmt.Errorf("sspolicy: restore policy: %w", err)
}

func (f *Fetcher) restore() error {
	_ = f.lock(context.Background())
	defer f.unlock()
	n, err := f.read()
	if err != nil {
		return err
	}
	p, err := f.load(n, nil)
	if err != nil {
		return err
	}
	if err := f.c.SetPolicy(p); err != nil {
		return err
	}
	f.current = p
	return nil
}

// report announces an error if it is a refusal.
func (f *Fetcher) report(err error) {
	reason := "load"
	switch refusal, ok := errors.AsType[signing.Refusal](err); {
	case errors.Is(err, ErrRolledBack):
		reason = "rolled-back"
	case !errors.Is(err, ErrRefused):
		return
	case ok:
		reason = string(refusal)
	}
	f.c.Logger().Warn("sspolicy: a policy was refused", "reason", reason, "err", err)
	if f.o.SMD != nil {
		_ = f.o.SMD.Send(smd.ClassSystemState, fmt.Appendf(nil, `{"policy":"refused","reason":%q,"ts":%d}`, reason, time.Now().Unix()))
	}
	if f.o.Refused != nil {
		f.o.Refused(err)
	}
}
