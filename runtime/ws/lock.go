package ws

import "sync"

// A lock is a mutex that is held while the network or the program takes its time. A
// goroutine that waits for it does not stop the clock of a bubble of testing/synctest, as
// one that waits for a sync.Mutex does. The zero lock is free.
type lock struct {
	mu      sync.Mutex
	held    bool
	waiters int32
	passed  chan struct{} // holds a value while the lock passes to a waiter; nil before the first
}

// Lock locks l.
func (l *lock) Lock() {
	l.mu.Lock()
	if !l.held {
		l.held = true
		l.mu.Unlock()
		return
	}
	l.waiters++
	if l.passed == nil {
		l.passed = make(chan struct{}, 1)
	}
	passed := l.passed
	l.mu.Unlock()
	<-passed
}

// TryLock locks l if it is free, and reports whether it was.
func (l *lock) TryLock() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held {
		return false
	}
	l.held = true
	return true
}

// Unlock unlocks l, or passes it to a waiter.
func (l *lock) Unlock() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiters == 0 {
		l.held = false
		return
	}
	l.waiters--
	l.passed <- struct{}{}
}
