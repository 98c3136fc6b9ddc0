package runtime

import (
	"time"

	"github.com/secure-streams/sspolicy/runtime/transport"
)

// loanWait is how long a loan lasts without use before the transport reads by
// itself again. It may last up to twice as long.
const loanWait = 20 * time.Millisecond

// A loan lends the reading of a transport to goroutines of the program, which
// avoids a switch of goroutines. It is guarded by the stream's mu.
type loan struct {
	wanted  bool         // ServeRx is in use
	waits   bool         // ServeRx has returned false, and nothing has arrived since
	step    func() error // reads once; nil while the transport reads by itself
	serving bool         // a goroutine of the program is in step
	err     error        // of step, which is then not called again
	back    chan struct{}

	timer  *time.Timer // ends the loan if it is not used
	timing bool        // timer runs
	uses   uint        // calls of step
	seen   uint        // uses when timer last expired
}

// ServeRx reads once from the peer on the calling goroutine, and delivers the
// payload. For a program that waits for payload, this is faster than the goroutine
// of the transport. It reports whether it has read. If not, such as after PauseRx,
// the transport reads by itself, and its goroutine delivers the payload that arrives
// next. ServeRx must not be called from callbacks.
func (s *Stream) ServeRx() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.link
	if l == nil || l.phase != attempting || l.cause != nil {
		return false
	}
	if l.loan == nil {
		l.loan = new(loan)
	}
	b := l.loan
	b.wanted = true
	// In a pause the step would wait for ResumeRx, which may be the caller's to call:
	// since the caller last looked, the transport may have delivered what caused it.
	if b.step == nil || b.serving || b.err != nil || s.paused {
		b.waits = true
		if !b.serving {
			b.endLocked()
		}
		return false
	}
	b.serving, b.waits = true, false
	b.uses++
	step := b.step
	s.mu.Unlock()
	err := step()
	s.mu.Lock()
	b.serving, b.err = false, err
	if err != nil || l.cause != nil || !b.wanted {
		b.endLocked()
	} else {
		l.timeLoanLocked()
	}
	return true
}

// ServeTx is like [Stream.RequestTxLen], for a goroutine that can wait for a write.
// If the transport supports it, ServeTx calls Tx and sends on the calling
// goroutine, unless another one is sending. If n is 0, the length of the last
// RequestTxLen holds. ServeTx must not be called from callbacks.
func (s *Stream) ServeTx(n uint64) error {
	s.mu.Lock()
	if n != 0 {
		s.announceLocked(n)
	}
	l := s.link
	if l == nil || l.sender == nil || l.phase != attempting || s.machine.Destroying() {
		defer s.mu.Unlock()
		return s.requestTxLocked()
	}
	s.wantTxLocked()
	send := l.sender
	s.mu.Unlock()
	send()
	return nil
}

// ServeAttempt is like [Stream.RequestTx], for a goroutine that waits for the end
// of an attempt. If the transport is a [transport.Prompter], the attempt runs on
// the calling goroutine and ServeAttempt returns after it; otherwise it returns at
// once. It must not be called from callbacks.
func (s *Stream) ServeAttempt() error {
	s.mu.Lock()
	if p, ok := s.t.connector.(transport.Prompter); !ok || !p.Prompt() || s.busy || s.link != nil || s.machine.Destroying() {
		defer s.mu.Unlock()
		return s.requestTxLocked()
	}
	s.wantsTx = true
	if !s.machine.Request() {
		s.mu.Unlock()
		return nil
	}
	s.busy = true
	s.link = newLink(s)
	l := s.link
	s.mu.Unlock()
	l.runStream()
	return nil
}

func (l *link) ServeTx(send func()) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.spent, l.sender = true, send
}

func (l *link) Lend(step func() error) error {
	mu := &l.s.mu
	mu.Lock()
	defer mu.Unlock()
	b := l.loan
	if l.cause != nil || b == nil || !b.wanted || b.waits {
		return l.cause
	}
	l.spent = true // the timer may expire at any later time
	b.step = step
	if b.back == nil {
		b.back = make(chan struct{}, 1)
		b.timer = time.AfterFunc(loanWait, l.expireLoan)
		b.timing = true
	}
	select {
	case <-b.back: // of a loan before
	default:
	}
	l.timeLoanLocked()
	for again := true; again; again = b.serving {
		mu.Unlock()
		<-b.back
		mu.Lock()
	}
	b.step = nil
	if b.err != nil {
		return b.err
	}
	return l.cause
}

func (l *link) Recall() {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if b := l.loan; b != nil {
		b.wanted = false
		b.endLocked()
	}
}

// endLocked wakes the goroutine that has lent its reading, if any.
func (b *loan) endLocked() {
	if b.step != nil {
		select {
		case b.back <- struct{}{}:
		default:
		}
	}
}

// timeLoanLocked starts the timer of an unused loan.
func (l *link) timeLoanLocked() {
	if b := l.loan; !b.timing {
		b.timing = true
		b.timer.Reset(loanWait)
	}
}

// expireLoan ends a loan that has not been used for a while. While the loan is in
// use the timer repeats, since restarting it for each use would cost more.
func (l *link) expireLoan() {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	b := l.loan
	b.timing = false
	switch {
	case b.step == nil || b.serving:
	case b.uses != b.seen:
		b.seen = b.uses
		l.timeLoanLocked()
	default:
		b.wanted = false
		b.endLocked()
	}
}
