package codegen

import (
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
	"unicode"
	"unicode/utf8"

	"github.com/dave/jennifer/jen"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// version is the version of the contract between generated files and package runtime,
// see policy.MaxVersion.
const version = 4

const (
	runtimePath   = "github.com/secure-streams/sspolicy/runtime"
	policyPath    = runtimePath + "/policy"
	transportPath = runtimePath + "/transport"
)

// transportOf returns the import path of the package that executes a protocol.
func transportOf(p policy.Protocol) string { return runtimePath + "/" + p.Dir() }

// GoOptions are the options of Go.
type GoOptions struct {
	Package string // name; empty means "policy"
	Source  string // the name of the policy, for the comment
	SHA256  string // of its text, in hexadecimal
	Version string // of sspolicy; see Equal
}

// Go writes a package with the policy as static tables. For each streamtype it has a
// constant with the name, and a type whose fields are the declared metadata and whose
// methods make streams.
//
// The tables consist of constants and addresses, which the Go compiler and linker lay
// out: the package does nothing at init.
func Go(w io.Writer, p *policy.Policy, o GoOptions) error {
	o.Package = cmp.Or(o.Package, "policy")
	if !token.IsIdentifier(o.Package) || o.Package == "_" {
		return fmt.Errorf("%q is not a valid name of a Go package", o.Package)
	}
	f := jen.NewFile(o.Package)
	f.HeaderComment(generated)
	for _, line := range []struct{ name, text string }{{versionPrefix, o.Version}, {"Source", o.Source}, {"SHA-256", o.SHA256}} {
		if line.text != "" {
			f.HeaderComment(line.name + ": " + commentText(line.text))
		}
	}
	for _, p := range []string{runtimePath, policyPath, transportPath} {
		f.ImportName(p, path.Base(p))
	}
	for p := range policy.Protocol(policy.NumProtocols) {
		f.ImportName(transportOf(p), p.Dir())
	}

	f.Line().Comment("The build fails here if this file and package runtime do not match.")
	f.Const().Defs(
		jen.Id("_").Op("=").Qual(policyPath, "EnforceVersion").Call(jen.Lit(version).Op("-").Qual(policyPath, "MinVersion")),
		jen.Id("_").Op("=").Qual(policyPath, "EnforceVersion").Call(jen.Qual(policyPath, "MaxVersion").Op("-").Lit(version)),
	)

	g := &goFile{
		symbols:   newSymbols("Policy", "Transports", "NewContext"),
		variables: map[any]string{},
	}
	// Types choose their names first: programs use them most.
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
	f.Line().Comment("Policy is the compiled policy. It must not be changed.")
	f.Var().Id("Policy").Op("=").Add(g.literal(reflect.ValueOf(p), "&"))
	for len(g.pending) > 0 {
		define := g.pending[0]
		g.pending = g.pending[1:]
		define(f)
	}
	g.functions(f, p)
	for i, st := range p.StreamTypes {
		accessors(f, st, types[i], constants[i])
	}
	return f.Render(w)
}

// A goFile is the Go source being written.
type goFile struct {
	symbols   *symbols
	variables map[any]string    // symbols of shared values
	pending   []func(*jen.File) // write the definitions that are missing
}

// functions writes Transports and NewContext.
func (g *goFile) functions(f *jen.File, p *policy.Policy) {
	var paths []string
	signs := map[string]bool{} // paths of transports that sign requests
	for _, st := range p.StreamTypes {
		carrier := st.Carrier()
		if carrier == policy.ProtocolSink {
			continue // the program makes the transport, to register its sinks
		}
		path := transportOf(carrier)
		if !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
		if carrier.IsHTTP() && st.Auth != nil && st.Auth.Type == policy.AuthSigV4 {
			signs[path] = true
		}
	}
	var calls []jen.Code
	for _, path := range paths {
		var options []jen.Code
		if signs[path] {
			options = append(options, jen.Qual(runtimePath+"/http", "SigV4"))
		}
		calls = append(calls, jen.Qual(path, "New").Call(options...))
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

// accessors writes the type of a streamtype, with its metadata as fields and the
// methods that make streams.
func accessors(f *jen.File, st *policy.StreamType, typ, constant string) {
	fields := newSymbols("Fetch", "Open", "NewStream", "Metadata")
	seen := map[string]bool{}
	var defs, pairs []jen.Code
	for _, m := range st.Metadata {
		if seen[m.Name] {
			continue // the first one counts
		}
		seen[m.Name] = true
		name := fields.unique(goSymbol("Item", m.Name))
		defs = append(defs, jen.Id(name).String().Comment(itemComment(st, m)))
		pairs = append(pairs, jen.Lit(m.Name), jen.Id("m").Dot(name))
	}
	about := typ + " is the metadata of streamtype " + commentText(strconv.Quote(st.Name)) + ". Its methods make streams."
	if defs != nil {
		about += "\nAn empty field is not set."
	}
	f.Line().Comment("// " + strings.ReplaceAll(about, "\n", "\n// "))
	f.Type().Id(typ).Struct(defs...)

	method := func(name, comment string, params []jen.Code, results *jen.Statement, body jen.Code) {
		f.Line().Comment("// " + name + " " + comment)
		f.Func().Params(jen.Id("m").Id(typ)).Id(name).Params(params...).Add(results).Block(jen.Return(body))
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
		jen.Id("c").Dot("NewStream").Call(jen.Id(constant), jen.Id("h"), options))
	if st.Server {
		return
	}
	call := []jen.Code{
		jen.Id("ctx").Qual("context", "Context"), c,
		jen.Id("o").Op("...").Qual(runtimePath, "CallOption"),
	}
	method("Open", "makes a stream for reading and writing. The caller must close it.", call, orError("Conn"),
		jen.Id("c").Dot("Open").Call(jen.Id("ctx"), jen.Id(constant), options))
	fetch := "makes one request and returns the response."
	switch {
	case st.LocalSink || st.Protocol == policy.ProtocolRaw:
		return // messages have no end
	case st.Protocol == policy.ProtocolWS:
		fetch = "sends one message, if there is one, and returns the first one received."
	case st.MQTT != nil && st.MQTT.Topic == "":
		return
	case st.MQTT != nil:
		fetch = "publishes one message and returns when the server has acknowledged it."
	}
	method("Fetch", fetch, call, orError("Response"),
		jen.Id("c").Dot("Fetch").Call(jen.Id("ctx"), jen.Id(constant), options))
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

// literal returns a value for a composite literal. A pointer is written as address,
// which is empty in a list of pointers, and the value that it points to.
func (g *goFile) literal(v reflect.Value, address string) jen.Code {
	switch x := v.Interface().(type) {
	case time.Duration:
		return duration(x)
	case policy.Protocol:
		return jen.Qual(policyPath, x.Constant())
	case *policy.Retry:
		return g.share(x, "retry")
	case *policy.TrustStore:
		return g.share(x, "trust")
	case *policy.Cert:
		return g.share(x, "cert")
	case *policy.Auth:
		return g.share(x, "auth")
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return jen.Nil()
		}
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
	case reflect.String:
		return jen.Lit(v.String())
	case reflect.Bool:
		return jen.Lit(v.Bool())
	case reflect.Int64:
		return jen.Id(strconv.FormatInt(v.Int(), 10))
	default:
		return jen.Id(strconv.FormatUint(v.Uint(), 10))
	}
}

// duration returns a duration in its largest unit.
func duration(d time.Duration) jen.Code {
	unit, name := time.Nanosecond, "Nanosecond"
	if d%time.Second == 0 {
		unit, name = time.Second, "Second"
	} else if d%time.Millisecond == 0 {
		unit, name = time.Millisecond, "Millisecond"
	}
	return jen.Lit(int(d/unit)).Op("*").Qual("time", name)
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

// share returns the address of a variable with the value, which pointers share.
func (g *goFile) share(x any, kind string) jen.Code {
	v := reflect.ValueOf(x)
	if v.IsNil() {
		return jen.Nil()
	}
	name := v.Elem().FieldByName("Name").String()
	symbol, ok := g.variables[x]
	if !ok {
		symbol = g.symbols.unique(kind + goSymbol("", name))
		g.variables[x] = symbol
		g.pending = append(g.pending, func(f *jen.File) {
			if c, ok := x.(*policy.Cert); ok {
				f.Line().Add(g.cert(symbol, c))
			} else {
				f.Line().Var().Id(symbol).Op("=").Add(g.fields(goType(v.Type().Elem()), v.Elem()))
			}
		})
	}
	return jen.Op("&").Id(symbol)
}

// cert returns the definition of a certificate, with a comment that describes it.
func (g *goFile) cert(symbol string, c *policy.Cert) jen.Code {
	const most = 18 // bytes on a line
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

// goType returns a type as it is written in a generated file.
func goType(t reflect.Type) *jen.Statement {
	switch {
	case t.Name() == "" && t.Kind() == reflect.Pointer:
		return jen.Op("*").Add(goType(t.Elem()))
	case t.Name() == "" && t.Kind() == reflect.Slice:
		return jen.Index().Add(goType(t.Elem()))
	}
	return jen.Qual(t.PkgPath(), t.Name())
}

// goSymbol returns an exported identifier for a name: its words joined, each with a
// capital. If that is not exported, it follows prefix. An empty prefix means that the
// caller adds one.
func goSymbol(prefix, name string) string {
	var b strings.Builder
	capital := true
	for _, r := range name {
		if r == utf8.RuneError || !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			capital = true
			continue
		}
		if capital {
			r = unicode.ToUpper(r)
			capital = false
		}
		b.WriteRune(r)
	}
	if s := b.String(); prefix == "" || token.IsExported(s) {
		return s
	}
	return prefix + b.String()
}
