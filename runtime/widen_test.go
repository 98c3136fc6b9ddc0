package runtime_test

import (
	"errors"
	"testing"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// TestMetadataCannotWiden checks that a value within a topic, filter or URL cannot affect
// more than its place. A value that is the whole text is unrestricted.
func TestMetadataCannotWiden(t *testing.T) {
	set := func(put func(*policy.StreamType, string), text, value string) error {
		st := policy.StreamType{Protocol: policy.ProtocolMQTT, Metadata: []policy.Metadata{{Name: "id"}, {Name: "free"}}, MQTT: &policy.MQTT{}}
		put(&st, text)
		s := newStream(t, newContext(t, st, hang), runtime.Handlers{})
		if err := s.SetMetadata("free", value); err != nil {
			t.Errorf("an item that is used nowhere: %v", err)
		}
		return s.SetMetadata("id", value)
	}
	topics := map[string]func(*policy.StreamType, string){
		"mqtt_topic":       func(st *policy.StreamType, text string) { st.MQTT.Topic = text },
		"mqtt_subscribe":   func(st *policy.StreamType, text string) { st.MQTT.Subscribe = text },
		"mqtt_will_topic":  func(st *policy.StreamType, text string) { st.MQTT.WillTopic = text },
		"mqtt_birth_topic": func(st *policy.StreamType, text string) { st.MQTT.BirthTopic = text },
	}
	for key, put := range topics {
		for _, value := range []string{"#", "+", "a/b", "/", "a#", "a+b"} {
			if err := set(put, "cmd/${id}", value); !errors.Is(err, runtime.ErrMetadataValue) {
				t.Errorf("%s: %q as a part: %v", key, value, err)
			}
			if err := set(put, "${id}", value); err != nil {
				t.Errorf("%s: %q as the whole: %v", key, value, err)
			}
		}
		if err := set(put, "cmd/${id}", "lamp-1.a b"); err != nil {
			t.Errorf("%s: a good value: %v", key, err)
		}
	}
	endpoint := func(st *policy.StreamType, text string) {
		st.Protocol, st.MQTT, st.HTTP, st.Endpoint = policy.ProtocolH1, nil, &policy.HTTP{}, text
	}
	for _, value := range []string{"..", "a/../b"} {
		if err := set(endpoint, "http://h/${id}", value); !errors.Is(err, runtime.ErrMetadataValue) {
			t.Errorf("%q in the path of an endpoint: %v", value, err)
		}
	}
	url := func(st *policy.StreamType, text string) {
		st.Protocol, st.MQTT, st.HTTP = policy.ProtocolH1, nil, &policy.HTTP{URL: text}
	}
	for value, ok := range map[string]bool{
		"..": false, "../x": false, "a/../b": false, "a/..": false, ".": false, "a/./b": false,
		"a/b": true, "..a": true, "a..": true, "%2e%2e": true, "?x&y=#": true, "": true,
	} {
		if err := set(url, "v1/${id}", value); ok != (err == nil) || !ok && !errors.Is(err, runtime.ErrMetadataValue) {
			t.Errorf("%q in a URL: %v", value, err)
		}
		if err := set(url, "${id}", value); err != nil {
			t.Errorf("%q as the URL: %v", value, err)
		}
	}
}
