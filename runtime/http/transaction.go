package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"path"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime/internal/httpserver"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

var errAnswerShort = errors.New("sspolicy: the answer is shorter than the announced length")

// A transaction is a request to a server and its answer.
type transaction struct {
	n *server
	l transport.AcceptedLink
	w http.ResponseWriter
	r *http.Request

	status int // that was sent
}

func (x *transaction) rc() *http.ResponseController { return http.NewResponseController(x.w) }

// serveStream answers a request that is a stream of its own.
func (x *transaction) serveStream(c *httpserver.Conn) {
	var mu sync.Mutex
	done := false
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		done = true // w must not be used after this
	}()
	l, err := c.Accept(x.n.setup, x.r)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	l.OnEnd(func() {
		mu.Lock()
		defer mu.Unlock()
		if !done {
			_ = x.rc().SetReadDeadline(past)
			_ = x.rc().SetWriteDeadline(past)
		}
	})
	x.l = l
	if err = x.run(); err == nil {
		l.Complete()
	}
	l.End(err)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
}

// past is a deadline that ends reads and writes at once.
var past = time.Unix(1, 0)

// run delivers the request and sends the answer.
func (x *transaction) run() error {
	r := x.r
	defer x.closeContent()
	if err := x.l.Begin(httpserver.Request(r)); err != nil {
		return err
	}
	if a := x.l.Reply(false); !(a.Acked && a.Status >= 400) && r.Body != http.NoBody {
		err := x.receive()
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			x.l.Reply(true)
			http.Error(x.w, http.StatusText(http.StatusRequestEntityTooLarge), http.StatusRequestEntityTooLarge)
			_ = x.rc().Flush()
		}
		if err != nil {
			return err
		}
	}
	return x.answer()
}

// closeContent closes the content of the program.
func (x *transaction) closeContent() {
	if a := x.l.Reply(true); a.Content != nil {
		if c, ok := a.Content.ReadSeeker.(io.Closer); ok {
			c.Close()
		}
	}
}

// receive delivers the body of the request.
func (x *transaction) receive() error {
	x.n.limitBody(x.w, x.r)
	body := &timedBody{x.r.Body, x.rc(), x.n.setup.Limits.IdleTimeout, x.r.ProtoMajor >= 2}
	if x.n.st.HTTP.MultipartSSIn {
		boundary, err := boundaryOf(x.r.Header.Get("Content-Type"))
		if err != nil {
			return err
		}
		if boundary != "" {
			return split(body, boundary, x.l.Rx)
		}
	}
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	flags := policy.FlagSOM
	for {
		k, err := body.Read(buf[:])
		if k > 0 {
			if err := x.l.Rx(buf[:k], flags); err != nil {
				return err
			}
			flags = 0
		}
		switch {
		case err == nil:
		case err != io.EOF:
			return err
		case flags != 0:
			return nil
		default:
			x.receiveTrailer()
			return x.l.RxEnd()
		}
	}
}

// receiveTrailer sets the metadata that is mapped to the trailer of the request.
func (x *transaction) receiveTrailer() {
	if len(x.r.Trailer) == 0 {
		return
	}
	for _, m := range x.n.items {
		if v := x.r.Trailer[m.name]; len(v) > 0 {
			x.l.Receive(m.index, v[0])
		}
	}
}

// A timedBody is a body with a time limit for each piece.
type timedBody struct {
	io.ReadCloser
	rc    *http.ResponseController
	limit time.Duration
	h2    bool
}

func (b *timedBody) Read(p []byte) (int, error) {
	if b.limit <= 0 {
		return b.ReadCloser.Read(p)
	}
	_ = b.rc.SetReadDeadline(time.Now().Add(b.limit))
	n, err := b.ReadCloser.Read(p)
	// Over h2 the deadline would also end the request between reads. Over h1 it
	// limits how long net/http reads an abandoned body.
	if b.h2 || err == io.EOF {
		_ = b.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}

// answer sends the program's answer.
func (x *transaction) answer() error {
	a := x.l.Reply(false)
	switch {
	case a.Content != nil:
		return x.sendContent()
	case !a.Sends:
		return x.sendHead()
	}
	var buf *[bufferSize]byte
	defer func() {
		if buf != nil {
			buffers.Put(buf)
		}
	}()
	sent, left := false, int64(-1)
	var head http.Header
	for {
		if !x.l.WantsTx() {
			if sent {
				if err := x.flush(); err != nil {
					return err
				}
			}
			if err := x.await(); err != nil {
				return err
			}
			if a = x.l.Reply(false); a.Content != nil && !sent {
				return x.sendContent()
			}
		}
		if buf == nil {
			buf = buffers.Get().(*[bufferSize]byte)
		}
		p := buf[:]
		if left >= 0 && int64(len(p)) > left {
			p = p[:left]
		}
		piece, err := x.l.Tx(p)
		if err != nil {
			return err
		}
		if piece.Empty() {
			continue
		}
		if !sent {
			all := int64(-1)
			if piece.Flags&policy.FlagEOM != 0 {
				all = int64(piece.N)
			}
			if left, err = x.head(all); err != nil {
				return err
			}
			sent = true
			if left >= 0 && int64(piece.N) > left {
				piece.N = int(left)
			}
			if !x.hasBody() {
				return nil
			}
			if left < 0 && all < 0 {
				head = x.w.Header().Clone()
			}
		}
		if piece.N > 0 {
			if err := x.write(buf[:piece.N]); err != nil {
				return err
			}
		}
		if left >= 0 {
			left -= int64(piece.N)
		}
		switch ends := piece.Flags&policy.FlagEOM != 0; {
		case ends && left > 0:
			return errAnswerShort
		case ends, left == 0:
			return x.sendTrailer(left, head)
		}
	}
}

// await waits for a request to send.
func (x *transaction) await() error {
	select {
	case <-x.l.Ready():
		return nil
	case <-x.l.Context().Done():
		return context.Cause(x.l.Context())
	case <-x.r.Context().Done():
		return fmt.Errorf("sspolicy: the client has given up: %w", context.Cause(x.r.Context()))
	}
}

// write sends a piece of the body.
func (x *transaction) write(p []byte) error {
	if limit := x.n.setup.Limits.IdleTimeout; limit > 0 && x.r.ProtoMajor >= 2 {
		_ = x.rc().SetWriteDeadline(time.Now().Add(limit))
	}
	_, err := x.w.Write(p)
	return err
}

// flush sends the pieces that have been written. The client then waits for the
// program, without a time limit.
func (x *transaction) flush() error {
	err := x.rc().Flush()
	if x.r.ProtoMajor >= 2 && x.n.setup.Limits.IdleTimeout > 0 {
		_ = x.rc().SetWriteDeadline(time.Time{}) // it would also end the stream between writes
	}
	return err
}

// hasBody reports whether the answer, whose head has been sent, has a body.
func (x *transaction) hasBody() bool {
	return x.r.Method != http.MethodHead && x.status != 204 && x.status != 304
}

// head sends the head of the answer, which has a body or not. It returns the length
// of the body, or -1 if unknown. all is the length if the whole body is available,
// and negative otherwise.
func (x *transaction) head(all int64) (length int64, err error) {
	a := x.l.Reply(true)
	h := x.w.Header()
	h["Content-Type"] = nil // net/http must not guess
	length, err = x.fill(h)
	if err != nil {
		return 0, err
	}
	none := x.n.st.HTTP.NoContentLength
	switch {
	case length >= 0:
	case none:
	case a.Length > 0 && a.Length <= math.MaxInt64:
		length = int64(a.Length)
	case all > smallBody, all >= 0 && x.r.Method == http.MethodHead:
		length = all
	}
	if length >= 0 {
		h["Content-Length"] = []string{strconv.FormatInt(length, 10)}
	}
	x.status = a.Status
	x.w.WriteHeader(a.Status)
	if none && length < 0 {
		return length, x.rc().Flush() // net/http would add the length of a short body
	}
	return length, nil
}

// smallBody is the size in bytes up to which net/http buffers a body and adds its
// content-length.
const smallBody = 2000

// fill sets the headers of the program's metadata. It returns the content-length among
// them, or -1.
func (x *transaction) fill(h http.Header) (length int64, err error) {
	length = -1
	add := func(name, value string) error {
		switch name {
		case "Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
			return &HeaderError{Header: name, Reason: "it frames the message or the connection"}
		case "Content-Length":
			length, err = strconv.ParseInt(value, 10, 64)
			if err != nil || length < 0 {
				return &HeaderError{Header: name, Reason: "it is not a length"}
			}
			return nil
		}
		h[name] = append(h[name], value)
		return nil
	}
	for _, m := range x.n.items {
		if value, set := x.l.Metadata(m.index); set {
			if err := add(m.name, value); err != nil {
				return 0, err
			}
		}
	}
	if x.n.st.DirectProtoStr {
		for _, f := range x.l.DirectHeaders() {
			if err := add(http.CanonicalHeaderKey(f.Name), f.Value); err != nil {
				return 0, err
			}
		}
	}
	return length, nil
}

// sendHead sends an answer without a body. For HEAD its length is that of the
// omitted body.
func (x *transaction) sendHead() error {
	if x.r.Method == http.MethodHead {
		_, err := x.head(-1)
		return err
	}
	left, err := x.head(0)
	if err == nil && left > 0 && x.hasBody() {
		err = errAnswerShort
	}
	return err
}

// sendTrailer sends the metadata that has changed since head was sent in a trailer,
// if the body has no length.
func (x *transaction) sendTrailer(length int64, head http.Header) error {
	if length >= 0 || head == nil || len(x.n.items) == 0 && !x.n.st.DirectProtoStr {
		return nil
	}
	now := make(http.Header)
	if _, err := x.fill(now); err != nil {
		return err
	}
	for name, values := range now {
		if !slices.Equal(values, head[name]) {
			x.w.Header()[http.TrailerPrefix+name] = values
		}
	}
	return nil
}

// sendContent sends the content of the program.
func (x *transaction) sendContent() error {
	a := x.l.Reply(true)
	h := x.w.Header()
	if _, err := x.fill(h); err != nil {
		return err
	}
	w := x.w
	if x.r.ProtoMajor >= 2 {
		w = contentWriter{x.w, x}
	}
	if a.Status == http.StatusOK {
		http.ServeContent(w, x.r, a.Content.Name, a.Content.Modified, a.Content.ReadSeeker)
		return x.ended()
	}
	n, err := a.Content.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = a.Content.Seek(0, io.SeekStart)
	}
	if err != nil {
		return err
	}
	x.status = a.Status
	if x.hasBody() {
		h.Set("Content-Length", strconv.FormatInt(n, 10))
		if h["Content-Type"] == nil {
			h["Content-Type"] = nil // net/http must not guess
			if t := mime.TypeByExtension(path.Ext(a.Content.Name)); t != "" {
				h.Set("Content-Type", t)
			}
		}
	}
	w.WriteHeader(a.Status)
	if x.hasBody() {
		if _, err := io.CopyN(w, a.Content, n); err != nil {
			return err
		}
	}
	return x.ended()
}

// ended returns why the stream has ended, or nil.
func (x *transaction) ended() error {
	if ctx := x.l.Context(); ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// A contentWriter is the ResponseWriter of content over HTTP/2, with a time limit
// for each piece.
type contentWriter struct {
	http.ResponseWriter
	x *transaction
}

func (w contentWriter) Write(p []byte) (int, error) {
	if err := w.x.write(p); err != nil {
		return 0, err
	}
	return len(p), nil
}
