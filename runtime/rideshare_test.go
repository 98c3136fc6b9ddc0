package runtime_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/runtime"
)

// TestRideshareRefused checks that a chain that can not be executed makes no
// stream, and that the error says where it goes wrong.
func TestRideshareRefused(t *testing.T) {
	h1 := func(name, rideshare string) *runtime.StreamType {
		return &runtime.StreamType{Name: name, Endpoint: "h", Port: 1, Rideshare: rideshare, HTTP: &runtime.HTTP{Method: "POST"}}
	}
	h2 := h1("h2", "")
	h2.Protocol = runtime.ProtocolH2
	raw := &runtime.StreamType{Name: "raw", Protocol: runtime.ProtocolRaw, Endpoint: "h", Port: 1, Rideshare: "end"}
	bare := h1("bare", "")
	bare.HTTP = nil
	c, err := runtime.NewContext(&runtime.Policy{StreamTypes: []*runtime.StreamType{
		h1("end", ""), h1("good", "on"), h1("on", "end"), h1("self", "self"), h1("a", "b"), h1("b", "c"), h1("c", "b"),
		h1("nowhere", "none"), h1("other", "h2"), h2, raw, h1("lacks", "bare"), bare,
	}}, runtime.Options{Transports: []runtime.Transport{&fake{hang}}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for name, want := range map[string]struct {
		err  error
		text string
	}{
		"self":    {runtime.ErrUnsupported, `rideshare of "self" to "self"`},
		"a":       {runtime.ErrUnsupported, `rideshare of "c" to "b"`},
		"nowhere": {runtime.ErrUnknownStreamType, `rideshare of "nowhere": unknown streamtype: "none"`},
		"other":   {runtime.ErrUnsupported, `rideshare of "other" to "h2", which speaks another protocol`},
		"raw":     {runtime.ErrUnsupported, "rideshare over raw"},
		"lacks":   {nil, `"bare" lacks the settings`},
	} {
		_, err := c.NewStream(name, runtime.Handlers{})
		if err == nil || want.err != nil && !errors.Is(err, want.err) || !strings.Contains(err.Error(), want.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s, err := c.NewStream("good", runtime.Handlers{})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Rideshare(); got != s.StreamType() {
		t.Errorf("an idle stream fills %q", got.Name)
	}
}
