package codegen

import (
	"cmp"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/dave/jennifer/jen"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A Variant is a named policy, such as one that replaces another in a test.
type Variant struct {
	Name   string
	Policy *policy.Policy
	SHA256 string // hash of the packed policy, for C
}

// VariantsTag is the build constraint of the file that GoVariants writes.
const VariantsTag = "sspolicy_variants"

// VariantVariable is the environment variable that selects a variant in a Go
// program built with VariantsTag.
const VariantVariable = "SSPOLICY_VARIANT"

// GoVariants writes a second file for the package that [Go] writes for p. It has
// the tables of each variant, and is built only with the tag VariantsTag. In such a
// build, the environment variable VariantVariable or a call of UseVariant replaces
// Policy.
//
// The types of the package are those of p. GoVariants fails if a variant lacks a
// streamtype or metadata item of p, or needs a transport that p does not.
func GoVariants(w io.Writer, p *policy.Policy, variants []Variant, o GoOptions) error {
	main, err := newGoPackage(p, o)
	if err != nil {
		return err
	}
	g, err := newGoFile(o, VariantsTag)
	if err != nil {
		return err
	}
	g.symbols = main.symbols
	list, use := g.symbols.unique("Variants"), g.symbols.unique("UseVariant")
	names := make([]string, len(variants))
	for i, v := range variants {
		if err := fits(p, v); err != nil {
			return err
		}
		names[i] = g.symbols.unique("variant" + goSymbol("", v.Name))
	}

	f := g.file
	f.Line().Comment(list + " are the policies that can replace Policy, by name.")
	f.Var().Id(list).Op("=").Map(jen.String()).Op("*").Qual(policyPath, "Policy").Values(jen.DictFunc(func(d jen.Dict) {
		for i, v := range variants {
			d[jen.Lit(v.Name)] = jen.Id(names[i])
		}
	}))
	f.Line().Comment(use + " makes Policy the variant of this name. Call it before NewContext, and from one")
	f.Comment("goroutine.")
	f.Func().Id(use).Params(jen.Id("name").String()).Error().Block(
		jen.List(jen.Id("p"), jen.Id("ok")).Op(":=").Id(list).Index(jen.Id("name")),
		jen.If(jen.Op("!").Id("ok")).Block(jen.Return(jen.Qual("fmt", "Errorf").Call(
			jen.Lit("unknown variant %q of the policy: want one of "+variantNames(variants)), jen.Id("name")))),
		jen.Id("Policy").Op("=").Id("p"),
		jen.Return(jen.Nil()),
	)
	f.Line().Func().Id("init").Params().Block(
		jen.If(jen.Id("name").Op(":=").Qual("os", "Getenv").Call(jen.Lit(VariantVariable)), jen.Id("name").Op("!=").Lit("")).Block(
			jen.If(jen.Err().Op(":=").Id(use).Call(jen.Id("name")), jen.Err().Op("!=").Nil()).Block(
				jen.Panic(jen.Lit(VariantVariable + ": ").Op("+").Err().Dot("Error").Call()),
			),
		),
	)
	for i, v := range variants {
		f.Line()
		g.table(names[i], v.Policy)
	}
	return g.write(w)
}

func variantNames(variants []Variant) string {
	var names []string
	for _, v := range variants {
		names = append(names, v.Name)
	}
	slices.Sort(names)
	return strings.ReplaceAll(strings.Join(names, ", "), "%", "%%")
}

// fits returns an error if a variant cannot replace a policy in its package.
func fits(p *policy.Policy, v Variant) error {
	others := policy.NewIndex(v.Policy)
	for _, st := range p.StreamTypes {
		other := others.StreamType(st.Name)
		if other == nil {
			return fmt.Errorf("variant %s has no streamtype %q, for which the package has a type", v.Name, st.Name)
		}
		for _, m := range st.Metadata {
			if !slices.ContainsFunc(other.Metadata, func(o policy.Metadata) bool { return o.Name == m.Name }) {
				return fmt.Errorf("variant %s has no metadata %q in streamtype %q, for which the package has a field", v.Name, m.Name, st.Name)
			}
		}
	}
	have, options := transports(p)
	need, needed := transports(v.Policy)
	for _, t := range need {
		lacks := func(option [2]string) bool { return !slices.Contains(options[t], option) }
		if !slices.Contains(have, t) || slices.ContainsFunc(needed[t], lacks) {
			return fmt.Errorf("variant %s needs the transport %s, which the package does not import", v.Name, path.Base(t))
		}
	}
	return nil
}

// CVariants writes tables for each variant, in a source file each, and a header
// with their list: an array of names and tables that ends with NULL. Each source
// file includes the header as include. The symbols and macros of a variant begin
// with the prefix of o and the name of the variant.
func CVariants(header io.Writer, sources []io.Writer, include string, variants []Variant, o COptions) error {
	if strings.ContainsAny(include, "\"\\\n") {
		return fmt.Errorf("invalid name of an included header: %q", include)
	}
	o.Prefix = cmp.Or(o.Prefix, defaultPrefix)
	names := newSymbols("VARIANTS", "STATIC", "SOCKS5")
	var declarations, macros, rows strings.Builder
	var first *cFile
	for i, v := range variants {
		own, about := o.partOptions(names, v)
		c, err := newCFile(v.Policy, own, true)
		if err != nil {
			return fmt.Errorf("variant %s: %w", v.Name, err)
		}
		if first == nil {
			first = c
		}
		fmt.Fprintf(&declarations, "extern const lws_ss_policy_t %s;\n", c.o.Entry)
		macros.WriteString(about + macrosOf(v.Policy, c.o))
		fmt.Fprintf(&rows, "\t{ %s, &%s },\n", cString(v.Name), c.o.Entry)
		if _, err := fmt.Fprintf(sources[i], "%s%s\n#include \"%s\"\n%s", c.comment(), c.needs(), include, c.body.String()); err != nil {
			return err
		}
	}
	macro := guard(o.Prefix, "VARIANTS_H")
	first.o.SHA256 = o.SHA256 // the header is for all
	_, err := fmt.Fprintf(header, "%s\n#ifndef %s\n#define %[2]s\n\n#include <libwebsockets.h>\n\n"+
		"#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n%s%s\n"+
		"/* The variants by name. The last one has no name. */\nstatic const struct {\n\tconst char *name;\n\tconst lws_ss_policy_t *policy;\n"+
		"} %svariants[] = {\n%s\t{ NULL, NULL },\n};\n\n#ifdef __cplusplus\n}\n#endif\n\n#endif\n",
		first.comment(), macro, declarations.String(), macros.String(), o.Prefix, rows.String())
	return err
}

// purify turns a name into part of a symbol.
func purify(name string) string {
	return strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' {
			return r
		}
		return '_'
	}, name)
}
