package system

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"time"

	"github.com/secure-streams/sspolicy/internal/atomicfile"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// The default limits of a Fetcher.
const (
	DefaultMaxSize      = 1 << 20 // bytes of a policy
	DefaultFetchTimeout = time.Minute
	DefaultProbeTimeout = 15 * time.Second
)

// Errors of a Fetcher, to compare with [errors.Is]. Each is returned with its cause.
var (
	// ErrRefused is returned when a policy that was fetched or read from File cannot
	// be used. The old one stays in force.
	ErrRefused = errors.New("the policy is refused")
	// ErrRolledBack is returned when the new policy was in force, but its Probe
	// failed. The old one is in force again.
	ErrRolledBack = errors.New("the policy was rolled back")
	// ErrNotKept is returned when the new policy is in force, but could not be
	// written to File.
	ErrNotKept = errors.New("the policy could not be written")
)

// FetcherOptions are the settings of a Fetcher.
type FetcherOptions struct {
	// Load returns the policy of a text. It is required. Loader of package
	// github.com/secure-streams/sspolicy returns one that makes all checks.
	Load func(text []byte) (*policy.Policy, error)

	// Verify, if not nil, is called before Load. An error refuses the policy. It is
	// for signatures. from is the response, with its metadata, or nil for the text
	// of File.
	//
	// A policy that passes has full control, also over the next fetch_policy. An old
	// policy with a good signature passes too, unless Verify compares its release
	// with the one in force.
	Verify func(text []byte, from *runtime.Response) error

	// MaxSize is the maximum size of a policy in bytes. Timeout is the limit of a
	// fetch, including retries. 0 means DefaultMaxSize and DefaultFetchTimeout.
	MaxSize int
	Timeout time.Duration

	// Probe, if not "", is a streamtype that must connect within ProbeTimeout under
	// the new policy, or else the old policy is set again. The stream is made with
	// ProbeOptions, connected and destroyed; it sends no body. A ProbeTimeout of 0
	// means DefaultProbeTimeout.
	Probe        string
	ProbeTimeout time.Duration
	ProbeOptions []runtime.StreamOption

	// File, if not "", keeps the latest good policy for Restore.
	File string
}

// A Fetcher gets new policies by the streamtype fetch_policy of the current policy, and
// sets them if they are good. Its methods may be called from any goroutine, and wait
// for each other.
type Fetcher struct {
	c   *runtime.Context
	o   FetcherOptions
	sem chan struct{} // holds a value while a method runs
}

// NewFetcher returns a Fetcher, which needs no Close. It fails if Load is nil or a limit
// negative.
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
	return &Fetcher{c: c, o: o, sem: make(chan struct{}, 1)}, nil
}

// Fetch gets a policy and sets it by [runtime.Context.SetPolicy], which describes the
// effect on streams. The stream of fetch_policy is destroyed before that. An error
// means that the policy has not changed, with two exceptions: after ErrRolledBack it
// has changed twice, and after ErrNotKept the new one is in force.
//
// Other errors are ErrRefused and those of [runtime.Context.Fetch]: for example
// runtime.ErrUnknownStreamType if the policy has no fetch_policy, runtime.ErrTooLong
// beyond MaxSize, and context.DeadlineExceeded after Timeout.
func (f *Fetcher) Fetch(ctx context.Context) error {
	if err := f.fetch(ctx); err != nil {
		return fmt.Errorf("sspolicy: fetch policy: %w", err)
	}
	return nil
}

func (f *Fetcher) fetch(ctx context.Context) error {
	if err := f.lock(ctx); err != nil {
		return err
	}
	defer f.unlock()
	limited, cancel := context.WithTimeout(ctx, f.o.Timeout)
	defer cancel()
	r, err := f.c.Fetch(limited, FetchPolicy, runtime.WithLimit(f.o.MaxSize))
	if err != nil {
		return err
	}
	p, err := f.load(r.Body, r)
	if err != nil {
		return err
	}
	if f.o.Probe != "" && p.StreamType(f.o.Probe) == nil {
		return fmt.Errorf("%w: it has no streamtype %q to probe", ErrRefused, f.o.Probe)
	}
	old := f.c.Policy()
	if err := f.c.SetPolicy(p); err != nil {
		return err
	}
	if f.o.Probe != "" {
		if err := f.probe(ctx); err != nil {
			err = fmt.Errorf("%w: streamtype %q: %w", ErrRolledBack, f.o.Probe, err)
			_, back := f.c.CompareAndSetPolicy(p, old) // unless the program has set another one
			return errors.Join(err, back)
		}
	}
	if f.o.File != "" {
		if err := atomicfile.WritePrivate(f.o.File, r.Body); err != nil {
			return fmt.Errorf("%w: %w", ErrNotKept, err)
		}
	}
	return nil
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

// load verifies and loads a text.
func (f *Fetcher) load(text []byte, from *runtime.Response) (*policy.Policy, error) {
	if f.o.Verify != nil {
		if err := f.o.Verify(text, from); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrRefused, err)
		}
	}
	p, err := f.o.Load(text)
	if err == nil && p == nil {
		err = errors.New("neither a policy nor an error from Load")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return p, nil
}

// probe connects a stream of the streamtype Probe.
func (f *Fetcher) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, f.o.ProbeTimeout)
	defer cancel()
	result := make(chan error, 1)
	finish := func(err error) runtime.Result {
		select {
		case result <- err:
		default:
		}
		return runtime.DestroyMe
	}
	s, err := f.c.NewStream(f.o.Probe, runtime.Handlers{
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

// Restore sets the policy of File, after the checks of Fetch, but without a probe. It
// is meant for the start of a program, before there are streams. The error is
// fs.ErrNotExist if there is no file, and ErrRefused if its contents cannot be used,
// which is also logged. After an error the policy has not changed.
func (f *Fetcher) Restore() error {
	_ = f.lock(context.Background())
	defer f.unlock()
	err := f.restore()
	if err == nil {
		return nil
	}
	if errors.Is(err, ErrRefused) {
		f.c.Logger().Warn("sspolicy: the policy in the file cannot be used", "file", f.o.File, "err", err)
	}
	return fmt.Errorf("sspolicy: restore policy: %w", err)
}

func (f *Fetcher) restore() error {
	text, err := f.read()
	if err != nil {
		return err
	}
	p, err := f.load(text, nil)
	if err != nil {
		return err
	}
	return f.c.SetPolicy(p)
}

// read reads the file.
func (f *Fetcher) read() ([]byte, error) {
	if f.o.File == "" {
		return nil, fmt.Errorf("%w: FetcherOptions.File is empty", fs.ErrNotExist)
	}
	info, err := os.Stat(f.o.File)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // opening a named pipe would block
		return nil, fmt.Errorf("%w: not a regular file", ErrRefused)
	}
	file, err := os.Open(f.o.File)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, min(int64(f.o.MaxSize), math.MaxInt64-1)+1))
	if err == nil && len(text) > f.o.MaxSize {
		err = fmt.Errorf("%w: %w: more than %d bytes", ErrRefused, runtime.ErrTooLong, f.o.MaxSize)
	}
	return text, err
}
