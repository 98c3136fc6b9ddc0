package mqtt

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
)

// maxClientID is how long a client id may be, as in lws.
const maxClientID = 128

// topicHeader is what a metadata item is mapped to that is to tell the topic of
// each message that is received.
const topicHeader = "topic"

// A connector makes the attempts of one streamtype of one context.
type connector struct {
	t     *Transport
	c     *runtime.Context
	st    *runtime.StreamType
	proxy *runtime.Proxy

	topic, subscribe          *runtime.Template // nil: none
	willTopic, willMessage    *runtime.Template
	birthTopic, birthMessage  *runtime.Template
	topicItem, subscribedItem int // metadata that tells the topic; -1: none

	mu   sync.Mutex
	hubs map[hubKey]*hub // that it has used
}

// Prepare refuses a streamtype that asks for what the package does not do, and
// else returns what executes it.
func (t *Transport) Prepare(c *runtime.Context, st *runtime.StreamType) (runtime.Connector, error) {
	n := &connector{t: t, c: c, st: st, topicItem: -1, subscribedItem: -1, hubs: map[hubKey]*hub{}}
	m := st.MQTT
	switch {
	case st.Auth != nil:
		return nil, fmt.Errorf("%w: use_auth over mqtt", runtime.ErrUnsupported)
	case m.QoS > 2 || m.WillQoS > 2 || m.BirthQoS > 2:
		return nil, fmt.Errorf("%w: a QoS above 2", runtime.ErrUnsupported)
	case m.KeepAlive < 0 || m.KeepAlive > maxString*time.Second:
		return nil, fmt.Errorf("%w: mqtt_keep_alive above 65535 s", runtime.ErrUnsupported)
	}
	for _, k := range []struct {
		key   string
		text  string
		to    **runtime.Template
		wrong func(string) string // nil: any text
	}{
		{"mqtt_topic", m.Topic, &n.topic, wrongTopic[string]},
		{"mqtt_subscribe", m.Subscribe, &n.subscribe, wrongFilter},
		{"mqtt_will_topic", m.WillTopic, &n.willTopic, wrongTopic[string]},
		{"mqtt_will_message", m.WillMessage, &n.willMessage, nil},
		{"mqtt_birth_topic", m.BirthTopic, &n.birthTopic, wrongTopic[string]},
		{"mqtt_birth_message", m.BirthMessage, &n.birthMessage, nil},
	} {
		t, err := runtime.ParseTemplate(k.text, st.Metadata)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.key, err)
		}
		if k.text == "" && k.wrong != nil {
			continue
		}
		if k.wrong != nil && !strings.Contains(k.text, "${") {
			if why := n.wrong(k.text, k.wrong); why != "" {
				return nil, fmt.Errorf("%s %q: %w: %s", k.key, k.text, ErrTopic, why)
			}
		}
		*k.to = t
	}
	for i, item := range st.Metadata {
		if strings.EqualFold(strings.TrimSuffix(item.Header, ":"), topicHeader) {
			n.topicItem = i
		}
		if strings.Contains(m.Subscribe, "${"+item.Name+"}") {
			n.subscribedItem = i
		}
	}
	var err error
	n.proxy, err = c.Proxy(st)
	return n, err
}

// wrong says what keeps a text from being a topic or filter for this streamtype.
func (n *connector) wrong(text string, wrong func(string) string) string {
	if why := wrong(text); why != "" {
		return why
	}
	return wrongHere(text, n.st.MQTT.AWSIoT)
}

// Close gives up the sessions that no other streamtype has a use for.
func (n *connector) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for k, h := range n.hubs {
		delete(n.hubs, k)
		n.t.release(h)
	}
	return nil
}

// hub returns the connections for an attempt.
func (n *connector) hub(l *runtime.Link, id string) (*hub, error) {
	t := l.Target()
	k := hubKey{c: n.c, network: t.Network, address: t.Address(), proxy: n.proxy, id: id}
	if t.TLS {
		var err error
		if k.trust, err = l.TLSConfig(); err != nil {
			return nil, err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hubs[k]
	if h == nil {
		h = n.t.hub(k)
		n.hubs[k] = h
		if len(n.hubs) > maxHubs {
			n.trim(k)
		}
	}
	return h, nil
}

// maxHubs is how many sets of connections a streamtype keeps sessions for, where
// its metadata names ever other hosts, or its client certificate changes.
const maxHubs = 64

// trim gives up sessions, but not that of keep. mu is held.
func (n *connector) trim(keep hubKey) {
	for k, h := range n.hubs {
		if k != keep {
			delete(n.hubs, k)
			n.t.release(h)
			return
		}
	}
}

// text returns a text of the policy with the metadata put in; "" if it has none.
func text(l *runtime.Link, t *runtime.Template) string {
	if t == nil {
		return ""
	}
	return l.Expand(t)
}

// expand returns a topic or filter with the metadata put in. The error does not
// tell it, for metadata may be secret.
func (n *connector) expand(l *runtime.Link, key string, t *runtime.Template, wrong func(string) string) (string, error) {
	if t == nil {
		return "", nil
	}
	topic := l.Expand(t)
	if why := n.wrong(topic, wrong); why != "" {
		return "", fmt.Errorf("sspolicy: %s %q: %w: %s", key, t, ErrTopic, why)
	}
	return topic, nil
}

// blob returns a text of the credentials; "" if there is none.
func blob(l *runtime.Link, b runtime.Blob) (string, error) {
	s, err := l.Blob(b, 0)
	if errors.Is(err, runtime.ErrNoCredentials) {
		return "", nil
	}
	if err == nil {
		if why := wrongString(s); why != "" {
			err = fmt.Errorf("sspolicy: %v: %w: %s", b, runtime.ErrBadCredentials, why)
		}
	}
	return s, err
}

// Run makes one attempt.
func (n *connector) Run(ctx context.Context, l *runtime.Link) error {
	set, id, password, err := n.settings(l)
	if err != nil {
		return err
	}
	st := newStream(ctx, n, l)
	if st.filter, err = n.expand(l, "mqtt_subscribe", n.subscribe, wrongFilter); err != nil {
		return err
	}
	if st.birth.topic, err = n.expand(l, "mqtt_birth_topic", n.birthTopic, wrongTopic[string]); err != nil {
		return err
	}
	st.birth.message = text(l, n.birthMessage)
	h, err := n.hub(l, id)
	if err != nil {
		return err
	}
	if h.key.id == "" {
		set.clean = true // nobody could take up the session
	}
	c, err := h.join(ctx, l, set, password, st)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { c.w.interrupt(ctx) })
	err = st.run()
	stop()
	st.leave()
	return err
}

// settings returns what the connection begins with.
func (n *connector) settings(l *runtime.Link) (set settings, id, password string, err error) {
	m := n.st.MQTT
	set.keepAlive, set.clean = uint16(m.KeepAlive/time.Second), m.CleanStart
	if set.will.topic, err = n.expand(l, "mqtt_will_topic", n.willTopic, wrongTopic[string]); err != nil {
		return set, "", "", err
	}
	if set.will.topic != "" {
		set.will.message, set.will.qos, set.will.retain = text(l, n.willMessage), m.WillQoS, m.WillRetain
		if len(set.will.message) > maxString {
			return set, "", "", fmt.Errorf("sspolicy: mqtt_will_message: it is longer than %d bytes", maxString)
		}
	}
	if id, err = blob(l, runtime.BlobMQTTClientID); err != nil {
		return set, "", "", err
	}
	if len(id) > maxClientID {
		return set, "", "", fmt.Errorf("sspolicy: %v: %w: it is longer than %d bytes", runtime.BlobMQTTClientID, ErrClientID, maxClientID)
	}
	if set.username, err = blob(l, runtime.BlobMQTTUsername); err != nil {
		return set, "", "", err
	}
	if password, err = blob(l, runtime.BlobMQTTPassword); err != nil {
		return set, "", "", err
	}
	if password != "" && set.username == "" { // [MQTT-3.1.2-22]
		return set, "", "", fmt.Errorf("sspolicy: %v: %w: a password without a user name", runtime.BlobMQTTUsername, runtime.ErrNoCredentials)
	}
	return set, id, password, nil
}

// randomID makes up a client id that every server takes [MQTT-3.1.3-5].
func randomID() string { return rand.Text()[:23] }
