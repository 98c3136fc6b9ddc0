package codegen

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

// A Target is the lws release line that C tables are for. The tables in this file
// and in layout.go describe all differences between release lines.
type Target schema.Version

// DefaultTarget is the newest known release line.
var DefaultTarget = Target(schema.Latest())

func (t Target) String() string { return schema.Version(t).String() }

// has reports whether the newest release of the target is at least since and before
// until. Either may be empty.
func (t Target) has(since, until string) bool {
	next := schema.Version{Major: t.Major, Minor: t.Minor + 1}
	return number(since) < lwsNumber(next) && (until == "" || number(until) >= lwsNumber(next))
}

// lwsNumber returns LWS_LIBRARY_VERSION_NUMBER of the first release of a line.
func lwsNumber(v schema.Version) int { return v.Major*1_000_000 + v.Minor*1_000 }

// number returns LWS_LIBRARY_VERSION_NUMBER of a release such as 4.3.2.
func number(release string) (n int) {
	for i, part := range strings.Split(release, ".") {
		k, _ := strconv.Atoi(part)
		n += k * []int{1_000_000, 1_000, 1}[min(i, 2)]
	}
	return n
}

// cProtocols holds lws's constants for the protocols, in the order of their enum.
// Their numbers changed with h3, so tables use the symbols
// (lws-secure-streams-policy.h of each release).
var cProtocols = []struct {
	protocol policy.Protocol
	symbol   string
	since    string
	macro    string // that the build of lws must define
}{
	{policy.ProtocolH1, "LWSSSP_H1", "4.1", "LWS_ROLE_H1"},
	{policy.ProtocolH2, "LWSSSP_H2", "4.1", "LWS_ROLE_H2"},
	{policy.ProtocolH3, "LWSSSP_H3", "5.0", "LWS_ROLE_H3"},
	{policy.ProtocolWS, "LWSSSP_WS", "4.1", "LWS_ROLE_WS"},
	{policy.ProtocolMQTT, "LWSSSP_MQTT", "4.1", "LWS_ROLE_MQTT"},
	{policy.ProtocolRaw, "LWSSSP_RAW", "4.1", ""},
}

// buildOptions holds the cmake options of lws that define macros which a policy may
// need (CMakeLists.txt of each release).
var buildOptions = []struct{ macro, option string }{
	{secureStreams, "LWS_WITH_SECURE_STREAMS=1"},
	{"LWS_WITH_TLS", "LWS_WITH_SSL=1"},
	{"LWS_WITH_SERVER", "LWS_WITHOUT_SERVER=0"},
	{"LWS_ROLE_H1", "LWS_ROLE_H1=1"},
	{"LWS_ROLE_H2", "LWS_WITH_HTTP2=1"},
	{"LWS_ROLE_H3", "LWS_WITH_HTTP3=1"},
	{"LWS_ROLE_WS", "LWS_ROLE_WS=1"},
	{"LWS_ROLE_MQTT", "LWS_ROLE_MQTT=1"},
	{"LWS_WITH_SYS_METRICS", "LWS_WITH_SYS_METRICS=1"},
	{"LWS_WITH_SECURE_STREAMS_AUTH_SIGV4", "LWS_WITH_SECURE_STREAMS_AUTH_SIGV4=1"},
	{"LWS_WITH_SS_DIRECT_PROTOCOL_STR", "LWS_WITH_SS_DIRECT_PROTOCOL_STR=1"},
}

// secureStreams is the macro that all tables need.
const secureStreams = "LWS_WITH_SECURE_STREAMS"

// optionOf returns the cmake option that defines a macro.
func optionOf(macro string) string {
	for _, l := range buildOptions {
		if l.macro == macro {
			return l.option
		}
	}
	return macro
}

// BuildOption returns the macro that a cmake option of lws, such as
// "LWS_WITHOUT_SERVER=1", controls, and whether it is defined. A leading -D is
// accepted. It fails for options that do not affect tables.
func BuildOption(option string) (macro string, defined bool, err error) {
	name, value, found := strings.Cut(strings.TrimPrefix(option, "-D"), "=")
	name, _, _ = strings.Cut(name, ":") // cmake accepts a type
	var names []string
	for _, l := range buildOptions {
		known, on, _ := strings.Cut(l.option, "=")
		names = append(names, known)
		if known != name {
			continue
		}
		switch strings.ToUpper(value) {
		case "1", "ON", "YES", "TRUE", "Y":
			return l.macro, on == "1", nil
		case "0", "OFF", "NO", "FALSE", "N":
			return l.macro, on == "0", nil
		}
		if !found {
			return "", false, fmt.Errorf("%q has no value: want %s=1 or %[2]s=0", option, name)
		}
		return "", false, fmt.Errorf("%q: %q is neither ON nor OFF", option, value)
	}
	return "", false, fmt.Errorf("tables do not depend on %q, but on %s", option, strings.Join(names, ", "))
}

// RequiredOptions returns the cmake options, such as "LWS_ROLE_MQTT=1", that lws
// must be built with for the tables of a policy.
func RequiredOptions(p *policy.Policy, o COptions) ([]string, error) {
	c, err := newCFile(p, o, false)
	if err != nil {
		return nil, err
	}
	var options []string
	for _, l := range buildOptions {
		if c.macros[l.macro] != "" {
			options = append(options, l.option)
		}
	}
	return options, nil
}

// keyMacros holds the macros that keys need, in addition to those around their
// members.
var keyMacros = map[string]string{
	"tls":              "LWS_WITH_TLS",
	"server":           "LWS_WITH_SERVER",
	"direct_proto_str": "LWS_WITH_SS_DIRECT_PROTOCOL_STR",
}

// errNewer returns the error for something that a later release introduced.
func (t Target) errNewer(what, since string) error {
	return fmt.Errorf("%s needs lws %s or later, not %v", what, since, t)
}
