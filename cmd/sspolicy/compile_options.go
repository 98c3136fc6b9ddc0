package main

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/secure-streams/sspolicy/schema"
)

// tableOptions are the flags of compile that determine the content of the files,
// apart from input files. The files record them, so that verify can write them
// again.
type tableOptions struct {
	Lang    string          `enum:"go,c" required:"" placeholder:"go|c" help:"The language of the tables: go or c."`
	Package *string         `placeholder:"NAME" help:"Go: the package of the file (policy)."`
	Proxied bool            `help:"Go: for programs whose streams a Secure Streams proxy executes. The package has no tables, only names, protocols and metadata."`
	LWS     *schema.Version `name:"lws" complete:"versions" placeholder:"VERSION" help:"C: the lws version to compile for (${lws})."`
	Entry   string          `placeholder:"NAME" help:"C: the name of the table to give to lws (PREFIXstatic_policy_entry)."`
	Prefix  *string         `placeholder:"PREFIX" help:"C: the prefix of all names (_ss_). Policies in one program need different ones."`
	Header  string          `placeholder:"HEADER" help:"C: write the declaration of the table to this file, and the tables to OUT."`
	Only    []string        `complete:"streamtypes" placeholder:"STREAM" help:"Compile only these streamtypes and the definitions that they need. Findings in others are ignored. May be repeated."`
}

// goPackage returns the name of the Go package.
func (o *tableOptions) goPackage() string { return valueOr(o.Package, "policy") }

// prefix returns the prefix of the names in the C file.
func (o *tableOptions) prefix() string { return valueOr(o.Prefix, "_ss_") }

// lws returns the version of lws to compile for.
func (o *tableOptions) lws() schema.Version { return valueOr(o.LWS, schema.Latest()) }

// record returns the options as one line of flags, with the name by which the
// tables include the header. Values are escaped as in a URL.
func (o *tableOptions) record(include string) string {
	flags := []string{"--lang=" + o.Lang}
	add := func(name, value string) {
		flags = append(flags, "--"+name+"="+strings.ReplaceAll(url.PathEscape(value), "%2F", "/"))
	}
	if o.Lang == "go" {
		add("package", o.goPackage())
	} else {
		add("lws", o.lws().String())
	}
	if o.Proxied {
		flags = append(flags, "--proxied")
	}
	if o.Prefix != nil {
		add("prefix", *o.Prefix)
	}
	if o.Entry != "" {
		add("entry", o.Entry)
	}
	if include != "" {
		add("header", include)
	}
	for _, name := range o.Only {
		add("only", name)
	}
	return strings.Join(flags, " ")
}

// recordedOptions parses the result of record.
func recordedOptions(line string) (o tableOptions, err error) {
	var flags []string
	for f := range strings.FieldsSeq(line) {
		if f, err = url.PathUnescape(f); err != nil {
			return o, err
		}
		if !strings.HasPrefix(f, "--") {
			return o, fmt.Errorf("%q is not a flag", f)
		}
		flags = append(flags, f)
	}
	parser, err := kong.New(&o, kong.NoDefaultHelp(), kong.Vars{"lws": schema.Latest().String()})
	if err != nil {
		return o, err
	}
	_, err = parser.Parse(flags)
	return o, err
}
