package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync/atomic"

	"golang.org/x/net/http2"

	"github.com/secure-streams/sspolicy/runtime/transport"
)

// An h2Stream is a request over HTTP/2 and its response. It is the body of the
// response.
type h2Stream struct {
	c        *h2Conn
	ctx      context.Context
	wake     chan struct{} // receives a value when the response changes
	room     chan struct{} // receives a value when there may be room to send; nil without a body
	request  io.Closer     // the body of the request, or nil
	head     bool          // the method is HEAD
	bodyRead atomic.Bool   // part of the request's body has been read

	// Guarded by the mu of the connection.
	id      uint32
	resp    *http.Response // nil until its headers have arrived
	buf     []byte         // received
	off     int            // bytes of buf that have been read
	left    int64          // of the response's content-length; -1 if unknown
	err     error          // the end of the response: io.EOF if it is complete
	receive int64          // the window of the server
	unacked int64          // bytes read since the latest WINDOW_UPDATE
	window  int64          // bytes that may be sent
	sent    bool           // the whole request has been sent
	reset   bool           // no more may be sent
	ended   bool           // see endLocked
}

func newH2Stream(c *h2Conn, ctx context.Context) *h2Stream {
	return &h2Stream{c: c, ctx: ctx, wake: make(chan struct{}, 1), receive: c.streamWindow()}
}

// streamWindow returns the window of the server for a stream.
func (c *h2Conn) streamWindow() int64 {
	if c.p.key.credit {
		return creditWindow
	}
	return streamWindow
}

// roundTrip sends the request, and waits for the headers of the response. reused
// reports whether the connection has carried a request before.
func (st *h2Stream) roundTrip(req *http.Request, reused bool) (*http.Response, error) {
	c := st.c
	st.head = req.Method == http.MethodHead
	if req.Body != nil {
		st.request, st.room = req.Body, make(chan struct{}, 1)
	}
	host, err := authority(req)
	if err != nil {
		c.unreserve()
		return nil, err
	}
	trace := httptrace.ContextClientTrace(st.ctx)
	if trace != nil && trace.WroteHeaders != nil {
		trace.WroteHeaders() // early: the response may arrive before the write returns
	}
	c.mu.Lock()
	if c.err != nil || c.goAway {
		err := fmt.Errorf("%w: the connection is closing", errUnprocessed)
		if !reused && !c.goAway {
			err = c.err // as if it had not been sent: the policy decides when to retry
		}
		c.mu.Unlock()
		c.unreserve()
		return nil, err
	}
	st.id, st.window = c.nextID, c.initial
	c.nextID += 2
	c.streams[st.id] = st
	if st.sent = req.Body == nil; !st.sent {
		c.senders++
	}
	c.encoder.write(c, st.id, req, host)
	c.caused.Add(20)
	sent := clock()
	if req.Body == nil {
		c.flushOnceLocked()
	} else {
		go st.send(req.Body, req.ContentLength)
	}
	c.mu.Unlock()
	for {
		c.mu.Lock()
		resp, err := st.resp, st.err
		complete := err == io.EOF && len(st.buf) == 0
		if complete || resp == nil && err != nil {
			st.endLocked()
		}
		c.mu.Unlock()
		if complete || resp == nil && err != nil {
			st.released()
		}
		switch {
		case resp != nil:
			if trace != nil && trace.GotFirstResponseByte != nil {
				trace.GotFirstResponseByte()
			}
			resp.Request, resp.Body = req, st
			if complete {
				resp.Body = http.NoBody
			}
			return resp, nil
		case err != nil:
			return nil, err
		}
		select {
		case <-st.wake:
		case <-st.ctx.Done():
			st.Close()
			err := context.Cause(st.ctx)
			if err == transport.ErrTimeout {
				c.suspect(sent)
			}
			return nil, err
		}
	}
}

// Read reads from the body of the response. If p is empty it waits for payload.
func (st *h2Stream) Read(p []byte) (n int, err error) {
	c := st.c
	for {
		c.mu.Lock()
		if st.off < len(st.buf) {
			n = copy(p, st.buf[st.off:])
			if st.off += n; st.off == len(st.buf) {
				st.buf, st.off = st.buf[:0], 0
				if st.err == io.EOF && n > 0 {
					err = io.EOF
					st.endLocked()
				}
			}
			if st.creditLocked(int64(n)) {
				c.flushAsyncLocked()
			}
			c.mu.Unlock()
			if err != nil {
				st.released()
			}
			return n, err
		}
		if err := st.err; err != nil {
			st.endLocked()
			c.mu.Unlock()
			st.released()
			return 0, err
		}
		c.mu.Unlock()
		select {
		case <-st.wake:
		case <-st.ctx.Done():
			st.Close()
			return 0, context.Cause(st.ctx)
		}
	}
}

var errBodyDone = errors.New("sspolicy: the response is closed")

// Close ends the request. It may be called during a Read.
func (st *h2Stream) Close() error {
	c := st.c
	c.mu.Lock()
	st.failLocked(errBodyDone)
	st.endLocked()
	c.mu.Unlock()
	st.released()
	return nil
}

// endLocked ends the request on the connection. It releases mu while it writes. The
// caller must call released without mu.
func (st *h2Stream) endLocked() {
	c := st.c
	if st.ended {
		return
	}
	st.ended = true
	delete(c.streams, st.id)
	if st.room != nil && !st.sent {
		c.senders--
	}
	st.signalRoom()
	switch {
	case c.err != nil, st.reset, st.sent && st.err == io.EOF:
	case st.err == io.EOF: // the server does not want the rest
		_ = c.framer.WriteRSTStream(st.id, http2.ErrCodeNo)
	default:
		_ = c.framer.WriteRSTStream(st.id, http2.ErrCodeCancel)
	}
	c.releaseLocked()
	c.flushAsyncLocked()
}

// released frees the resources that wait for the end of the request.
func (st *h2Stream) released() {
	if st.request != nil {
		st.request.Close()
	}
	st.c.p.released(st.c.host)
}

// failLocked ends the response with err, unless it has ended.
func (st *h2Stream) failLocked(err error) {
	if st.err == nil {
		st.err = err
	}
	st.signal()
	st.signalRoom()
}

// resetLocked ends the stream because of data from the server.
func (st *h2Stream) resetLocked(code http2.ErrCode, err error) {
	if !st.reset && !st.ended {
		st.reset = true
		_ = st.c.framer.WriteRSTStream(st.id, code)
	}
	st.failLocked(err)
}

func (st *h2Stream) signal() {
	select {
	case st.wake <- struct{}{}:
	default:
	}
}

func (st *h2Stream) signalRoom() {
	if st.room != nil {
		select {
		case st.room <- struct{}{}:
		default:
		}
	}
}

// headersLocked processes received headers. It reports whether they belong to an
// interim response.
func (st *h2Stream) headersLocked(h responseHead, end bool) (interim bool) {
	switch {
	case st.resp != nil && !end:
		st.resetLocked(http2.ErrCodeProtocol, malformed("headers within the body"))
	case st.resp != nil: // trailers are ignored
		st.completeLocked()
	case h.status == 0:
		st.resetLocked(http2.ErrCodeProtocol, malformed("no status"))
	case h.status < 200 && (end || h.status == http.StatusSwitchingProtocols):
		st.resetLocked(http2.ErrCodeProtocol, malformed("an interim status at the end"))
	case h.status < 200:
		return true
	default:
		st.responseLocked(h, end)
	}
	return false
}

// responseLocked receives the headers of the response.
func (st *h2Stream) responseLocked(h responseHead, end bool) {
	resp := &http.Response{StatusCode: h.status, Proto: "HTTP/2.0", ProtoMajor: 2, Header: h.header, ContentLength: -1}
	if v := h.header["Content-Length"]; len(v) > 0 {
		n, err := strconv.ParseUint(v[0], 10, 63)
		if err != nil || len(v) > 1 && v[1] != v[0] {
			st.resetLocked(http2.ErrCodeProtocol, malformed("an invalid content-length"))
			return
		}
		resp.ContentLength = int64(n)
	} else if end {
		resp.ContentLength = 0
	}
	st.left = resp.ContentLength
	if st.head {
		st.left = 0
	}
	st.resp = resp
	if end {
		if st.head || h.status == http.StatusNotModified {
			st.left = 0
		}
		st.completeLocked()
	}
	st.signal()
}

// creditLocked returns n bytes of the window to the server, together with earlier
// ones once they justify a frame. It reports whether there is a frame to send.
func (st *h2Stream) creditLocked(n int64) bool {
	if st.unacked += n; st.err != nil || st.unacked < st.c.streamWindow()/2 {
		return false
	}
	_ = st.c.framer.WriteWindowUpdate(st.id, uint32(st.unacked))
	st.receive += st.unacked
	st.unacked = 0
	return true
}

// dataLocked processes a piece of the body, in a frame of size bytes. The error is
// one of the connection.
func (st *h2Stream) dataLocked(data []byte, size int64, end bool) error {
	if st.receive -= size; st.receive < 0 {
		return &h2Error{http2.ErrCodeFlowControl, "more than the window of a stream"}
	}
	st.creditLocked(size - int64(len(data))) // padding is not read
	switch {
	case st.resp == nil:
		st.resetLocked(http2.ErrCodeProtocol, malformed("a body before the headers"))
		return nil
	case st.left >= 0 && int64(len(data)) > st.left:
		st.resetLocked(http2.ErrCodeProtocol, malformed("a body longer than its content-length"))
		return nil
	case st.left > 0:
		st.left -= int64(len(data))
	}
	// Move only if at least half has been read, so that each byte is moved once on
	// average.
	if len(st.buf)+len(data) > cap(st.buf) && st.off > len(st.buf)/2 {
		st.buf = st.buf[:copy(st.buf, st.buf[st.off:])]
		st.off = 0
	}
	st.buf = append(st.buf, data...)
	if end {
		st.completeLocked()
	}
	if len(data) > 0 {
		st.signal()
	}
	return nil
}

// completeLocked completes the response.
func (st *h2Stream) completeLocked() {
	if st.left > 0 {
		st.failLocked(io.ErrUnexpectedEOF)
		return
	}
	st.failLocked(io.EOF)
}

func malformed(what string) error {
	return fmt.Errorf("sspolicy: h2: the response is malformed: %s", what)
}

// send sends the head of a request, which is in out, and the body.
func (st *h2Stream) send(body io.ReadCloser, length int64) {
	defer body.Close()
	st.c.mu.Lock()
	st.c.flushLocked()
	st.c.mu.Unlock()
	if length == 0 {
		length = -1 // unknown
	}
	st.bodyRead.Store(true)
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	for {
		n, err := body.Read(buf[:])
		if length >= 0 {
			length -= int64(n)
			if length == 0 && err == nil { // let the last frame end the stream
				var more [1]byte
				for n2 := 0; n2 == 0 && err == nil; {
					n2, err = body.Read(more[:])
					length -= int64(n2)
				}
			}
			if length < 0 {
				err = errBodyLong
			} else if err == io.EOF && length > 0 {
				err = errBodyShort
			}
		}
		if err != nil && err != io.EOF {
			st.c.mu.Lock()
			st.resetLocked(http2.ErrCodeCancel, err)
			st.c.flushLocked()
			st.c.mu.Unlock()
			return
		}
		if !st.write(buf[:n], err == io.EOF) || err == io.EOF {
			return
		}
	}
}

// write sends a piece of the body, and its end. It returns false if the server does
// not want the rest.
func (st *h2Stream) write(p []byte, end bool) bool {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if st.ended || st.reset || st.err != nil || c.err != nil {
			return false
		}
		n := int(min(int64(min(len(p), c.maxFrame)), st.window, c.window))
		if len(c.out) < maxUnsent && (n > 0 || len(p) == 0) {
			last := n == len(p)
			if last && end {
				st.sent = true
				c.senders--
			}
			if last && !end && n == 0 {
				return true
			}
			_ = c.framer.WriteData(st.id, last && end, p[:n])
			st.window -= int64(n)
			c.window -= int64(n)
			c.caused.Add(4)
			c.flushLocked()
			if last {
				return true
			}
			p = p[n:]
			continue
		}
		c.mu.Unlock()
		select {
		case <-st.room:
		case <-st.ctx.Done():
		}
		c.mu.Lock()
		if st.ctx.Err() != nil {
			return false
		}
	}
}
