package runtime

import (
	"fmt"
	"iter"
)

// Messages returns the messages that the peer sends, each as a whole, as they
// come. Over HTTP the body of the answer is the only one.
//
//	for msg, err := range conn.Messages() {
//		if err != nil {
//			return err
//		}
//		...
//	}
//
// The sequence ends when no more are to come, or with the error that Read would
// return, or ErrTooLong. A message that is cut short is not in it; if the
// protocol is ws or mqtt and the policy makes another connection, the next
// message is the first one from there. The loop may end before, and a later one
// goes on with the next message. The messages are the caller's to keep.
func (c *Conn) Messages() iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for {
			msg, ok, err := c.message()
			if err != nil {
				yield(nil, err)
			}
			if err != nil || !ok || !yield(msg, nil) {
				return
			}
		}
	}
}

// message returns the next message. If there is none, ok is false.
func (c *Conn) message() (msg []byte, ok bool, err error) {
	x := c.x
	x.mu.Lock()
	defer x.mu.Unlock()
	for x.wait() {
		if x.flags&FlagSOM != 0 && x.off == 0 {
			msg = nil
		}
		if limit := x.call.limit; limit >= 0 && len(x.buf)-x.off > limit-len(msg) {
			x.fail(ErrTooLong)
			return nil, false, c.wrap("read", fmt.Errorf("a message is %w: %d bytes", ErrTooLong, limit))
		}
		msg = append(msg, x.buf[x.off:]...)
		end := x.flags&FlagEOM != 0
		x.take(len(x.buf) - x.off)
		if end {
			return msg, true, nil
		}
	}
	if x.err != nil {
		return nil, false, c.wrap("read", x.err)
	}
	return msg, len(msg) > 0, nil // raw has no messages: all is one
}
