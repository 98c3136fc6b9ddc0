package codegen

import (
	"bytes"
	"cmp"
	"fmt"
	"go/token"
	"io"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dave/jennifer/jen"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// version is the version of the contract between generated files and package
// runtime; see policy.MaxVersion.
const version = 4

const (
	runtimePath   = "github.com/secure-streams/sspolicy/runtime"
	policyPath    = runtimePath + "/policy"
	transportPath = runtimePath + "/transport"
)

// transportOf returns the import path of the package that executes a protocol.
func transportOf(p policy.Protocol) string { return runtimePath + "/" + p.Dir() }

// GoOptions configure [Go] and [GoVariants].
type GoOptions struct {
	Package string // package name; "" means "policy"
	Source  string // name of the policy, for the comment
	Options string // flags of sspolicy compile, for the comment
	SHA256  string // hash of the policy text, in hexadecimal
	Version string // of sspolicy; see Equal

	// Proxied makes a package for programs whose streams a Secure Streams proxy
	// executes. It has a description of the streamtypes instead of tables; see
	// runtime.Options.Proxy.
	Proxied bool
}

// Go writes a package with the policy as static tables. For each streamtype the
// package has a constant with its name, and a type whose fields are the declared
// metadata and whose methods make streams.
//
// The tables consist of constants and addresses, which the Go compiler and linker
// lay out: the package does nothing at init.
func Go(w io.Writer, p *policy.Policy, o GoOptions) error {
	g, err := newGoPackage(p, o)
	if err != nil {
		return err
	}
	return g.write(w)
}

// newGoFile returns a file without declarations.
func newGoFile(o GoOptions, constraint string) (*goFile, error) {
	o.Package = cmp.Or(o.Package, "policy")
	if !token.IsIdentifier(o.Package) || o.Package == "_" {
		return nil, fmt.Errorf("%q is not a valid name of a Go package", o.Package)
	}
	f := jen.NewFile(o.Package)
	f.HeaderComment(generated)
	for _, line := range []struct{ name, text string }{
		{versionLine, o.Version}, {sourceLine, o.Source}, {optionsLine, o.Options}, {hashLine, o.SHA256},
	} {
		if line.text != "" {
			f.HeaderComment(line.name + ": " + commentText(line.text))
		}
	}
	if constraint != "" {
		f.HeaderComment("//go:build " + constraint)
	}
	for _, p := range []string{runtimePath, policyPath, transportPath} {
		f.ImportName(p, path.Base(p))
	}
	for p := range policy.Protocol(policy.NumProtocols) {
		f.ImportName(transportOf(p), p.Dir())
	}
	return &goFile{
		file:      f,
		symbols:   newSymbols("Policy", "SHA256", "Transports", "NewContext"),
		variables: map[any]string{},
		stencils:  &stencils{f, map[string]*stencil{}},
	}, nil
}

// newGoPackage returns the file of a package with a policy.
func newGoPackage(p *policy.Policy, o GoOptions) (*goFile, error) {
	g, err := newGoFile(o, "")
	if err != nil {
		return nil, err
	}
	f := g.file
	originals := p.StreamTypes
	about := "Policy is the compiled policy. It must not be changed."
	if o.Proxied {
		p, originals = describe(p)
		about = "Policy describes the streamtypes. It must not be changed. The proxy has the policy."
	}
	f.Line().Comment("The build fails here if this file and package runtime do not match.")
	f.Const().Defs(
		jen.Id("_").Op("=").Qual(policyPath, "EnforceVersion").Call(jen.Lit(version).Op("-").Qual(policyPath, "MinVersion")),
		jen.Id("_").Op("=").Qual(policyPath, "EnforceVersion").Call(jen.Qual(policyPath, "MaxVersion").Op("-").Lit(version)),
	)

	// Types choose their names first, since programs use them most.
	types := make([]string, len(p.StreamTypes))
	for i, st := range p.StreamTypes {
		types[i] = g.symbols.unique(goSymbol("Type", st.Name))
	}
	constants := make([]string, len(p.StreamTypes))
	if len(p.StreamTypes) > 0 {
		f.Line().Comment("The names of the streamtypes.")
		f.Const().DefsFunc(func(defs *jen.Group) {
			for i, st := range p.StreamTypes {
				name := types[i]
				if !token.IsExported(goSymbol("", st.Name)) {
					name = strings.TrimPrefix(name, "Type")
				}
				constants[i] = g.symbols.unique("Stream" + name)
				defs.Id(constants[i]).Op("=").Lit(st.Name)
			}
		})
	}
	if o.SHA256 != "" {
		f.Line().Comment("SHA256 is the hash of the policy, as sspolicy pack writes it.")
		f.Const().Id("SHA256").Op("=").Lit(o.SHA256)
	}
	f.Line().Comment(about)
	g.table("Policy", p)
	if o.Proxied {
		g.proxiedContext(f)
	} else {
		g.functions(f, p)
	}
	for i, st := range originals {
		if err := g.accessors(&g.methods, st, types[i], constants[i]); err != nil {
			return nil, err
		}
	}
	return g, g.err
}

// table declares a variable with a policy, and the values that it refers to.
func (g *goFile) table(name string, p *policy.Policy) {
	g.file.Var().Id(name).Op("=").Add(g.literal(reflect.ValueOf(p), "&"))
	for len(g.pending) > 0 {
		define := g.pending[0]
		g.pending = g.pending[1:]
		define(g.file)
	}
}

// write writes the file.
func (g *goFile) write(w io.Writer) error {
	if g.err != nil {
		return g.err
	}
	var frame bytes.Buffer
	if err := g.file.Render(&frame); err != nil {
		return err
	}
	rest := frame.Bytes()
	for _, streams := range g.streams {
		above, below, _ := bytes.Cut(rest, []byte("\t\t"+streamsMark+",\n"))
		for _, text := range [][]byte{above, streams.Bytes()} {
			if _, err := w.Write(text); err != nil {
				return err
			}
		}
		rest = below
	}
	for _, text := range [][]byte{rest, g.methods.Bytes()} {
		if _, err := w.Write(text); err != nil {
			return err
		}
	}
	return nil
}

// streamsMark marks the place of the streamtypes of a policy in the file that
// jennifer renders.
const streamsMark = "streamtypes" + string(holeMark)

// A goFile is a Go source file under construction.
type goFile struct {
	file      *jen.File
	symbols   *symbols
	variables map[any]string    // symbols of shared values
	pending   []func(*jen.File) // write the missing definitions
	stencils  *stencils
	streams   []*bytes.Buffer // the streamtype literals of each policy
	methods   bytes.Buffer    // appended to the file that jennifer renders
	drawing   bool            // literal draws a stencil, with holes for its leaves
	holes     int             // number of holes made
	err       error           // first error of a stencil
}

// transports returns the import paths of the transports that a policy needs and,
// for each, its options with their import paths.
func transports(p *policy.Policy) (paths []string, options map[string][][2]string) {
	options = map[string][][2]string{}
	use := func(path string, needed ...[2]string) {
		if !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
		for _, o := range needed {
			if !slices.Contains(options[path], o) {
				options[path] = append(options[path], o)
			}
		}
	}
	for _, st := range p.StreamTypes {
		carrier := st.Carrier()
		if carrier == policy.ProtocolSink {
			continue // the program makes the transport, to register its sinks
		}
		path := transportOf(carrier)
		use(path)
		if carrier.IsHTTP() && st.Auth != nil && st.Auth.Type == policy.AuthSigV4 {
			use(path, [2]string{runtimePath + "/http", "SigV4"})
		}
		if carrier == policy.ProtocolRaw && st.TLS && !st.Server {
			use(path, [2]string{path, "TLS"})
		}
		if st.Server && (carrier.IsHTTP() || carrier == policy.ProtocolWS || carrier == policy.ProtocolRaw) {
			use(path, [2]string{path, "Server"})
			if ws := transportOf(policy.ProtocolWS); st.HTTP != nil && st.HTTP.WSSubprotocol != "" {
				use(ws, [2]string{ws, "Server"})
			}
		}
	}
	return paths, options
}

// functions writes Transports and NewContext.
func (g *goFile) functions(f *jen.File, p *policy.Policy) {
	paths, options := transports(p)
	var calls []jen.Code
	for _, path := range paths {
		var args []jen.Code
		for _, o := range options[path] {
			args = append(args, jen.Qual(o[0], o[1]))
		}
		calls = append(calls, jen.Qual(path, "New").Call(args...))
	}
	f.Line().Comment("Transports returns new transports for the protocols of the policy.")
	list := jen.Return(jen.Nil())
	if calls != nil {
		list = jen.Return(jen.Index().Qual(transportPath, "Transport").Values(calls...))
	}
	f.Func().Id("Transports").Params().Index().Qual(transportPath, "Transport").Block(list)

	f.Line().Comment("NewContext returns a context for the policy. If o has no transports, it uses")
	f.Comment("Transports.")
	f.Func().Id("NewContext").Params(jen.Id("o").Qual(runtimePath, "Options")).
		Params(jen.Op("*").Qual(runtimePath, "Context"), jen.Error()).
		Block(
			jen.If(jen.Id("o").Dot("Transports").Op("==").Nil()).Block(
				jen.Id("o").Dot("Transports").Op("=").Id("Transports").Call(),
			),
			jen.Return(jen.Qual(runtimePath, "NewContext").Call(jen.Id("Policy"), jen.Id("o"))),
		)
}

// An accessor holds the properties of a streamtype that determine its type and
// methods. Texts that do not affect their layout are holes.
type accessor struct {
	typ, constant, about string
	fields               []accessorField
	open                 bool
	fetch                string // doc of the method; "" if there is none
	serve, handle        bool   // a server; an HTTP server
}

// An accessorField is the field of a metadata item.
type accessorField struct{ name, literal, comment string }

// accessors writes the type of a streamtype, with its metadata as fields and the
// methods that make streams.
func (g *goFile) accessors(out *bytes.Buffer, st *policy.StreamType, typ, constant string) error {
	var texts []string
	text := func(s string) string {
		texts = append(texts, s)
		return hole(len(texts) - 1)
	}
	comment := func(s string) string {
		if plainComment(s) {
			return text(s)
		}
		return s // gofmt may change it
	}
	a := accessor{typ: text(typ), constant: text(constant)}
	a.about = comment(typ + " is the metadata of streamtype " + commentText(strconv.Quote(st.Name)) + ". Its methods make streams.")
	a.open, a.fetch = calls(st)
	a.serve, a.handle = st.Server, st.Server && st.Protocol.IsHTTP()
	symbols := newSymbols("Fetch", "Open", "NewStream", "Metadata")
	if st.Server {
		symbols = newSymbols("Accept", "Handle", "NewStream", "Metadata", "Serve")
	}
	seen := map[string]bool{}
	for _, m := range st.Metadata {
		if !seen[m.Name] { // the first one counts
			seen[m.Name] = true
			a.fields = append(a.fields, accessorField{symbols.unique(goSymbol("Item", m.Name)), text(strconv.Quote(m.Name)), comment(itemComment(st, m))})
		}
	}
	out.WriteByte('\n')
	return g.stencils.write(out, fmt.Sprintf("%#v", a), texts, a.code, func(s string) string { return strings.TrimSpace(s) + "\n" })
}

// calls reports whether a program can open a stream of a streamtype for reading and
// writing. It returns the description of Fetch, or "" if the streamtype cannot fetch.
func calls(st *policy.StreamType) (open bool, fetch string) {
	switch {
	case st.Server:
		return false, ""
	case st.LocalSink || st.Protocol == policy.ProtocolRaw:
		return true, "" // messages have no end
	case st.Protocol == policy.ProtocolWS:
		return true, "sends one message, if there is one, and returns the first one received."
	case st.MQTT != nil && st.MQTT.Topic == "":
		return true, ""
	case st.MQTT != nil:
		return true, "publishes one message and returns when the server has acknowledged it."
	}
	return true, "makes one request and returns the response."
}

// code returns the declarations.
func (a *accessor) code() *jen.Statement {
	s := &jen.Statement{}
	s.Comment("// " + a.about).Line()
	var defs, pairs []jen.Code
	for _, f := range a.fields {
		defs = append(defs, jen.Id(f.name).String().Comment(f.comment))
		pairs = append(pairs, jen.Id(f.literal), jen.Id("m").Dot(f.name))
	}
	if defs != nil {
		s.Comment("// An empty field is not set.").Line()
	}
	s.Type().Id(a.typ).Struct(defs...).Line()

	method := func(name, comment string, params []jen.Code, results *jen.Statement, body jen.Code) {
		s.Line().Comment("// " + name + " " + comment).Line()
		s.Func().Params(jen.Id("m").Id(a.typ)).Id(name).Params(params...).Add(results).Block(jen.Return(body)).Line()
	}
	orError := func(result string) *jen.Statement {
		return jen.Params(jen.Op("*").Qual(runtimePath, result), jen.Error())
	}
	method("Metadata", "returns the fields as an option for package runtime.",
		nil, jen.Qual(runtimePath, "MetadataOption"), jen.Qual(runtimePath, "WithFields").Call(pairs...))
	c := jen.Id("c").Op("*").Qual(runtimePath, "Context")
	options := jen.Append(
		jen.Id("o").Index(jen.Op(":").Len(jen.Id("o")).Op(":").Len(jen.Id("o"))),
		jen.Id("m").Dot("Metadata").Call(),
	).Op("...")
	method("NewStream", "makes a stream, which calls the handlers.",
		[]jen.Code{c, jen.Id("h").Qual(runtimePath, "Handlers"), jen.Id("o").Op("...").Qual(runtimePath, "StreamOption")}, orError("Stream"),
		jen.Id("c").Dot("NewStream").Call(jen.Id(a.constant), jen.Id("h"), options))
	if a.serve {
		a.serverMethods(method, c, options)
	}
	call := []jen.Code{
		jen.Id("ctx").Qual("context", "Context"), c,
		jen.Id("o").Op("...").Qual(runtimePath, "CallOption"),
	}
	if a.open {
		method("Open", "makes a stream for reading and writing. The caller must close it.", call, orError("Conn"),
			jen.Id("c").Dot("Open").Call(jen.Id("ctx"), jen.Id(a.constant), options))
	}
	if a.fetch != "" {
		method("Fetch", a.fetch, call, orError("Response"),
			jen.Id("c").Dot("Fetch").Call(jen.Id("ctx"), jen.Id(a.constant), options))
	}
	return s
}

// serverMethods adds the methods of a server.
func (a *accessor) serverMethods(method func(name, comment string, params []jen.Code, results *jen.Statement, body jen.Code), c, options *jen.Statement) {
	streamOptions := jen.Id("o").Op("...").Qual(runtimePath, "StreamOption")
	method("Serve", "serves until ctx is done, and then lets the clients complete what they do.",
		[]jen.Code{jen.Id("ctx").Qual("context", "Context"), c, jen.Id("h").Qual(runtimePath, "Handlers"), streamOptions}, jen.Error(),
		jen.Id("c").Dot("Serve").Call(jen.Id("ctx"), jen.Id(a.constant), jen.Id("h"), options))
	if a.handle {
		method("Handle", "makes a stream whose requests handler answers.",
			[]jen.Code{c, jen.Id("handler").Qual("net/http", "Handler"), streamOptions},
			jen.Params(jen.Op("*").Qual(runtimePath, "Stream"), jen.Error()),
			jen.Id("c").Dot("Handle").Call(jen.Id(a.constant), jen.Id("handler"), options))
		return
	}
	method("Accept", "iterates over the connections of clients. The caller must close each.",
		[]jen.Code{c, streamOptions},
		jen.Qual("iter", "Seq2").Types(jen.Op("*").Qual(runtimePath, "Conn"), jen.Error()),
		jen.Id("c").Dot("Accept").Call(jen.Id(a.constant), options))
}

// plainComment reports whether gofmt leaves a comment as it is.
func plainComment(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune(` _-.,/"`, r))
	}) && !strings.HasSuffix(s, " ")
}

// itemComment describes where the policy uses a metadata item.
func itemComment(st *policy.StreamType, m policy.Metadata) string {
	uses := []string{strconv.Quote(m.Name)}
	if h := strings.TrimSuffix(m.Header, ":"); h != "" {
		uses = append(uses, "header "+h)
	}
	name := "${" + m.Name + "}"
	texts := []struct{ key, text string }{{"endpoint", st.Endpoint}}
	if st.HTTP != nil {
		texts = append(texts, struct{ key, text string }{"http_url", st.HTTP.URL})
	}
	if q := st.MQTT; q != nil {
		texts = append(texts, []struct{ key, text string }{
			{"mqtt_topic", q.Topic}, {"mqtt_subscribe", q.Subscribe},
			{"mqtt_will_topic", q.WillTopic}, {"mqtt_will_message", q.WillMessage},
			{"mqtt_birth_topic", q.BirthTopic}, {"mqtt_birth_message", q.BirthMessage},
		}...)
	}
	for _, t := range texts {
		if strings.Contains(t.text, name) {
			uses = append(uses, t.key)
		}
	}
	return commentText(strings.Join(uses, ", "))
}

// literal returns a value for a composite literal. A pointer is written as address
// followed by the value that it points to. address is empty in a list of pointers.
func (g *goFile) literal(v reflect.Value, address string) jen.Code {
	if text, ok := g.leaf(v); ok {
		if g.drawing {
			text = hole(g.holes)
			g.holes++
		}
		return jen.Id(text)
	}
	switch x := v.Interface().(type) {
	case time.Duration:
		return duration(x)
	case policy.Protocol:
		return jen.Qual(policyPath, x.Constant())
	case []*policy.StreamType:
		g.streams = append(g.streams, &bytes.Buffer{})
		for _, st := range x {
			g.stream(st)
		}
		return lines(goType(v.Type()), []jen.Code{jen.Id(streamsMark)})
	}
	switch v.Kind() {
	case reflect.Pointer:
		if address == "" {
			return g.fields(jen.Null(), v.Elem())
		}
		return g.fields(jen.Op(address).Add(goType(v.Type().Elem())), v.Elem())
	case reflect.Slice:
		var elems []jen.Code
		for i := range v.Len() {
			elems = append(elems, g.literal(v.Index(i), ""))
		}
		switch v.Interface().(type) {
		case []time.Duration, []*policy.Cert: // short
			return goType(v.Type()).Values(elems...)
		}
		return lines(goType(v.Type()), elems)
	case reflect.Struct:
		return jen.Values(g.elements(v)...) // short: on one line
	}
	return jen.Lit(v.Bool())
}

// leaf returns the source of a value that fills a hole in a stencil, and whether v
// is such a value.
func (g *goFile) leaf(v reflect.Value) (string, bool) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return "nil", true
		}
		switch x := v.Interface().(type) {
		case *policy.Retry:
			return g.share(x, "retry"), true
		case *policy.TrustStore:
			return g.share(x, "trust"), true
		case *policy.Cert:
			return g.share(x, "cert"), true
		case *policy.Auth:
			return g.share(x, "auth"), true
		}
	case reflect.String:
		return strconv.Quote(v.String()), true
	case reflect.Int64:
		return strconv.FormatInt(v.Int(), 10), v.Type() != reflect.TypeFor[time.Duration]()
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return strconv.FormatUint(v.Uint(), 10), v.Type() != reflect.TypeFor[policy.Protocol]()
	}
	return "", false
}

// stream writes the literal of a streamtype to the last of g.streams, formatted as
// in the final file.
func (g *goFile) stream(st *policy.StreamType) {
	v := reflect.ValueOf(st)
	var texts []string
	key := g.outline(nil, v, &texts)
	draw := func() *jen.Statement {
		g.drawing, g.holes = true, 0
		defer func() { g.drawing = false }()
		list := lines(goType(reflect.TypeFor[[]*policy.StreamType]()), []jen.Code{g.literal(v, "")})
		return jen.Var().Id("_").Op("=").Add(lines(goType(reflect.TypeFor[policy.Policy]()), []jen.Code{jen.Id("StreamTypes").Op(":").Add(list)}))
	}
	within := func(s string) string { // without the two lines above and below it
		all := strings.SplitAfter(strings.TrimSpace(s), "\n")
		return strings.Join(all[2:len(all)-2], "")
	}
	if err := g.stencils.write(g.streams[len(g.streams)-1], string(key), texts, draw, within); g.err == nil {
		g.err = err
	}
}

// outline appends the properties that determine the layout of a literal to key, and
// its leaves to texts.
func (g *goFile) outline(key []byte, v reflect.Value, texts *[]string) []byte {
	if text, ok := g.leaf(v); ok {
		*texts = append(*texts, text)
		return append(key, '.')
	}
	switch v.Kind() {
	case reflect.Pointer:
		return g.outline(key, v.Elem(), texts)
	case reflect.Slice:
		key = append(key, '[')
		for i := range v.Len() {
			key = g.outline(key, v.Index(i), texts)
		}
		return append(key, ']')
	case reflect.Struct:
		key = append(key, '{')
		for i := range v.NumField() {
			if f := v.Field(i); !f.IsZero() {
				key = g.outline(strconv.AppendInt(key, int64(i), 10), f, texts)
			}
		}
		return append(key, '}')
	}
	return fmt.Append(key, v.Interface(), ",")
}

// duration returns a duration in its largest unit.
func duration(d time.Duration) jen.Code {
	unit, name := time.Nanosecond, "Nanosecond"
	if d%time.Second == 0 {
		unit, name = time.Second, "Second"
	} else if d%time.Millisecond == 0 {
		unit, name = time.Millisecond, "Millisecond"
	}
	return jen.Id(strconv.FormatInt(int64(d/unit), 10)).Op("*").Qual("time", name) // an int may have 32 bits only
}

// fields returns a composite literal of a struct.
func (g *goFile) fields(typ *jen.Statement, v reflect.Value) jen.Code {
	return lines(typ, g.elements(v))
}

// elements returns the non-zero fields of a struct.
func (g *goFile) elements(v reflect.Value) (elems []jen.Code) {
	for i := range v.NumField() {
		if f := v.Field(i); !f.IsZero() {
			elems = append(elems, jen.Id(v.Type().Field(i).Name).Op(":").Add(g.literal(f, "&")))
		}
	}
	return elems
}

// lines returns a composite literal with each element on its own line.
func lines(typ *jen.Statement, elems []jen.Code) jen.Code {
	return typ.Custom(jen.Options{Open: "{", Close: "}", Separator: ",", Multi: len(elems) > 0}, elems...)
}

// share returns the address of a variable with the value x, which pointers share.
func (g *goFile) share(x any, kind string) string {
	v := reflect.ValueOf(x).Elem()
	symbol, ok := g.variables[x]
	if !ok {
		symbol = g.symbols.unique(kind + goSymbol("", v.FieldByName("Name").String()))
		g.variables[x] = symbol
		g.pending = append(g.pending, func(f *jen.File) {
			if c, ok := x.(*policy.Cert); ok {
				f.Line().Add(g.cert(symbol, c))
			} else {
				f.Line().Var().Id(symbol).Op("=").Add(g.fields(goType(v.Type()), v))
			}
		})
	}
	return "&" + symbol
}

// cert returns the definition of a certificate, with a comment that describes it.
func (g *goFile) cert(symbol string, c *policy.Cert) jen.Code {
	const most = 18 // bytes per line
	var der strings.Builder
	for i := 0; i < len(c.DER); i += most {
		if i > 0 {
			der.WriteString(" +\n")
		}
		der.WriteByte('"')
		for _, b := range []byte(c.DER[i:min(i+most, len(c.DER))]) {
			fmt.Fprintf(&der, `\x%02x`, b)
		}
		der.WriteByte('"')
	}
	s := &jen.Statement{}
	if about := describeDER(c.DER); about != "" {
		s.Comment(symbol + " is " + about + ".").Line()
	}
	elems := []jen.Code{jen.Id("Name").Op(":").Lit(c.Name)}
	if c.DER != "" {
		elems = append(elems, jen.Id("DER").Op(":").Id(der.String()))
	}
	return s.Var().Id(symbol).Op("=").Add(lines(goType(reflect.TypeFor[policy.Cert]()), elems))
}

// goType returns the source of a type in a generated file.
func goType(t reflect.Type) *jen.Statement {
	switch {
	case t.Name() == "" && t.Kind() == reflect.Pointer:
		return jen.Op("*").Add(goType(t.Elem()))
	case t.Name() == "" && t.Kind() == reflect.Slice:
		return jen.Index().Add(goType(t.Elem()))
	}
	return jen.Qual(t.PkgPath(), t.Name())
}
