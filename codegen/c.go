package codegen

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/schema"
)

// COptions are the settings of C.
type COptions struct {
	Source string // name of the policy, for people
	SHA256 string // of its text, in hexadecimal
	Target Target // zero is DefaultTarget

	Prefix string // of all symbols; empty is "_ss_"
	Entry  string // what the first streamtype is called; empty is the name that lws's policy2c gives it
}

// C writes the policy as tables for lws, to be included by the source file
// that sets pss_policies of lws_context_creation_info to the address of Entry.
//
// It writes nothing unless the target can hold all that the policy says.
func C(w io.Writer, p *runtime.Policy, o COptions) error {
	o.Target = cmp.Or(o.Target, DefaultTarget)
	o.Prefix = cmp.Or(o.Prefix, "_ss_")
	o.Entry = cmp.Or(o.Entry, "_ss_static_policy_entry")
	if len(p.StreamTypes) == 0 {
		return errors.New("the policy has no streamtypes: there is nothing that C tables could start with")
	}
	c := &cFile{
		o:       o,
		symbols: newSymbols(o.Entry, o.Prefix+"streams", o.Prefix+"metrics"),
		shared:  map[any]string{},
		keep:    map[*runtime.Cert]bool{},
		macros:  map[string]bool{},
		oldest:  lwsNumber(schema.Version(o.Target)),
	}
	c.policy(p)
	if len(c.errs) > 0 {
		return errors.Join(c.errs...)
	}
	_, err := io.WriteString(w, c.head(p)+c.body.String())
	return err
}

// cFile is the C source being written.
//
// Its objects are const although lws declares some of the pointers to them
// without it, next and metadata among them, and the casts that this takes are
// safe: lws writes to neither a streamtype nor to its metadata, but to copies
// in the stream. So all of it can stay in read-only memory.
type cFile struct {
	o       COptions
	body    strings.Builder
	symbols *symbols
	shared  map[any]string         // address of what several objects may point to
	keep    map[*runtime.Cert]bool // what servers use
	macros  map[string]bool
	oldest  int // LWS_LIBRARY_VERSION_NUMBER that will do
	what    string
	errs    []error
}

func (c *cFile) policy(p *runtime.Policy) {
	for _, st := range p.StreamTypes {
		if st.Server {
			c.keep[st.ServerCert], c.keep[st.ServerKey] = true, true
		}
	}
	metrics := c.metrics(p.Metrics)
	streams := make([]values, len(p.StreamTypes))
	name := c.o.Prefix + "streams"
	for i, st := range p.StreamTypes {
		streams[i] = c.stream(st)
		if i+1 < len(streams) {
			streams[i]["next"] = fmt.Sprintf("(lws_ss_policy_t *)&%s[%d]", name, i+1)
		}
	}
	if metrics != "" {
		streams[0]["metrics"] = metrics // lws looks for them at the first streamtype alone
	}
	fmt.Fprintf(&c.body, "\n/* The streamtypes, in the order of the policy. */\nstatic const lws_ss_policy_t %s[] = {\n", name)
	for i, v := range streams {
		c.what = "streamtype " + schema.QuoteName(p.StreamTypes[i].Name)
		c.object("\t", "lws_ss_policy_t", v, true)
	}
	fmt.Fprintf(&c.body, "};\n\n#define %s %s[0]\n", c.o.Entry, name)
	if p.SOCKS5Proxy != "" {
		fmt.Fprintf(&c.body, "\n/* lws's tables have no place for via-socks5: give it to lws_set_socks(). */\n#define %ssocks5_proxy %s\n",
			c.o.Prefix, strings.ReplaceAll(cString(p.SOCKS5Proxy), "\n", " \\\n\t"))
	}
}

// stream returns the members of a streamtype, and writes what they point to.
func (c *cFile) stream(st *runtime.StreamType) values {
	c.what = "streamtype " + schema.QuoteName(st.Name)
	v := values{"streamtype": c.text(st.Name)}
	symbol := cSymbol(st.Name)
	var flags []*schema.Key
	plan := streamPlans()[noArm]
	if st.HTTP != nil {
		plan = streamPlans()[armHTTP]
	} else if st.MQTT != nil {
		plan = streamPlans()[armMQTT]
	}
	r := reflect.ValueOf(st).Elem()
	for i := range plan.fields {
		f := &plan.fields[i]
		fv := f.value(r)
		if fv.IsZero() || st.Server && f.key.Name == "tls_trust_store" || !st.Server && (f.key.Name == "server_cert" || f.key.Name == "server_key") {
			continue // trust is a union: which half counts is for server to say
		}
		if !c.available(f.key.Name, f.key.Since) {
			continue
		}
		if macro := keyMacros[f.key.Name]; macro != "" {
			c.macros[macro] = true
		}
		if f.key.Flag != "" && !slices.ContainsFunc(flags, func(k *schema.Key) bool { return k.Bit == f.key.Bit }) {
			flags = append(flags, f.key)
		}
		if f.key.Member == "" {
			continue
		}
		switch x := fv.Interface().(type) {
		case []runtime.Metadata:
			v["metadata"] = c.metadata(symbol, x)
			v["metadata_count"] = c.count(len(x), 255, "metadata items")
		case []runtime.StatusState:
			v["u.http.respmap"] = c.respmap(symbol, x)
			v["u.http.count_respmap"] = c.count(len(x), 255, "statuses")
		case []runtime.Option:
			v["pvo"] = c.options(symbol, x)
		case *runtime.Retry:
			v[f.key.Member] = c.retry(x)
		case *runtime.TrustStore:
			v[f.key.Member] = c.trustStore(x)
		case *runtime.Auth:
			v[f.key.Member] = c.auth(x)
		case *runtime.Cert:
			v[f.key.Member] = c.cert(x)
		default:
			v[f.key.Member] = c.scalar(fv, f.key)
		}
	}
	v["protocol"] = c.protocol(st.Protocol) // also where it is 0
	if !st.Server {
		// To connect, lws reads an endpoint whether there is one or not; and
		// without a url, be it empty, it skips what comes with the request:
		// subprotocol, cookies and all (lib/secure-streams/protocols, the
		// functions secstream_connect_munge_* of 4.1 to 5.0).
		v["endpoint"] = cmp.Or(v["endpoint"], `""`)
		if st.HTTP != nil {
			v["u.http.url"] = cmp.Or(v["u.http.url"], `""`)
		}
	}
	slices.SortFunc(flags, func(a, b *schema.Key) int { return cmp.Compare(a.Bit, b.Bit) })
	for _, k := range flags {
		if v["flags"] != "" {
			v["flags"] += " |\n"
		}
		v["flags"] += k.Flag
	}
	return v
}

// keyed returns the members of the struct that an entry of a section other
// than s is compiled to, but for those that are pointers.
func (c *cFile) keyed(entry any) values {
	v := values{}
	r := reflect.ValueOf(entry).Elem()
	p := plans()[r.Type()]
	for i := range p.fields {
		f := &p.fields[i]
		if fv := f.value(r); !fv.IsZero() && fv.Kind() != reflect.Slice && c.available(f.key.Name, f.key.Since) {
			v[f.key.Member] = c.scalar(fv, f.key)
		}
	}
	return v
}

// available reports whether the target has what came with a release. If not,
// that is an error; if so, the file needs that release.
func (c *cFile) available(what, since string) bool {
	if !c.o.Target.has(since, "") {
		c.errs = append(c.errs, c.o.Target.errNewer(c.what+": "+what, since))
		return false
	}
	c.oldest = max(c.oldest, number(since))
	return true
}

// head returns what comes before the tables.
func (c *cFile) head(p *runtime.Policy) string {
	var b strings.Builder
	b.WriteString("/* Code generated by sspolicy. DO NOT EDIT.\n *\n")
	for _, line := range []struct{ name, text string }{
		{"Source", c.o.Source}, {"SHA-256", c.o.SHA256}, {"Release", p.Release}, {"Product", p.Product},
	} {
		if line.text != "" {
			fmt.Fprintf(&b, " * %s: %s\n", line.name, commentText(line.text))
		}
	}
	fmt.Fprintf(&b, " * For: libwebsockets %v\n */\n\n#include <libwebsockets.h>\n", c.o.Target)

	next := lwsNumber(schema.Version{Major: c.o.Target.Major, Minor: c.o.Target.Minor + 1})
	fmt.Fprintf(&b, "\n#if LWS_LIBRARY_VERSION_NUMBER < %d || LWS_LIBRARY_VERSION_NUMBER >= %d\n", c.oldest, next)
	fmt.Fprintf(&b, "#error \"this policy was compiled for libwebsockets %v", c.o.Target)
	if patch := c.oldest % 1000; patch > 0 {
		fmt.Fprintf(&b, ", from %v.%d on", c.o.Target, patch)
	}
	b.WriteString("\"\n#endif\n")
	for _, l := range buildOptions {
		if c.macros[l.macro] {
			fmt.Fprintf(&b, "#if !defined(%s)\n#error \"this policy needs libwebsockets built with -D%s\"\n#endif\n", l.macro, l.option)
		}
	}
	return b.String()
}
