// Package faulttest is a catalogue of the ways in which a network and its servers
// fail a device, and runs streams of a policy against them.
//
// A [Fault] is a healthy peer on loopback with one misbehaviour. [Start] redirects
// a stream of a compiled policy to such a peer:
//
//	f := faulttest.Start(t, policy, "get_weather", faulttest.TLSExpired)
//	c, err := runtime.NewContext(f.Policy, f.Options(runtime.Options{...}))
//
// The policy file does not change. The stream keeps everything except its address
// and, with TLS, its trust store: it trusts the peer's temporary authority, whose
// certificate is valid for the host name of the policy.
//
// [Run] does all of this and reports whether the stream ends as the catalogue
// expects. The expected states follow from the policy: the conceal of its retry,
// opportunistic, nailed_up, and its timeouts. They are in the notation of
// docs/runtime.md.
//
// The commands "sspolicy fault list" and "sspolicy fault explain" print the
// catalogue.
package faulttest
