package codegen

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

// COptions are the settings of C.
type COptions struct {
	Source  string // name of the policy, for people
	SHA256  string // of its text, in hexadecimal
	Version string // of sspolicy; see Equal
	Target  Target // zero is DefaultTarget

	// Prefix is what all symbols and macros begin with; empty is "_ss_". Entry
	// is what the first streamtype of the list is called; empty is the prefix
	// and "static_policy_entry": by default, the name that policy2c of lws
	// gives it.
	Prefix, Entry string
}

// C writes the policy as tables for lws, in one file. It is to be included by
// the source file that sets pss_policies of lws_context_creation_info to the
// address of Entry.
//
// It writes nothing unless the target can hold all that the policy says.
func C(w io.Writer, p *policy.Policy, o COptions) error {
	c, err := newCFile(p, o, false)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, c.comment()+c.needs()+c.body.String()+"\n"+c.macroDefinitions())
	return err
}

// CWithHeader writes the same in two files: a header for whoever needs Entry,
// and a source file with the tables, which includes the header by the name
// include.
func CWithHeader(header, source io.Writer, include string, p *policy.Policy, o COptions) error {
	if strings.ContainsAny(include, "\"\\\n") {
		return fmt.Errorf("a header can't be included by the name %q", include)
	}
	c, err := newCFile(p, o, true)
	if err != nil {
		return err
	}
	guard := strings.ToUpper(strings.Trim(c.o.Prefix, "_")) + "_POLICY_H"
	if guard[0] == '_' { // which is not for programs to define
		guard = "SS" + guard
	}
	_, err = fmt.Fprintf(header, "%s\n#ifndef %s\n#define %[2]s\n%s\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n"+
		"\nextern const lws_ss_policy_t %s[%d];\n\n%s\n#ifdef __cplusplus\n}\n#endif\n\n#endif\n",
		c.comment(), guard, c.needs(), c.streams, len(p.StreamTypes), c.macroDefinitions())
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(source, "%s\n#include \"%s\"\n%s", c.comment(), include, c.body.String())
	return err
}

// cFile is the C source being written.
//
// Its objects are const although lws declares some of the pointers to them
// without it, next and metadata among them, and the casts that this takes are
// safe: lws writes to neither a streamtype nor to its metadata, but to copies
// in the stream. So all of it can stay in read-only memory, and equal objects
// can be one.
type cFile struct {
	o       COptions
	streams string // symbol of the streamtypes
	proxy   string // via-socks5 of the whole policy
	release string
	product string
	body    strings.Builder
	tokens  strings.Builder // macros that stand before it
	parts   [4]parts        // by alignment
	symbols *symbols
	made    map[any]string        // what a part of the policy was written as
	shared  map[string]string     // expression for the object with an initialiser
	keep    map[*policy.Cert]bool // what servers use
	macros  map[string]bool
	nodes   map[string][]node
	has     map[string]bool // whether the target has what came with a release
	oldest  int             // LWS_LIBRARY_VERSION_NUMBER that will do
	what    string
	errs    []error
	size    sizes
}

// quiet and loud are around the tables: as C++, g++ -Wextra warns of members
// that a designated initialiser leaves out.
const (
	quiet = "#if defined(__cplusplus) && defined(__GNUC__)\n#pragma GCC diagnostic push\n" +
		"#pragma GCC diagnostic ignored \"-Wmissing-field-initializers\"\n#endif\n"
	loud = "#if defined(__cplusplus) && defined(__GNUC__)\n#pragma GCC diagnostic pop\n#endif\n"
)

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func newCFile(p *policy.Policy, o COptions, external bool) (*cFile, error) {
	o.Target = cmp.Or(o.Target, DefaultTarget)
	o.Prefix = cmp.Or(o.Prefix, "_ss_")
	o.Entry = cmp.Or(o.Entry, o.Prefix+"static_policy_entry")
	if err := CheckSymbols(o.Prefix, o.Entry); err != nil {
		return nil, err
	}
	if len(p.StreamTypes) == 0 {
		return nil, errors.New("the policy has no streamtypes: there is nothing that C tables could start with")
	}
	c := &cFile{
		o:       o,
		streams: o.Prefix + "streams",
		proxy:   p.SOCKS5Proxy,
		release: p.Release,
		product: p.Product,
		symbols: newSymbols("metrics"),
		made:    map[any]string{},
		shared:  map[string]string{},
		keep:    map[*policy.Cert]bool{},
		macros:  map[string]bool{},
		nodes:   map[string][]node{},
		has:     map[string]bool{},
		oldest:  lwsNumber(schema.Version(o.Target)),
		size:    sizes{strings: map[string]bool{}, structs: map[string]int{}},
	}
	c.body.WriteString("\n" + quiet)
	c.policy(p, external)
	c.body.WriteString("\n" + loud)
	return c, errors.Join(c.errs...)
}

// CheckSymbols says what is wrong with a prefix or entry; empty ones are right.
func CheckSymbols(prefix, entry string) error {
	for _, s := range []string{prefix, entry} {
		if s != "" && (!identifier.MatchString(s) || cKeywords[s]) {
			return fmt.Errorf("%q can't be, or begin, a symbol of C", s)
		}
	}
	return nil
}

// cKeywords are the words that are no symbols in C or C++, as far as they do not
// begin with a capital.
var cKeywords = func() map[string]bool {
	m := map[string]bool{}
	for word := range strings.FieldsSeq(`
		alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t char32_t char8_t class compl
		concept const const_cast consteval constexpr constinit continue co_await co_return co_yield decltype default delete
		do double dynamic_cast else enum explicit export extern false float for friend goto if inline int long mutable
		namespace new noexcept not not_eq nullptr operator or or_eq private protected public register reinterpret_cast
		requires restrict return short signed sizeof static static_assert static_cast struct switch template this
		thread_local throw true try typedef typeid typename typeof typeof_unqual union unsigned using virtual void volatile
		wchar_t while xor xor_eq`) {
		m[word] = true
	}
	return m
}()

func (c *cFile) policy(p *policy.Policy, external bool) {
	for _, st := range p.StreamTypes {
		if st.Server {
			c.keep[st.ServerCert], c.keep[st.ServerKey] = true, true
		}
	}
	metrics := c.metrics(p.Metrics)
	streams := make([]values, len(p.StreamTypes))
	for i, st := range p.StreamTypes {
		streams[i] = c.stream(st)
		if i > 0 {
			streams[i]["next"] = fmt.Sprintf("(lws_ss_policy_t *)&%s[%d]", c.streams, i-1)
		}
	}
	if metrics != "" {
		streams[len(streams)-1]["metrics"] = metrics // lws looks for them at the head of the list alone
	}
	c.body.WriteString(c.tokens.String())
	c.writeParts()
	static := "static "
	if external {
		static = ""
	}
	fmt.Fprintf(&c.body, "\n/* The streamtypes. As lws would list them, the last one is the head of the list. */\n%sconst lws_ss_policy_t %s[] = {\n", static, c.streams)
	for i, v := range streams {
		c.what = "streamtype " + schema.QuoteName(p.StreamTypes[i].Name)
		c.body.WriteByte('\t')
		c.size.pointers += c.object(&c.body, "\t", "lws_ss_policy_t", v)
		c.body.WriteString(",\n")
	}
	c.body.WriteString("};\n")
	c.size.structs["lws_ss_policy_t"] += len(streams)
}

// macroDefinitions returns the definitions of macros.
func (c *cFile) macroDefinitions() string {
	s := fmt.Sprintf("#define %s %s[%d]\n", c.o.Entry, c.streams, c.size.structs["lws_ss_policy_t"]-1)
	if c.proxy != "" {
		s += fmt.Sprintf("\n/* lws's tables have no place for via-socks5: give it to lws_set_socks(). */\n#define %ssocks5_proxy %s\n",
			c.o.Prefix, strings.ReplaceAll(cString(c.proxy), "\n", " \\\n\t"))
	}
	return s
}

// stream returns the members of a streamtype, and writes what they point to.
func (c *cFile) stream(st *policy.StreamType) values {
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
		case []policy.Metadata:
			v["metadata"] = c.metadata(symbol, x)
			v["metadata_count"] = c.count(len(x), 255, "metadata items")
		case []policy.StatusState:
			v["u.http.respmap"] = c.respmap(symbol, x)
			v["u.http.count_respmap"] = c.count(len(x), 255, "statuses")
		case []policy.Option:
			v["pvo"] = c.options(symbol, x)
		case *policy.Retry:
			v[f.key.Member] = c.retry(x)
		case *policy.TrustStore:
			v[f.key.Member] = c.trustStore(x)
		case *policy.Auth:
			v[f.key.Member] = c.auth(x)
		case *policy.Cert:
			v[f.key.Member] = c.cert(x)
		default:
			v[f.key.Member] = c.scalar(fv, f.key)
		}
	}
	if st.HTTP != nil && st.HTTP.Multipart {
		// Without a name, be it empty, lws makes no part of the message.
		name := schema.LookupKey(schema.Streams, "http_multipart_name")
		if v[name.Member] == "" {
			v[name.Member] = c.text("")
		}
		if !slices.ContainsFunc(flags, func(k *schema.Key) bool { return k.Bit == name.Bit }) {
			flags = append(flags, name)
		}
	}
	v["protocol"] = c.protocol(st.Protocol) // also where it is 0
	if !st.Server {
		// To connect, lws reads an endpoint whether there is one or not
		// (lib/secure-streams/secure-streams.c, 4.1 to 5.0). Without a url, be
		// it empty, it skips what comes with the request: on ws the
		// subprotocol, in 4.1 and 4.2 the path, with some flags
		// (secstream_connect_munge_* of the protocols).
		if v["endpoint"] == "" {
			v["endpoint"] = c.text("")
		}
		if st.HTTP != nil && v["u.http.url"] == "" {
			v["u.http.url"] = c.text("")
		}
	}
	if len(flags) > 0 {
		slices.SortFunc(flags, func(a, b *schema.Key) int { return cmp.Compare(a.Bit, b.Bit) })
		var b strings.Builder
		for i, k := range flags {
			if i > 0 {
				b.WriteString(" |\n")
			}
			b.WriteString(k.Flag)
		}
		v["flags"] = b.String()
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
	has, known := c.has[since]
	if !known {
		has = c.o.Target.has(since, "")
		c.has[since] = has
		if has {
			c.oldest = max(c.oldest, number(since))
		}
	}
	if !has {
		c.errs = append(c.errs, c.o.Target.errNewer(c.what+": "+what, since))
	}
	return has
}

// comment returns the comment at the top of each file.
func (c *cFile) comment() string {
	var b strings.Builder
	b.WriteString("/* " + generated + "\n *\n")
	for _, line := range []struct{ name, text string }{
		{madeBy, c.o.Version}, {"Source", c.o.Source}, {"SHA-256", c.o.SHA256}, {"Release", c.release}, {"Product", c.product},
	} {
		if line.text != "" {
			fmt.Fprintf(&b, " * %s: %s\n", line.name, commentText(line.text))
		}
	}
	fmt.Fprintf(&b, " * For: libwebsockets %v\n */\n", c.o.Target)
	return b.String()
}

// needs returns the lines that include lws, and check that it is the right one.
func (c *cFile) needs() string {
	var b strings.Builder
	b.WriteString("\n#include <libwebsockets.h>\n")
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

// generated is what the first line of a generated file says, and madeBy what the
// line with the version of sspolicy begins with.
const (
	generated = "Code generated by sspolicy. DO NOT EDIT."
	madeBy    = "By sspolicy"
)

// Equal reports whether two generated files are the same, but for the version
// of sspolicy that they were written by.
func Equal(a, b []byte) bool { return bytes.Equal(withoutVersion(a), withoutVersion(b)) }

func withoutVersion(file []byte) []byte {
	const top = 1000 // bytes to look in
	for _, mark := range []string{"\n * " + madeBy + ": ", "\n// " + madeBy + ": "} {
		start := bytes.Index(file[:min(top, len(file))], []byte(mark))
		if start < 0 {
			continue
		}
		if end := bytes.IndexByte(file[start+1:], '\n'); end >= 0 {
			return slices.Concat(file[:start], file[start+1+end:])
		}
	}
	return file
}
