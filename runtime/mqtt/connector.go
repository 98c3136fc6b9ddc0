package mqtt

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// maxClientID is how long a client id may be, as in lws.
const maxClientID = 128

// topicHeader is what a metadata item is mapped to that is to tell the topic of
// each message that is received.
const topicHeader = "topic"

// A connector makes the attempts of one streamtype of one context.
type connector struct {
	t     *Transport
	setup *transport.Setup
	st    *policy.StreamType // of setup

	topic, subscribe          *policy.Template // nil: none
	willTopic, willMessage    *policy.Template
	birthTopic, birthMessage  *policy.Template
	topicItem, subscribedItem int // metadata that tells the topic; -1: none

	mu   sync.Mutex
	hubs map[hubKey]*hub // that it has used
}

// Prepare refuses a streamtype that asks for what the package does not do, and
// else returns what executes it.
func (t *Transport) Prepare(s *transport.Setup) (transport.Connector, error) {
	st := s.Stream
	n := &connector{t: t, setup: s, st: st, topicItem: -1, subscribedItem: -1, hubs: map[hubKey]*hub{}}
	m := st.MQTT
	switch {
	case st.Auth != nil:
		return nil, fmt.Errorf("%w: use_auth over mqtt", transport.ErrUnsupported)
	case m.QoS > 2 || m.WillQoS > 2 || m.BirthQoS > 2:
		return nil, fmt.Errorf("%w: a QoS above 2", transport.ErrUnsupported)
	case m.KeepAlive < 0 || m.KeepAlive > maxString*time.Second:
		return nil, fmt.Errorf("%w: mqtt_keep_alive above 65535 s", transport.ErrUnsupported)
	}
	for _, k := range []struct {
		key   string
		text  string
		to    **policy.Template
		wrong func(string) string // nil: any text
	}{
		{"mqtt_topic", m.Topic, &n.topic, wrongTopic[string]},
		{"mqtt_subscribe", m.Subscribe, &n.subscribe, wrongFilter},
		{"mqtt_will_topic", m.WillTopic, &n.willTopic, wrongTopic[string]},
		{"mqtt_will_message", m.WillMessage, &n.willMessage, nil},
		{"mqtt_birth_topic", m.BirthTopic, &n.birthTopic, wrongTopic[string]},
		{"mqtt_birth_message", m.BirthMessage, &n.birthMessage, nil},
	} {
		t, err := policy.ParseTemplate(k.text, st.Metadata)
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
	return n, nil
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
func (n *connector) hub(ctx context.Context, l transport.Link, id string) (*hub, error) {
	t := l.Target()
	k := hubKey{env: n.setup.Env, network: t.Network, address: t.Address(), proxy: n.setup.Dialer.Proxy(), id: id}
	if t.TLS {
		var err error
		if k.trust, err = n.setup.TLS(ctx); err != nil {
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
func text(l transport.Link, t *policy.Template) string {
	if t == nil {
		return ""
	}
	return l.Expand(t)
}

// expand returns a topic or filter with the metadata put in. The error does not
// tell it, for metadata may be secret.
func (n *connector) expand(l transport.Link, key string, t *policy.Template, wrong func(string) string) (string, error) {
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
func (n *connector) blob(ctx context.Context, b policy.Blob) (string, error) {
	s, err := n.setup.Secret(ctx, b, 0)
	if errors.Is(err, transport.ErrNoCredentials) {
		return "", nil
	}
	if err == nil {
		if why := wrongString(s); why != "" {
			err = fmt.Errorf("sspolicy: %v: %w: %s", b, transport.ErrBadCredentials, why)
		}
	}
	return s, err
}

// Run makes one attempt.
func (n *connector) Run(ctx context.Context, l transport.Link) error {
	set, id, password, err := n.settings(ctx, l)
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
	h, err := n.hub(ctx, l, id)
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
func (n *connector) settings(ctx context.Context, l transport.Link) (set settings, id, password string, err error) {
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
	if id, err = n.blob(ctx, policy.BlobMQTTClientID); err != nil {
		return set, "", "", err
	}
	if len(id) > maxClientID {
		return set, "", "", fmt.Errorf("sspolicy: %v: %w: it is longer than %d bytes", policy.BlobMQTTClientID, ErrClientID, maxClientID)
	}
	if set.username, err = n.blob(ctx, policy.BlobMQTTUsername); err != nil {
		return set, "", "", err
	}
	if password, err = n.blob(ctx, policy.BlobMQTTPassword); err != nil {
		return set, "", "", err
	}
	if password != "" && set.username == "" { // [MQTT-3.1.2-22]
		return set, "", "", fmt.Errorf("sspolicy: %v: %w: a password without a user name", policy.BlobMQTTUsername, transport.ErrNoCredentials)
	}
	return set, id, password, nil
}

// randomID makes up a client id that every server takes [MQTT-3.1.3-5].
func randomID() string { return rand.Text()[:23] }
