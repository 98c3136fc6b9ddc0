// Package faulttest is a catalogue of the ways in which a network and its servers fail a
// device, and runs streams of a policy against them.
//
// A [Fault] is a healthy peer with one misbehaviour, on loopback. Start leads a stream of
// a compiled policy to such a peer:
//
//	f := faulttest.Start(t, policy, "get_weather", faulttest.TLSExpired)
//	c, err := runtime.NewContext(f.Policy, f.Options(runtime.Options{...}))
//
// The policy file does not change, and the stream keeps everything but its address and,
// for a streamtype with TLS, its trust store: that of the peer's throw-away authority,
// whose certificate is for the host name of the policy.
//
// Run does all of it and says whether the stream ends as the catalogue expects. The
// states that it expects follow from the policy: the conceal of its retry, opportunistic,
// nailed_up, and its timeouts. They are in the notation of docs/runtime.md.
//
// The commands "sspolicy fault list" and "sspolicy fault explain" print the catalogue.
package faulttest
