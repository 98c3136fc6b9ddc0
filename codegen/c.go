package codegen

import (
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

// COptions configure [C] and the other functions that write C.
type COptions struct {
	Source  string // name of the policy, for the comment
	Options string // flags of sspolicy compile, for the comment
	SHA256  string // hash of the policy text, in hexadecimal
	Version string // of sspolicy; see Equal
	Target  Target // zero means DefaultTarget

	// Prefix begins all symbols and macros; "" means "_ss_". Entry names the head
	// of the list, as an object and a macro; "" means the prefix and
	// "static_policy_entry", which by default is the name of the macro that lws's
	// policy2c defines.
	Prefix, Entry string

	// Build maps macros to whether the build of lws defines them, if known. They change the
	// size of structs. See [BuildOption].
	Build map[string]bool
}

// defaultPrefix is the prefix of lws's policy2c.
const defaultPrefix = "_ss_"

// C writes the policy as tables for lws, in one file. Include it in the source file
// that sets pss_policies of lws_context_creation_info to the address of Entry.
//
// C fails and writes nothing if the target cannot hold the whole policy.
func C(w io.Writer, p *policy.Policy, o COptions) error {
	c, err := newCFile(p, o, false)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, c.comment()+c.guard("POLICY_H", c.needs()+c.body.String()+"\n"+macrosOf(p, c.o)))
	return err
}

// CWithHeader is like [C] but writes two files: a header that declares Entry, and a
// source file that includes the header as include.
func CWithHeader(header, source io.Writer, include string, p *policy.Policy, o COptions) error {
	if strings.ContainsAny(include, "\"\\\n") {
		return fmt.Errorf("invalid name of an included header: %q", include)
	}
	c, err := newCFile(p, o, true)
	if err != nil {
		return err
	}
	_, err = io.WriteString(header, c.comment()+c.guard("POLICY_H", fmt.Sprintf(
		"%s\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n\nextern const lws_ss_policy_t %s;\n\n#ifdef __cplusplus\n}\n#endif\n\n%s",
		c.needs(), c.o.Entry, macrosOf(p, c.o))))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(source, "%s\n#include \"%s\"\n%s", c.comment(), include, c.body.String())
	return err
}

// guard adds an include guard to a text. The value of its macro is the start of the hash,
// so that a second policy with the same prefix breaks the build instead of being skipped.
func (c *cFile) guard(end, text string) string {
	value := "0x0"
	if len(c.o.SHA256) >= 8 {
		value = "0x" + c.o.SHA256[:8]
	}
	macro := guard(c.o.Prefix, end)
	return "\n#if !defined(" + macro + ")\n#define " + macro + " " + value + "\n" + text +
		"\n#elif " + macro + " != " + value + "\n#error \"another policy has the prefix " + c.o.Prefix +
		" too: compile one of them with another --prefix\"\n#endif\n"
}

// guard returns the name of a macro, such as an include guard.
func guard(prefix, end string) string {
	macro := strings.ToUpper(strings.Trim(prefix, "_")) + "_" + end
	if macro[0] == '_' { // such names are reserved in C
		macro = "SS" + macro
	}
	return macro
}

// A cFile is a C source file under construction.
//
// Its objects are const, although lws declares some pointers to them without const,
// such as next and metadata. The casts are safe: lws does not write to a streamtype
// or its metadata, only to copies in the stream. So all objects can be in read-only
// memory, and equal ones can be merged.
type cFile struct {
	o           COptions
	release     string
	product     string
	body        strings.Builder
	tokens      strings.Builder // macros before the body
	tables      []part          // with addresses
	data        []part          // without addresses
	symbols     *symbols
	expressions map[any]string        // by part of the policy
	objects     map[string]string     // expressions by type and initialiser
	keep        map[*policy.Cert]bool // used by servers
	macros      map[string]string     // that the build of lws must define, with the feature that needs each
	nodes       map[string][]node     // layouts by type
	has         map[string]bool       // whether the target includes a release
	oldest      int                   // the minimum LWS_LIBRARY_VERSION_NUMBER
	newest      string                // the feature that requires it
	subject     subject               // of error messages
	errs        []error
	heads       []part         // heads of the lists of streamtypes
	streams     []streamPart   // in the order of the policy
	literals    map[string]int // sizes of strings, by expression
	certs       []*policy.Cert
}

// quiet and loud surround the tables. In C++, g++ -Wextra warns about members that
// a designated initialiser omits. Compilers align large objects for speed, up to 32
// bytes, unless the source sets the alignment.
const (
	quiet = "#if defined(__cplusplus) && defined(__GNUC__)\n#pragma GCC diagnostic push\n" +
		"#pragma GCC diagnostic ignored \"-Wmissing-field-initializers\"\n#endif\n" +
		"#if defined(__GNUC__)\n#define SSPOLICY_ALIGN(type) __attribute__((aligned(__alignof__(type))))\n" +
		"#else\n#define SSPOLICY_ALIGN(type)\n#endif\n"
	loud = "#undef SSPOLICY_ALIGN\n#if defined(__cplusplus) && defined(__GNUC__)\n#pragma GCC diagnostic pop\n#endif\n"
)

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func newCFile(p *policy.Policy, o COptions, external bool) (*cFile, error) {
	c, err := newEmptyCFile(o)
	if err != nil {
		return nil, err
	}
	if len(p.StreamTypes) == 0 {
		return nil, errNoStreamtypes
	}
	c.release, c.product = p.Release, p.Product
	c.policy(p, external)
	c.body.WriteString("\n" + loud)
	return c, errors.Join(c.errs...)
}

var errNoStreamtypes = errors.New("the policy has no streamtypes: C tables need at least one")

func newEmptyCFile(o COptions) (*cFile, error) {
	o.Target = cmp.Or(o.Target, DefaultTarget)
	o.Prefix = cmp.Or(o.Prefix, defaultPrefix)
	o.Entry = cmp.Or(o.Entry, o.Prefix+"static_policy_entry")
	if err := CheckSymbols(o.Prefix, o.Entry); err != nil {
		return nil, err
	}
	c := &cFile{
		o:           o,
		symbols:     newSymbols(),
		expressions: map[any]string{},
		objects:     map[string]string{},
		keep:        map[*policy.Cert]bool{},
		macros:      map[string]string{},
		nodes:       map[string][]node{},
		has:         map[string]bool{},
		oldest:      lwsNumber(schema.Version(o.Target)),
		literals:    map[string]int{},
	}
	c.body.WriteString("\n" + quiet)
	if on, known := o.Build[secureStreams]; known && !on {
		return nil, fmt.Errorf("tables need libwebsockets built with -D%s", optionOf(secureStreams))
	}
	return c, nil
}

// CheckSymbols returns an error if the prefix or the entry is neither empty nor a
// valid symbol.
func CheckSymbols(prefix, entry string) error {
	for _, s := range []string{prefix, entry} {
		if err := checkSymbol(s); err != nil {
			return err
		}
	}
	own, begins := strings.CutPrefix(entry, cmp.Or(prefix, defaultPrefix))
	if begins && (strings.HasPrefix(own, "token_") || slices.Contains(ownSymbols, own)) {
		return fmt.Errorf("%q is another symbol of the tables", entry)
	}
	return nil
}

// ownSymbols are the symbols and macros of the tables and of the packed policy,
// without their prefix. Macros for headers, which begin with token_, are not
// included.
var ownSymbols = []string{
	"data", "tables", "socks5_proxy", "policy_json",
	"policy_product", "policy_release", "policy_sha256", "policy_text", "policy_schema_version", "policy_identity",
}

// checkSymbol returns an error unless s is a valid symbol or empty.
func checkSymbol(s string) error {
	if s != "" && (!identifier.MatchString(s) || cKeywords[s]) {
		return fmt.Errorf("%q is not a valid symbol, or start of one, in C", s)
	}
	return nil
}

// cKeywords holds the keywords of C and C++ that begin with a lower-case letter.
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

// policy writes the tables of a policy.
func (c *cFile) policy(p *policy.Policy, external bool) {
	c.collect(p, c.o.Entry)
	c.write(external)
}

// collect adds the objects of a policy, and the head of its list.
func (c *cFile) collect(p *policy.Policy, entry string) {
	for _, st := range p.StreamTypes {
		if st.Server {
			c.keep[st.ServerCert], c.keep[st.ServerKey] = true, true
		}
	}
	metrics := c.metrics(p.Metrics)
	next := "" // previous streamtype, which is the next in lws's list
	last := len(p.StreamTypes) - 1
	for i, st := range p.StreamTypes {
		v := c.stream(st)
		if next != "" {
			v["next"] = "(lws_ss_policy_t *)&" + next
		}
		if i < last {
			next = c.share("lws_ss_policy_t", "stream", cSymbol(st.Name), "", v)
			c.streams = append(c.streams, streamPart{st.Name, next})
			continue
		}
		if metrics != "" {
			v["metrics"] = metrics // lws reads only those of the head
		}
		var b strings.Builder
		h := part{typ: "lws_ss_policy_t", expression: entry}
		h.refs = c.object(&b, "", "lws_ss_policy_t", v)
		h.initialiser = b.String()
		c.heads = append(c.heads, h)
		c.streams = append(c.streams, streamPart{st.Name, entry})
	}
}

// A streamPart is a streamtype and the expression for its object.
type streamPart struct{ name, expression string }

// write writes all objects.
func (c *cFile) write(external bool) {
	c.body.WriteString(c.tokens.String())
	c.writeParts("Data without addresses.", "data", c.data)
	c.writeParts("Streamtypes and what they point to.", "tables", c.tables)
	static := "static "
	if external {
		static = ""
	}
	c.body.WriteString("\n/* The head of lws's list is the last streamtype. */\n")
	for _, h := range c.heads {
		fmt.Fprintf(&c.body, "%sconst lws_ss_policy_t %s SSPOLICY_ALIGN(lws_ss_policy_t) = %s;\n", static, h.expression, h.initialiser)
	}
}

// A subject is the definition that an error is about.
type subject struct {
	section schema.Section
	name    string
}

func (s subject) String() string { return s.section.Noun() + " " + schema.QuoteName(s.name) }

// macrosOf returns the macros of a policy for programs. o holds the prefix, entry
// and hash of that policy.
func macrosOf(p *policy.Policy, o COptions) string {
	s := fmt.Sprintf("#define %s %[1]s\n", o.Entry)
	if p.SOCKS5Proxy != "" {
		s += fmt.Sprintf("\n/* lws's tables have no place for via-socks5: pass it to lws_set_socks(). */\n#define %ssocks5_proxy %s\n",
			o.Prefix, macroString(p.SOCKS5Proxy))
	}
	return s + identityMacros(o.Prefix, Identity{p.Product, p.Release, p.SchemaVersion, o.SHA256, o.Target}) + nameMacros(o.Prefix, p)
}

// partOptions returns the options for one of several policies, and the comment
// above its macros. names holds the names of the previous policies.
func (o COptions) partOptions(names *symbols, v Variant) (COptions, string) {
	name := strings.TrimRight(purify(v.Name), "_") // like guard
	if name == "" {
		name = "policy"
	}
	upper := strings.ToUpper(name) // as in macros
	o.Prefix += name + strings.TrimPrefix(names.unique(upper), upper) + "_"
	o.Entry = o.Prefix + "static_policy_entry"
	o.SHA256 = v.SHA256
	return o, fmt.Sprintf("\n/* Policy %s. */\n", schema.QuoteName(commentText(v.Name)))
}

// stream returns the members of a streamtype, and writes the objects that they point
// to.
func (c *cFile) stream(st *policy.StreamType) values {
	c.subject = subject{schema.Streams, st.Name}
	v := make(values, 16) // enough for most
	v["streamtype"], v["protocol"] = c.text(st.Name), c.protocol(st.Protocol)
	var flags []*schema.Key
	addFlag := func(k *schema.Key) {
		if !slices.ContainsFunc(flags, func(f *schema.Key) bool { return f.Bit == k.Bit }) {
			flags = append(flags, k)
		}
	}
	a := noArm
	if st.HTTP != nil {
		a = armHTTP
	} else if st.MQTT != nil {
		a = armMQTT
	}
	plan := streamPlans()[a]
	r := reflect.ValueOf(st).Elem()
	for i := range plan.fields {
		k, fv := plan.fields[i].key, plan.fields[i].value(r)
		if fv.IsZero() || !inTrust(k, st.Server) || !c.available(k.Name, k.Since) {
			continue
		}
		if macro := keyMacros[k.Name]; macro != "" {
			c.need(macro, k.Name)
		}
		if k.Flag != "" {
			addFlag(k)
		}
		if k.Member != "" {
			c.member(v, k, fv, cSymbol(st.Name))
		}
	}
	if st.HTTP != nil && st.HTTP.Multipart {
		// lws omits a part that has no name; an empty name suffices.
		name := schema.LookupKey(schema.Streams, "http_multipart_name")
		c.setDefault(v, name.Member)
		addFlag(name)
	}
	if !st.Server {
		// When connecting, lws reads the endpoint without checking for NULL
		// (lib/secure-streams/secure-streams.c, 4.1 to 5.0). Without a url, even an
		// empty one, it omits parts of the request: the subprotocol for ws; the
		// path in 4.1 and 4.2 with some flags (secstream_connect_munge_* of the
		// protocols).
		c.setDefault(v, "endpoint")
		if st.HTTP != nil {
			c.setDefault(v, "u.http.url")
		}
	}
	if len(flags) > 0 {
		slices.SortFunc(flags, func(a, b *schema.Key) int { return cmp.Compare(a.Bit, b.Bit) })
		names := make([]string, len(flags))
		for i, k := range flags {
			names[i] = k.Flag
		}
		v["flags"] = strings.Join(names, " |\n")
	}
	return v
}

// inTrust reports whether the key belongs to the half of the union trust that a
// server or a client uses. It is true for keys outside that union.
func inTrust(k *schema.Key, server bool) bool {
	switch k.Name {
	case "tls_trust_store":
		return !server
	case "server_cert", "server_key":
		return server
	}
	return true
}

// setDefault sets a member to the empty string if it has no value.
func (c *cFile) setDefault(v values, member string) {
	if v[member] == "" {
		v[member] = c.text("")
	}
}

// member sets the members of a streamtype for a field, and writes the objects that
// they point to. symbol is the name of the streamtype as part of a symbol.
func (c *cFile) member(v values, k *schema.Key, field reflect.Value, symbol string) {
	switch x := field.Interface().(type) {
	case []policy.Metadata:
		v["metadata"] = c.metadata(symbol, x)
		v["metadata_count"] = c.count(len(x), 255, "metadata items")
	case []policy.StatusState:
		v["u.http.respmap"] = c.respmap(symbol, x)
		v["u.http.count_respmap"] = c.count(len(x), 255, "statuses")
	case []policy.Option:
		v["pvo"] = c.options(symbol, x)
	case *policy.Retry:
		v[k.Member] = c.retry(x)
	case *policy.TrustStore:
		v[k.Member] = c.trustStore(x)
	case *policy.Auth:
		v[k.Member] = c.auth(x)
	case *policy.Cert:
		v[k.Member] = c.cert(x)
	default:
		v[k.Member] = c.scalar(field, k)
	}
}

// keyed returns the non-pointer members of the struct for an entry of a section
// other than streamtypes.
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

// available reports whether the target includes the release that introduced what.
// If it does, the file requires that release; otherwise available reports an error.
func (c *cFile) available(what, since string) bool {
	has, known := c.has[since]
	if !known {
		has = c.o.Target.has(since, "")
		c.has[since] = has
		if n := number(since); has && n > c.oldest {
			c.oldest, c.newest = n, c.of(what)
		}
	}
	if !has {
		c.errs = append(c.errs, c.o.Target.errNewer(c.subject.String()+": "+what, since))
	}
	return has
}

// need records that the subject's feature what needs a macro of the build of lws.
// It reports an error if the build does not define the macro.
func (c *cFile) need(macro, what string) {
	if c.macros[macro] != "" {
		return
	}
	c.macros[macro] = c.of(what)
	if on, known := c.o.Build[macro]; known && !on {
		c.errs = append(c.errs, fmt.Errorf("%v: %s needs libwebsockets built with -D%s", c.subject, what, optionOf(macro)))
	}
}

// of describes what of the subject in a form that fits into a string of a C
// directive.
func (c *cFile) of(what string) string {
	return what + " of " + c.subject.section.Noun() + " " + strings.ReplaceAll(commentText(c.subject.name), `"`, "'")
}

// built reports whether the build of lws defines a macro. If the options do not
// say, it is defined if the policy needs it or lws defines it by default.
func (c *cFile) built(macro string) bool {
	if on, known := c.o.Build[macro]; known {
		return on
	}
	return macro == "LWS_WITH_SERVER" || c.macros[macro] != ""
}

// comment returns the comment at the top of each file.
func (c *cFile) comment() string {
	var b strings.Builder
	b.WriteString("/* " + generated + "\n *\n")
	target := ""
	if c.o.Target != (Target{}) {
		target = "libwebsockets " + c.o.Target.String()
	}
	for _, line := range []struct{ name, text string }{
		{versionLine, c.o.Version}, {sourceLine, c.o.Source}, {optionsLine, c.o.Options}, {hashLine, c.o.SHA256}, {"Release", c.release}, {"Product", c.product}, {"For", target},
	} {
		if line.text != "" {
			fmt.Fprintf(&b, " * %s: %s\n", line.name, commentText(line.text))
		}
	}
	b.WriteString(" */\n")
	return b.String()
}

// needs returns the lines that include lws and check its version and build options.
func (c *cFile) needs() string {
	var b strings.Builder
	b.WriteString("\n#include <libwebsockets.h>\n")
	next := lwsNumber(schema.Version{Major: c.o.Target.Major, Minor: c.o.Target.Minor + 1})
	fmt.Fprintf(&b, "\n#if LWS_LIBRARY_VERSION_NUMBER < %d || LWS_LIBRARY_VERSION_NUMBER >= %d\n", c.oldest, next)
	fmt.Fprintf(&b, "#error \"this policy was compiled for libwebsockets %v", c.o.Target)
	if patch := c.oldest % 1000; patch > 0 {
		fmt.Fprintf(&b, ", from %v.%d on, which %s needs", c.o.Target, patch, c.newest)
	}
	b.WriteString(": compile it with --lws and the version of libwebsockets that you build with\"\n#endif\n")
	fmt.Fprintf(&b, "#if !defined(%s)\n#error \"libwebsockets was built without Secure Streams: add -D%s to its cmake line\"\n#endif\n",
		secureStreams, optionOf(secureStreams))
	for _, l := range buildOptions {
		if what := c.macros[l.macro]; what != "" {
			fmt.Fprintf(&b, "#if !defined(%s)\n#error \"%s needs libwebsockets built with -D%s: add it to the cmake line of libwebsockets, or change the policy\"\n#endif\n",
				l.macro, what, l.option)
		}
	}
	return b.String()
}
