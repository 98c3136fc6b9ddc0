package policy

import (
	"errors"
	"strings"
	"testing"
)

func TestStreamTypeFacts(t *testing.T) {
	for _, tt := range []struct {
		name    string
		st      StreamType
		carrier Protocol
		http    bool
		sends   bool
	}{
		{"GET", StreamType{HTTP: &HTTP{Method: "GET"}}, ProtocolH1, true, false},
		{"no method", StreamType{HTTP: &HTTP{}}, ProtocolH1, true, false},
		{"POST", StreamType{Protocol: ProtocolH2, HTTP: &HTTP{Method: "POST"}}, ProtocolH2, true, true},
		{"PUT", StreamType{Protocol: ProtocolH3, HTTP: &HTTP{Method: "PUT"}}, ProtocolH3, true, true},
		{"PATCH", StreamType{HTTP: &HTTP{Method: "PATCH"}}, ProtocolH1, true, true},
		{"a method is case-sensitive", StreamType{HTTP: &HTTP{Method: "post"}}, ProtocolH1, true, false},
		{"DELETE", StreamType{HTTP: &HTTP{Method: "DELETE"}}, ProtocolH1, true, false},
		{"multipart", StreamType{HTTP: &HTTP{Method: "GET", Multipart: true}}, ProtocolH1, true, true},
		{"multipart name", StreamType{HTTP: &HTTP{Method: "GET", MultipartName: "n"}}, ProtocolH1, true, true},
		{"content-length", StreamType{HTTP: &HTTP{Method: "GET"}, Metadata: []Metadata{{Name: "a", Header: "x"}, {Name: "n", Header: "Content-Length:"}}}, ProtocolH1, true, true},
		{"another header", StreamType{HTTP: &HTTP{Method: "GET"}, Metadata: []Metadata{{Name: "n", Header: "content-type"}}}, ProtocolH1, true, false},
		{"ws", StreamType{Protocol: ProtocolWS, HTTP: &HTTP{}}, ProtocolWS, false, true},
		{"mqtt", StreamType{Protocol: ProtocolMQTT, MQTT: &MQTT{Topic: "t"}}, ProtocolMQTT, false, true},
		{"mqtt, subscribing only", StreamType{Protocol: ProtocolMQTT, MQTT: &MQTT{Subscribe: "t"}}, ProtocolMQTT, false, false},
		{"raw", StreamType{Protocol: ProtocolRaw}, ProtocolRaw, false, true},
		{"smd", StreamType{Protocol: ProtocolSMD}, ProtocolSMD, false, true},
		{"file", StreamType{Endpoint: "file:///x", HTTP: &HTTP{}}, ProtocolFile, true, false},
		{"file over raw", StreamType{Protocol: ProtocolRaw, Endpoint: "file:///${m}"}, ProtocolFile, false, true},
		{"the scheme of a file is in lower case", StreamType{Protocol: ProtocolRaw, Endpoint: "FILE:///x"}, ProtocolRaw, false, true},
		{"metadata makes no file", StreamType{Protocol: ProtocolRaw, Endpoint: "${m}"}, ProtocolRaw, false, true},
		{"local_sink", StreamType{LocalSink: true}, ProtocolSink, false, true},
		{"local_sink over mqtt", StreamType{LocalSink: true, Protocol: ProtocolMQTT, MQTT: &MQTT{}}, ProtocolSink, false, true},
		{"local_sink before file", StreamType{LocalSink: true, Endpoint: "file:///x"}, ProtocolSink, false, true},
	} {
		if got := tt.st.Carrier(); got != tt.carrier {
			t.Errorf("%s: the carrier is %v, want %v", tt.name, got, tt.carrier)
		}
		if got := tt.st.IsHTTP(); got != tt.http {
			t.Errorf("%s: IsHTTP is %v", tt.name, got)
		}
		if got := tt.st.Sends(); got != tt.sends {
			t.Errorf("%s: Sends is %v", tt.name, got)
		}
	}
}

// chainPolicy has chains of rideshares, and those that cannot be executed.
func chainPolicy() *Policy {
	return &Policy{StreamTypes: []*StreamType{
		{Name: "alone", HTTP: &HTTP{}},
		{Name: "a", Rideshare: "b", HTTP: &HTTP{}},
		{Name: "b", Rideshare: "c", HTTP: &HTTP{}},
		{Name: "c", HTTP: &HTTP{}},
		{Name: "self", Rideshare: "self", HTTP: &HTTP{}},
		{Name: "loop", Rideshare: "loop2", HTTP: &HTTP{}},
		{Name: "loop2", Rideshare: "loop", HTTP: &HTTP{}},
		{Name: "nobody", Rideshare: "x", HTTP: &HTTP{}},
		{Name: "other", Rideshare: "h2", HTTP: &HTTP{}},
		{Name: "h2", Protocol: ProtocolH2, HTTP: &HTTP{}},
		{Name: "ws", Protocol: ProtocolWS, Rideshare: "c", HTTP: &HTTP{}},
		{Name: "incomplete", Rideshare: "empty", HTTP: &HTTP{}},
		{Name: "empty"},
	}}
}

func TestChain(t *testing.T) {
	p := chainPolicy()
	for _, tt := range []struct {
		name, want string
		err        error  // nil if there is none
		message    string // part of the error
	}{
		{"alone", "alone", nil, ""},
		{"a", "a b c", nil, ""},
		{"b", "b c", nil, ""},
		{"self", "", ErrUnsupported, "never end"},
		{"loop", "", ErrUnsupported, `"loop2" to "loop"`},
		{"nobody", "", ErrUnknownStreamType, `rideshare of "nobody"`},
		{"other", "", ErrUnsupported, "another protocol"},
		{"ws", "", ErrUnsupported, "it speaks ws"},
		{"incomplete", "", nil, "lacks the settings"},
	} {
		chain, err := p.Chain(p.StreamType(tt.name))
		var names []string
		for _, st := range chain {
			names = append(names, st.Name)
		}
		if got := strings.Join(names, " "); got != tt.want {
			t.Errorf("the chain of %s is %q, want %q", tt.name, got, tt.want)
		}
		if tt.message == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
		} else if err == nil || tt.err != nil && !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.message) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.message)
		}
	}
}

func TestEffective(t *testing.T) {
	inherits, own := &StreamType{Name: "inherits"}, &StreamType{Name: "own", SOCKS5Proxy: "own:1"}
	p := &Policy{SOCKS5Proxy: "global:1", StreamTypes: []*StreamType{inherits, own}}
	for name, want := range map[string]string{"inherits": "global:1", "own": "own:1"} {
		if got := p.Effective(name); got.Name != name || got.SOCKS5Proxy != want {
			t.Errorf("%s has the proxy %q, want %q", name, got.SOCKS5Proxy, want)
		}
	}
	if inherits.SOCKS5Proxy != "" {
		t.Error("Effective changed the policy")
	}
	if p.Effective("own") != own || (&Policy{StreamTypes: []*StreamType{inherits}}).Effective("inherits") != inherits {
		t.Error("a streamtype that inherits nothing was copied")
	}
	if p.Effective("Own") != nil || p.StreamType("") != nil {
		t.Error("an unknown name is not nil")
	}
}

func TestSame(t *testing.T) {
	store := func() *TrustStore { return &TrustStore{Name: "t", Stack: []*Cert{{"c", "der"}}} }
	base := func() *Policy {
		p := chainPolicy()
		p.StreamType("a").TrustStore = store()
		p.StreamType("a").Retry = &Retry{Conceal: 1}
		return p
	}
	for _, tt := range []struct {
		name   string
		change func(*Policy)
		same   string // the streamtypes of "alone a b c nobody self x" that are the same
	}{
		{"no change", func(*Policy) {}, "alone a b c nobody self x"},
		{"another release", func(p *Policy) { p.Release = "2" }, "alone a b c nobody self x"},
		{"the last of a chain", func(p *Policy) { p.StreamType("c").HTTP.URL = "/" }, "alone nobody self x"},
		{"the first of a chain", func(p *Policy) { p.StreamType("a").Opportunistic = true }, "alone b c nobody self x"},
		{"another certificate", func(p *Policy) { p.StreamType("a").TrustStore.Stack[0].DER = "other" }, "alone b c nobody self x"},
		{"another retry", func(p *Policy) { p.StreamType("a").Retry.Conceal = 2 }, "alone b c nobody self x"},
		{"the proxy of the policy", func(p *Policy) { p.SOCKS5Proxy = "h" }, "x"},
		{"a proxy of its own", func(p *Policy) { p.StreamType("c").SOCKS5Proxy = "h" }, "alone nobody self x"},
		{"a removed streamtype", func(p *Policy) { p.StreamTypes = p.StreamTypes[1:] }, "a b c nobody self x"},
		{"another order", func(p *Policy) { p.StreamTypes[0], p.StreamTypes[1] = p.StreamTypes[1], p.StreamTypes[0] }, "alone a b c nobody self x"},
		{"the end of an unfinished chain", func(p *Policy) { p.StreamTypes = append(p.StreamTypes, &StreamType{Name: "x"}) }, "alone a b c self"},
	} {
		p, q := base(), base()
		tt.change(q)
		var same []string
		for _, name := range strings.Fields("alone a b c nobody self x") {
			got := Same(NewIndex(p), NewIndex(q), name)
			if got {
				same = append(same, name)
			}
			if Same(NewIndex(q), NewIndex(p), name) != got {
				t.Errorf("%s: Same is not symmetric for %s", tt.name, name)
			}
		}
		if got := strings.Join(same, " "); got != tt.same {
			t.Errorf("%s: the same are %q, want %q", tt.name, got, tt.same)
		}
	}
}
