package http

import (
	"context"
	"errors"
	"io"
	"math"
	"sync"

	"github.com/secure-streams/sspolicy/runtime"
)

// errBodyShort is why a request fails whose program ended its message early.
var errBodyShort = errors.New("sspolicy: the message is shorter than the program said it would be")

var errBodyClosed = errors.New("sspolicy: the request has ended")

// A body is the body of a request, as net/http reads it. It asks the program
// for the message a piece at a time.
type body struct {
	ctx   context.Context
	l     *runtime.Link
	ready <-chan struct{}
	left  int64 // of the message; -1 if it is not known
	end   bool  // the program has said that the message is complete

	once   sync.Once
	closed chan struct{}
}

// errNoTx is why a request fails whose message nobody is there to give.
var errNoTx = errors.New("sspolicy: a message with a length, but no Tx callback")

// body returns the body of the request, or nil if it has none. length is the
// content-length that comes from metadata, or -1; as in lws, one above 0 makes
// a body follow whatever the method.
func (n *connector) body(ctx context.Context, l *runtime.Link, length int64) (*body, error) {
	if length < 0 && hasBody(n.method) && !n.st.HTTP.NoContentLength {
		if k := l.TxLen(); k > 0 && k <= math.MaxInt64 {
			length = int64(k)
		}
	}
	switch {
	case length > 0 && !l.HasTx():
		return nil, errNoTx
	case length == 0, length < 0 && !hasBody(n.method), !l.HasTx():
		return nil, nil
	}
	return &body{ctx: ctx, l: l, ready: l.TxReady(), left: length, closed: make(chan struct{})}, nil
}

// Read gets a piece of the message. It blocks until the program has one.
func (b *body) Read(p []byte) (int, error) {
	for empty := false; ; {
		if b.end || b.left == 0 {
			return 0, io.EOF
		}
		if len(p) == 0 {
			return 0, nil
		}
		if b.left > 0 && int64(len(p)) > b.left {
			p = p[:b.left]
		}
		n, flags, err := b.l.Tx(p)
		if err != nil {
			return 0, err
		}
		if b.left > 0 {
			b.left -= int64(n)
		}
		if flags&runtime.FlagEOM != 0 {
			b.end = true
			if b.left > 0 {
				return n, errBodyShort
			}
		}
		if n > 0 {
			return n, nil
		}
		if flags != 0 && !empty {
			// An empty piece with a flag: as in lws another one is asked for at
			// once, but not for ever.
			empty = true
			continue
		}
		select {
		case <-b.ready:
		case <-b.closed:
			return 0, errBodyClosed
		case <-b.ctx.Done():
			return 0, context.Cause(b.ctx)
		}
	}
}

// Close ends the body, also for a Read that is waiting.
func (b *body) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}
