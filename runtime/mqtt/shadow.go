package mqtt

import (
	"context"
	"time"
)

const (
	// shadowReady is how long a stream waits for the SUBACK of a shadow's topics.
	shadowReady = (maxResends + 1) * resendAfter
	// shadowLimit is how long a stream waits for the answer of the shadow, as in
	// lws.
	shadowLimit = 60 * time.Second
)

// A shadow is the subscription for the answer of a device shadow to the latest
// message of a stream.
type shadow struct {
	topic   string      // of the message; "" until the subscription is accepted
	timer   *time.Timer // nil if there is no subscription
	filters []string    // set by the stream's goroutine, guarded by the mu of the connection
}

// start starts or restarts the time limit.
func (sh *shadow) start(limit time.Duration) {
	sh.stop()
	sh.timer = time.NewTimer(limit)
}

func (sh *shadow) stop() {
	if sh.timer != nil {
		sh.timer.Stop()
		sh.timer = nil
	}
}

// expiry returns a channel that receives a value at the time limit, or nil without
// one.
func (sh *shadow) expiry() <-chan time.Time {
	if sh.timer == nil {
		return nil
	}
	return sh.timer.C
}

// answeredBy reports whether a message on a topic is the answer.
func (sh *shadow) answeredBy(topic string) bool {
	return topic == sh.topic+"/accepted" || topic == sh.topic+"/rejected"
}

// beginShadow subscribes to the answers to a message for a shadow. It reports
// whether the server has accepted the subscription.
func (st *stream) beginShadow(topic string) (ok bool, err error) {
	if st.shadow.topic != topic {
		st.endShadow()
		if reservedTopic(topic+"/accepted", true) != "" {
			return false, nil
		}
		if ok, err := st.subscribeShadow(topic); !ok || err != nil {
			return false, err
		}
	}
	st.shadow.start(shadowLimit)
	return true, nil
}

func (st *stream) subscribeShadow(topic string) (ok bool, err error) {
	c, qos := st.c, st.n.st.MQTT.QoS
	filters := []string{topic + "/accepted", topic + "/rejected"}
	m := &outMsg{kind: typeSubscribe}
	c.mu.Lock()
	if err := c.useLocked(m); err != nil {
		c.mu.Unlock()
		return false, nil // deliver returns the error
	}
	st.shadow.filters = filters
	c.w.post(func(b []byte) []byte { return appendSubscribe(b, m.id, qos, filters...) })
	c.mu.Unlock()
	st.shadow.start(shadowReady)
	for {
		if err := st.deliver(); err != nil {
			return false, err
		}
		c.mu.Lock()
		done, failed := m.done, m.failed
		c.mu.Unlock()
		if done {
			if failed {
				st.endShadow()
				return false, nil
			}
			st.shadow.topic = topic // an earlier answer is not for this message
			return true, nil
		}
		select {
		case <-st.l.Resumed():
		case <-st.wake:
		case <-st.dead():
		case <-st.ctx.Done():
			return false, context.Cause(st.ctx)
		case <-st.shadow.expiry():
			st.endShadow()
			return false, nil
		}
	}
}

// endShadow ends the subscription of beginShadow.
func (st *stream) endShadow() {
	st.shadow.stop()
	if st.shadow.filters == nil {
		return
	}
	st.shadow.topic = ""
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	filters := st.shadow.filters
	st.shadow.filters = nil
	st.c.dropShadowLocked(filters)
}
