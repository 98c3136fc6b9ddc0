package runtime

import (
	"cmp"
	"fmt"
	"io"
)

// writeLocked sends p and returns when the transport has accepted it.
func (x *exchange) writeLocked(p []byte) (n int, err error) {
	o := &x.out
	restarts := o.restarts
	if x.over || o.closing {
		return 0, x.writeErrorLocked()
	}
	o.buf, o.pending = p, true
	length := uint64(0)
	if x.separate() {
		length = uint64(len(p))
	}
	x.mu.Unlock()
	_ = x.s.ServeTx(length) // usually calls tx
	x.mu.Lock()
	for o.pending && !x.over && !o.closing && o.restarts == restarts && o.broken == nil {
		x.cond.Wait()
	}
	if !o.pending && o.broken == nil {
		return len(p), nil
	}
	n = len(p) - len(o.buf)
	o.buf, o.pending = nil, false
	if !x.over && !o.closing {
		return n, cmp.Or(o.broken, x.s.Err()) // the connection was lost
	}
	return n, x.writeErrorLocked()
}

// writeErrorLocked returns why no more can be sent.
func (x *exchange) writeErrorLocked() error {
	switch {
	case x.out.closing:
		return ErrClosed
	case x.err == nil:
		return io.ErrClosedPipe
	}
	return x.err
}

// closeWriteLocked ends the current message.
func (x *exchange) closeWriteLocked() {
	if o := &x.out; o.tail == tailOpen && !x.separate() {
		o.closed = true
		o.tail = tailLast
		_ = x.s.RequestTx()
	}
}

// pump sends the data of the readers.
func (x *exchange) pump() {
	o := &x.out
	for i := range o.parts {
		p := &o.parts[i]
		if seeker, ok := p.reader.(io.Seeker); ok {
			var err error
			if p.start, err = seeker.Seek(0, io.SeekCurrent); err != nil { // such as a pipe
				x.mu.Lock()
				p.reader = struct{ io.Reader }{p.reader}
				x.mu.Unlock()
			}
		}
	}
	buf := make([]byte, 16<<10)
	x.mu.Lock()
	defer x.mu.Unlock()
	for pass := o.restarts; ; pass = o.restarts {
		if pass > 0 {
			x.mu.Unlock()
			err := o.rewind()
			x.mu.Lock()
			if err != nil {
				x.abortLocked(fmt.Errorf("%w: %w", ErrBodySpent, err))
			}
		}
		for i := range o.parts {
			x.pumpPartLocked(&o.parts[i], buf, pass)
		}
		if x.over {
			return
		}
	}
}

// rewind seeks all readers that have been read back to their start.
func (o *outbox) rewind() error {
	for i := range o.parts {
		if p := &o.parts[i]; p.read {
			if _, err := p.reader.(io.Seeker).Seek(p.start, io.SeekStart); err != nil {
				return err
			}
		}
	}
	return nil
}

// pumpPartLocked sends a message once. It returns when it is time for the next
// message, when all must be sent again, or when the exchange is over. It does not
// hold mu while it reads.
func (x *exchange) pumpPartLocked(p *payload, buf []byte, pass int) {
	o := &x.out
	stale := func() bool { return x.over || o.restarts != pass }
	waitStale := func() {
		for !stale() {
			x.cond.Wait()
		}
	}
	r := p.reader
	if p.length >= 0 {
		r = io.LimitReader(r, p.length)
	}
	for total := int64(0); ; {
		for !o.requested && !stale() { // do not read before the transport asks
			x.cond.Wait()
		}
		if stale() {
			return
		}
		x.mu.Unlock()
		n, err := r.Read(buf)
		x.mu.Lock()
		total += int64(n)
		if n > 0 {
			o.used, p.read = true, true
		}
		if stale() {
			return
		}
		if n > 0 {
			if _, werr := x.writeLocked(buf[:n]); werr != nil {
				waitStale()
			}
		}
		switch {
		case stale():
			return
		case err == io.EOF && total < p.length:
			x.abortLocked(fmt.Errorf("the body: %w after %d of %d bytes", io.ErrUnexpectedEOF, total, p.length))
			return
		case err == io.EOF:
			at := o.at
			x.closeWriteLocked()
			for !stale() && (o.at == at || at == len(o.parts)-1) {
				x.cond.Wait()
			}
			return
		case err != nil:
			x.abortLocked(fmt.Errorf("the body: %w", err))
			return
		}
	}
}
