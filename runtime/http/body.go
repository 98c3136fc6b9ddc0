package http

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"mime/multipart"
	"sync"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// errBodyShort is why a request fails whose program ended its message early.
var errBodyShort = errors.New("sspolicy: the message is shorter than the program said it would be")

// errBodyLong is why a request fails whose messages have more than was said,
// before the last of them.
var errBodyLong = errors.New("sspolicy: the messages are longer than the program said they would be")

var errBodyClosed = errors.New("sspolicy: the request has ended")

// A body is the body of a request, as net/http reads it. It asks the program
// for the message a piece at a time, and for one message after the other where
// streamtypes share the request.
type body struct {
	ctx    context.Context
	l      transport.Link
	ready  <-chan struct{}
	length int64 // of the body; -1 if it is not known
	left   int64 // of the messages; -1 if it is not known
	parts  int   // how many messages there are still to come, the present one included

	form  *form             // nil if it is not multipart
	frame bytes.Buffer      // what is to be sent before more of the messages
	w     *multipart.Writer // to frame

	once   sync.Once
	closed chan struct{}
}

// errNoTx is why a request fails whose message nobody is there to give.
var errNoTx = errors.New("sspolicy: a message with a length, but no Tx callback")

// body returns the body of the request, or nil if it has none. length is the
// content-length that comes from metadata, or -1; as in lws, one above 0 makes
// a body follow whatever the method, and so does multipart.
func (n *connector) body(ctx context.Context, l transport.Link, length int64) (*body, error) {
	announced, tx := l.Outgoing()
	if length < 0 && (hasBody(n.method) || n.form != nil) && !n.st.HTTP.NoContentLength {
		if announced > 0 && announced <= math.MaxInt64/2 {
			length = int64(announced)
		}
	}
	switch {
	case length > 0 && !tx:
		return nil, errNoTx
	case n.form != nil:
	case length == 0, length < 0 && !hasBody(n.method), !tx:
		return nil, nil
	}
	b := &body{ctx: ctx, l: l, length: length, left: length, parts: len(n.setup.Chain), closed: make(chan struct{})}
	if n.form != nil {
		b.form = n.form
		b.w = multipart.NewWriter(&b.frame)
		b.form.begin(b.w, 0)
		if !tx {
			b.length, b.left = 0, 0
		}
		if b.length >= 0 {
			b.length += b.form.overhead
		}
	}
	if tx {
		b.ready = l.Ready()
	} else {
		for b.parts > 0 { // each message is empty
			b.next()
		}
	}
	return b, nil
}

// next goes from a message that has ended to the next one.
func (b *body) next() {
	b.parts--
	switch {
	case b.form == nil:
	case b.parts > 0:
		b.form.begin(b.w, len(b.form.parts)-b.parts)
	default:
		b.form.end(b.w)
	}
}

// Read gets a piece of the body. It blocks until the program has one.
func (b *body) Read(p []byte) (int, error) {
	for empty := false; ; {
		if b.left == 0 && b.parts == 1 {
			b.next() // what is more than was said is not asked for
		}
		if b.frame.Len() > 0 {
			return b.frame.Read(p)
		}
		if b.parts == 0 {
			return 0, io.EOF
		}
		if len(p) == 0 {
			return 0, nil
		}
		if b.left >= 0 && int64(len(p)) > b.left {
			p = p[:max(b.left, 1)]
		}
		piece, err := b.l.Tx(p)
		if err != nil {
			return 0, err
		}
		n := piece.N
		if b.left >= 0 {
			if int64(n) > b.left {
				return 0, errBodyLong
			}
			b.left -= int64(n)
		}
		switch {
		case piece.Flags&policy.FlagEOM != 0:
			b.parts = 1
			b.next()
			if b.left > 0 {
				return n, errBodyShort
			}
		case b.parts > 1 && piece.Next:
			b.next()
			if n == 0 {
				continue
			}
		}
		if n > 0 {
			return n, nil
		}
		if piece.Flags != 0 && !empty {
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
