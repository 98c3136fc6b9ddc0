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

// The limits of a Fetcher whose options say nothing else.
const (
	DefaultMaxSize      = 1 << 20 // bytes of a policy
	DefaultFetchTimeout = time.Minute
	DefaultProbeTimeout = 15 * time.Second
)

// Errors of a Fetcher, to compare with [errors.Is]. Each wraps what was wrong.
var (
	// ErrRefused: what was fetched, or kept in the file, is no policy that can be
	// used. The old one is still in force.
	ErrRefused = errors.New("the policy is refused")
	// ErrRolledBack: the new policy has been in force, but the streamtype of
	// Probe could not be reached. The old one is in force again.
	ErrRolledBack = errors.New("the policy was given up again")
	// ErrNotKept: the new policy is in force, but could not be written to File.
	ErrNotKept = errors.New("the policy is not kept on disk")
)

// FetcherOptions are the settings of a Fetcher.
type FetcherOptions struct {
	// Load compiles the text of a policy, or returns an error. It must be set;
	// Loader of package github.com/secure-streams/sspolicy returns one that makes
	// all checks.
	Load func(text []byte) (*policy.Policy, error)

	// Verify, if any, is asked before Load: an error refuses the policy. It is for
	// signatures. from is the response, with its metadata, or nil for the text
	// that is in File.
	//
	// Who can make a policy that passes can do what a policy can do, which is to
	// say where fetch_policy itself is to look next, and over what. An older one
	// with a good signature passes as well, unless Verify compares what the text
	// says of its release with what is in force.
	Verify func(text []byte, from *runtime.Response) error

	// MaxSize is how many bytes a policy may have, Timeout how long it may take to
	// fetch it, retries included. 0 means DefaultMaxSize and DefaultFetchTimeout.
	MaxSize int
	Timeout time.Duration

	// Probe, if any, is the streamtype that the new policy must be able to
	// connect within ProbeTimeout (0 means DefaultProbeTimeout), or else the old
	// one is set again. A stream of it is made with ProbeOptions, connected and
	// destroyed; it sends no body.
	Probe        string
	ProbeTimeout time.Duration
	ProbeOptions []runtime.StreamOption

	// File, if any, is where the latest good policy is kept, for Restore.
	File string
}

// A Fetcher gets new policies by the streamtype fetch_policy of the policy in
// force, and puts them in force if they are good. Its methods may be called from
// any goroutine; one of them runs at a time.
type Fetcher struct {
	c    *runtime.Context
	o    FetcherOptions
	turn chan struct{}
}

// NewFetcher returns a Fetcher. It opens nothing and needs no closing. The error
// is that of options that can not be.
func NewFetcher(c *runtime.Context, o FetcherOptions) (*Fetcher, error) {
	if o.Load == nil {
		return nil, errors.New("sspolicy: NewFetcher: FetcherOptions.Load is not set")
	}
	if o.MaxSize < 0 || o.Timeout < 0 || o.ProbeTimeout < 0 {
		return nil, errors.New("sspolicy: NewFetcher: a limit is below 0")
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
	return &Fetcher{c: c, o: o, turn: make(chan struct{}, 1)}, nil
}

// Fetch gets a policy and puts it in force, by SetPolicy of the context, which
// says what happens to the streams there are. The stream that has fetched it is
// gone before. When there is an error the policy in force is the one from before,
// and streams have not noticed, but for two errors: with ErrRolledBack the policy
// changed twice, and with ErrNotKept the new one is in force.
//
// Other errors are ErrRefused and those of Fetch of a [runtime.Context]:
// runtime.ErrUnknownStreamType if the policy has no fetch_policy,
// runtime.ErrTooLong for one that is longer than MaxSize,
// context.DeadlineExceeded when Timeout is over.
func (f *Fetcher) Fetch(ctx context.Context) error {
	if err := f.fetch(ctx); err != nil {
		return fmt.Errorf("sspolicy: fetch policy: %w", err)
	}
	return nil
}

func (f *Fetcher) fetch(ctx context.Context) error {
	if err := f.take(ctx); err != nil {
		return err
	}
	defer f.give()
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
		return fmt.Errorf("%w: it has no streamtype %q to be probed", ErrRefused, f.o.Probe)
	}
	old := f.c.Policy()
	if err := f.c.SetPolicy(p); err != nil {
		return err
	}
	if f.o.Probe != "" {
		if err := f.probe(ctx); err != nil {
			err = fmt.Errorf("%w: streamtype %q: %w", ErrRolledBack, f.o.Probe, err)
			_, back := f.c.CompareAndSetPolicy(p, old) // unless somebody else has set one
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

func (f *Fetcher) take(ctx context.Context) error {
	select {
	case f.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *Fetcher) give() { <-f.turn }

// load makes a policy of a text.
func (f *Fetcher) load(text []byte, from *runtime.Response) (*policy.Policy, error) {
	if f.o.Verify != nil {
		if err := f.o.Verify(text, from); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrRefused, err)
		}
	}
	p, err := f.o.Load(text)
	if err == nil && p == nil {
		err = errors.New("there is none")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return p, nil
}

// probe connects a stream of the streamtype that the policy must reach.
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

// Restore puts the policy in force that is kept in File, after the same checks
// as for one that is fetched, but without a probe. A file that is not there is
// fs.ErrNotExist; one that can not be used is ErrRefused, and is logged. With an
// error nothing changes. It is meant for the start of a program, before there are
// streams.
func (f *Fetcher) Restore() error {
	_ = f.take(context.Background())
	defer f.give()
	err := f.restore()
	if err == nil {
		return nil
	}
	if errors.Is(err, ErrRefused) {
		f.c.Logger().Warn("sspolicy: the policy that was kept is passed over", "file", f.o.File, "err", err)
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
		return nil, fmt.Errorf("%w: FetcherOptions.File is not set", fs.ErrNotExist)
	}
	info, err := os.Stat(f.o.File)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // to open a named pipe would wait
		return nil, fmt.Errorf("%w: it is not a regular file", ErrRefused)
	}
	file, err := os.Open(f.o.File)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, min(int64(f.o.MaxSize), math.MaxInt64-1)+1))
	if err == nil && len(text) > f.o.MaxSize {
		err = fmt.Errorf("%w: it is %w: %d bytes", ErrRefused, runtime.ErrTooLong, f.o.MaxSize)
	}
	return text, err
}
