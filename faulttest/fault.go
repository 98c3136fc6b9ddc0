package faulttest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A Fault is one way in which the environment fails a stream: a healthy peer with
// one misbehaviour, and the required behaviour of the stream. [All] returns the
// catalogue.
type Fault struct {
	Name    string // such as "tls-expired"
	Family  string // the group in the catalogue: "link", "tls", "http" and so on
	Summary string // one line, without a period
	Why     string // why it matters to a device, as sentences in Markdown
	Params  []Param

	// Proto lists the protocols that the fault applies to; empty means all that use
	// the network.
	Proto []policy.Protocol

	// H3 is set if the fault also applies to h3, whose connections are not TCP.
	H3 bool

	// Only reports whether the fault applies to a streamtype of these protocols.
	// Nil means that it does.
	Only func(*policy.StreamType) bool

	// Cause is a substring of Stream.Err after the failure, in the wording of this runtime;
	// "" means any.
	Cause string

	// misbehave returns how the peer differs from a healthy one.
	misbehave func(*peer) *behavior

	// expect returns what the stream must do.
	expect func(*subject) expectation
}

// A Param is a parameter of a fault.
type Param struct {
	Name    string
	Help    string
	Default string
	Min     int      // minimum of a number
	Max     int      // maximum of a number
	Unit    string   // of a number: "ms", "bytes" or empty
	Choices []string // values of a word; nil for a number
}

// Args maps parameters to values. Missing ones have their default.
type Args map[string]string

// Check returns an error if args has an unknown parameter or a value out of range.
func (f *Fault) Check(args Args) error {
	_, err := f.check(args)
	return err
}

// check returns the values of all parameters of a fault.
func (f *Fault) check(args Args) (Args, error) {
	all := Args{}
	for _, p := range f.Params {
		all[p.Name] = p.Default
	}
	for name, value := range args {
		i := slices.IndexFunc(f.Params, func(p Param) bool { return p.Name == name })
		if i < 0 {
			var names []string
			for _, p := range f.Params {
				names = append(names, p.Name)
			}
			if names == nil {
				return nil, fmt.Errorf("fault %s has no parameters, but %q is set", f.Name, name)
			}
			return nil, fmt.Errorf("fault %s has no parameter %q: want one of %s", f.Name, name, strings.Join(names, ", "))
		}
		p := &f.Params[i]
		if p.Choices != nil {
			if !slices.Contains(p.Choices, value) {
				return nil, fmt.Errorf("parameter %s of fault %s must be one of %s, not %q", name, f.Name, strings.Join(p.Choices, ", "), value)
			}
		} else if n, err := strconv.Atoi(value); err != nil || n < p.Min || n > p.Max {
			return nil, fmt.Errorf("parameter %s of fault %s must be a number from %d to %d, not %q", name, f.Name, p.Min, p.Max, value)
		}
		all[name] = value
	}
	return all, nil
}

func (a Args) int(name string) int {
	n, _ := strconv.Atoi(a[name]) // checked by Fault.check
	return n
}

func (a Args) ms(name string) time.Duration { return time.Duration(a.int(name)) * time.Millisecond }

// Fits reports whether the fault applies to a streamtype. If not, why is the
// reason.
func (f *Fault) Fits(st *policy.StreamType) (ok bool, why string) {
	switch c := st.Carrier(); {
	case st.Server:
		return false, "it is a server, and faults are for clients"
	case c == policy.ProtocolSink || c == policy.ProtocolFile:
		return false, fmt.Sprintf("a %v stream uses no network", c)
	case strings.HasPrefix(st.Endpoint, "+"):
		return false, "a unix socket is not a network"
	case c == policy.ProtocolH3 && !f.H3, c != policy.ProtocolH3 && f.Proto != nil && !slices.Contains(f.Proto, c):
		return false, fmt.Sprintf("the fault is not for protocol %v", c)
	case f.Family == "tls" && !usesTLS(st), c == policy.ProtocolH3 && !st.TLS:
		return false, "the streamtype has no TLS"
	case f.Only != nil && !f.Only(st):
		return false, "the fault needs a setting that the streamtype does not have"
	}
	return true, ""
}

// Lookup returns the fault of that name, or nil.
func Lookup(name string) *Fault {
	for _, f := range All() {
		if f.Name == name {
			return f
		}
	}
	return nil
}

// All returns the catalogue, in the order of its documentation.
func All() []*Fault { return slices.Clone(catalogue) }

// A Preset is a named set of faults.
type Preset struct {
	Name    string
	Summary string
	Faults  []*Fault
}

// Presets are well-known sets of faults.
var Presets = []Preset{
	{"badssl", "The bad certificates and versions of badssl.com", []*Fault{
		TLSExpired, TLSWrongHost, TLSSelfSigned, TLSUntrusted, TLSRevoked, TLSNoSAN, TLSIncompleteChain, TLSManyNames, TLSOldVersion,
		TLSWeakKey, TLSClientCertRequired, TLSPlainPort,
	}},
	{"device-advisor", "The connection tests of AWS IoT Device Advisor", []*Fault{AWSConnectBackoff, MQTTNoConnack, MQTTNoPuback, TLSExpired, TLSWrongHost}},
	{"toxiproxy", "The toxics of Toxiproxy", []*Fault{Latency, Refused, Rate, SlowClose, BlackHole, Reset, Slice, FIN}},
}
