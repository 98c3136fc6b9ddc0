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

// Errors of a body.
var (
	errBodyShort  = errors.New("sspolicy: the message is shorter than the announced length")
	errBodyLong   = errors.New("sspolicy: the messages are longer than the announced length")
	errBodyClosed = errors.New("sspolicy: the request has ended")
	errNoTx       = errors.New("sspolicy: a message with a length, but no Tx callback")
)

// A body is the body of a request, which net/http reads. It calls Tx for each piece
// of the message, and for one message after another if streamtypes share the
// request.
type body struct {
	ctx    context.Context
	l      transport.Link
	ready  <-chan struct{}
	length int64 // of the body; -1 if unknown
	left   int64 // of the messages; -1 if unknown
	parts  int   // messages that are not complete

	form  *form             // nil unless multipart
	frame bytes.Buffer      // to be sent before more of the messages
	w     *multipart.Writer // to frame

	once   sync.Once
	closed chan struct{}
}

// body returns the body of a request, or nil if it has none. length is the
// content-length of the metadata, or -1. As in lws, a request with a positive
// length has a body whatever its method, and so does a multipart request.
func (n *connector) body(ctx context.Context, l transport.Link, length int64) (*body, error) {
	announced, tx := l.Outgoing()
	if length < 0 && (n.st.HTTP.HasBody() || n.form != nil) && !n.st.HTTP.NoContentLength {
		if announced > 0 && announced <= math.MaxInt64/2 {
			length = int64(announced)
		}
	}
	switch {
	case length > 0 && !tx:
		return nil, errNoTx
	case n.form != nil:
	case length == 0, length < 0 && !n.st.HTTP.HasBody(), !tx:
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

// next ends a message and begins the next one, if any.
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

// Read reads a piece of the body. It blocks until the program provides one.
func (b *body) Read(p []byte) (int, error) {
	for empty := false; ; {
		if b.left == 0 && b.parts == 1 {
			b.next() // without a Tx for more than was announced
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
			// As in lws, Tx is called again after an empty piece with a flag, but
			// here only once.
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

// Close ends the body, and a Read that is waiting.
func (b *body) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}
