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

// maxClientID is the maximum length of a client id in bytes, as in lws.
const maxClientID = 128

// topicHeader is the header of a metadata item that receives the topic of each
// message.
const topicHeader = "topic"

// A connector makes the attempts of one streamtype in one context.
type connector struct {
	t     *Transport
	setup *transport.Setup
	st    *policy.StreamType // of setup

	// Nil if the policy has none.
	topic, subscribe         *policy.Template
	willTopic, willMessage   *policy.Template
	birthTopic, birthMessage *policy.Template

	topicItem, subscribeItem int // metadata items that receive the topic, or -1

	mu   sync.Mutex
	hubs map[hubKey]*hub // that attempts have used
}

// Prepare returns the connector of a streamtype. It rejects use_auth, invalid
// topics, and values of QoS and keep alive that MQTT does not have.
func (t *Transport) Prepare(s *transport.Setup) (transport.Connector, error) {
	st := s.Stream
	n := &connector{t: t, setup: s, st: st, topicItem: -1, subscribeItem: -1, hubs: map[hubKey]*hub{}}
	m := st.MQTT
	switch {
	case st.Auth != nil:
		return nil, fmt.Errorf("%w: use_auth over mqtt", transport.ErrUnsupported)
	case m.QoS > 2 || m.WillQoS > 2 || m.BirthQoS > 2:
		return nil, fmt.Errorf("%w: a QoS above 2", transport.ErrUnsupported)
	case m.KeepAlive < 0 || m.KeepAlive > maxString*time.Second:
		return nil, fmt.Errorf("%w: mqtt_keep_alive outside 0 to 65535 s", transport.ErrUnsupported)
	}
	for _, k := range []struct {
		key   string
		text  string
		to    **policy.Template
		check func(string) string // nil allows any text
	}{
		{"mqtt_topic", m.Topic, &n.topic, invalidTopic[string]},
		{"mqtt_subscribe", m.Subscribe, &n.subscribe, invalidFilter},
		{"mqtt_will_topic", m.WillTopic, &n.willTopic, invalidTopic[string]},
		{"mqtt_will_message", m.WillMessage, &n.willMessage, nil},
		{"mqtt_birth_topic", m.BirthTopic, &n.birthTopic, invalidTopic[string]},
		{"mqtt_birth_message", m.BirthMessage, &n.birthMessage, nil},
	} {
		t, err := policy.ParseTemplate(k.text, st.Metadata)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.key, err)
		}
		if k.text == "" && k.check != nil {
			continue
		}
		if k.check != nil && !strings.Contains(k.text, "${") {
			if reason := n.refuse(k.text, k.check); reason != "" {
				return nil, fmt.Errorf("%s %q: %w: %s", k.key, k.text, ErrTopic, reason)
			}
		}
		*k.to = t
	}
	for i, item := range st.Metadata {
		if strings.EqualFold(strings.TrimSuffix(item.Header, ":"), topicHeader) {
			n.topicItem = i
		}
		if strings.Contains(m.Subscribe, "${"+item.Name+"}") {
			n.subscribeItem = i
		}
	}
	return n, nil
}

// refuse returns why the streamtype must not use a topic or filter, or "". check is
// invalidTopic or invalidFilter.
func (n *connector) refuse(text string, check func(string) string) string {
	if reason := check(text); reason != "" {
		return reason
	}
	return reservedTopic(text, n.st.MQTT.AWSIoT)
}

// Close drops the sessions that no other streamtype uses, after a while.
func (n *connector) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, h := range n.hubs {
		n.t.release(h)
	}
	n.hubs = nil
	return nil
}

// hub returns the hub of an attempt with the client id.
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
	if n.hubs == nil {
		return nil, transport.ErrClosed
	}
	h := n.hubs[k]
	if h == nil {
		h = n.t.hub(k)
		n.hubs[k] = h
		if len(n.hubs) > maxHubs {
			n.trimLocked(k)
		}
	}
	return h, nil
}

// maxHubs limits the hubs of a streamtype, which needs one for each host and each
// client certificate that it has used.
const maxHubs = 64

// trimLocked releases a hub other than the one of keep.
func (n *connector) trimLocked(keep hubKey) {
	for k, h := range n.hubs {
		if k != keep {
			delete(n.hubs, k)
			n.t.release(h)
			return
		}
	}
}

// text returns a text of the policy with the metadata inserted. t may be nil.
func text(l transport.Link, t *policy.Template) string {
	if t == nil {
		return ""
	}
	return l.Expand(t)
}

// expand returns a topic or filter with the metadata inserted. t may be nil. The
// error does not contain the result, because metadata may be secret.
func (n *connector) expand(l transport.Link, key string, t *policy.Template, check func(string) string) (string, error) {
	if t == nil {
		return "", nil
	}
	topic := l.Expand(t)
	if reason := n.refuse(topic, check); reason != "" {
		return "", fmt.Errorf("sspolicy: %s %q: %w: %s", key, t, ErrTopic, reason)
	}
	return topic, nil
}

// blob returns a text of the credentials, or "" if there is none.
func (n *connector) blob(ctx context.Context, b policy.Blob) (string, error) {
	s, err := n.setup.Secret(ctx, b, 0)
	if errors.Is(err, transport.ErrNoCredentials) {
		return "", nil
	}
	if err == nil {
		reason := ""
		switch {
		case b != policy.BlobMQTTPassword:
			reason = invalidString(s)
		case len(s) > maxString: // otherwise a password may be any bytes (section 3.1.3.5)
			reason = "it is longer than 65535 bytes"
		}
		if reason != "" {
			err = fmt.Errorf("sspolicy: %v: %w: %s", b, transport.ErrBadCredentials, reason)
		}
	}
	return s, err
}

// Run joins a connection, and serves the stream until one of them ends.
func (n *connector) Run(ctx context.Context, l transport.Link) error {
	set, id, password, err := n.settings(ctx, l)
	if err != nil {
		return err
	}
	st := newStream(ctx, n, l)
	if st.filter, err = n.expand(l, "mqtt_subscribe", n.subscribe, invalidFilter); err != nil {
		return err
	}
	if st.birth.topic, err = n.expand(l, "mqtt_birth_topic", n.birthTopic, invalidTopic[string]); err != nil {
		return err
	}
	st.birth.message = text(l, n.birthMessage)
	h, err := n.hub(ctx, l, id)
	if err != nil {
		return err
	}
	if h.key.id == "" {
		set.clean = true // no connection could resume the session
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

// settings returns the content of the CONNECT.
func (n *connector) settings(ctx context.Context, l transport.Link) (set settings, id, password string, err error) {
	m := n.st.MQTT
	set.keepAlive, set.clean = uint16(m.KeepAlive/time.Second), m.CleanStart
	if set.will.topic, err = n.expand(l, "mqtt_will_topic", n.willTopic, invalidTopic[string]); err != nil {
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

// randomID returns a client id that every server accepts [MQTT-3.1.3-5].
func randomID() string { return rand.Text()[:23] }
