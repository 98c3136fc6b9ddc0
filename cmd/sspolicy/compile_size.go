package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/secure-streams/sspolicy/codegen"
)

// sizeFlags are the flags of compile about the size of C tables.
type sizeFlags struct {
	Size      bool     `help:"C: print the size of the tables. They are written only with --output."`
	Format    string   `enum:",text,json" default:"" placeholder:"text|json" help:"C: how to print the size. json has the size of each streamtype and certificate too."`
	ABI       []string `name:"abi" placeholder:"ABI" help:"C: the architectures for --size and --max-size (${abis})."`
	MaxSize   byteSize `placeholder:"BYTES" help:"C: fail if the tables are larger on one of these architectures, with gcc -O2. 8k is 8192."`
	LWSOption []string `name:"lws-option" placeholder:"OPTION" help:"C: a cmake option that lws is built with, such as LWS_WITHOUT_SERVER=1. Fails if the policy needs another value. Some options change the size of the tables."`

	build map[string]bool // by macro
}

// validate checks the flags, and sets build.
func (f *sizeFlags) validate() error {
	for _, a := range f.ABI {
		if !slices.Contains(codegen.ABIs(), a) {
			return fmt.Errorf("--abi: unknown architecture %q: want %s", a, strings.Join(codegen.ABIs(), ", "))
		}
	}
	f.build = map[string]bool{}
	for _, o := range f.LWSOption {
		macro, defined, err := codegen.BuildOption(o)
		if err != nil {
			return fmt.Errorf("--lws-option: %w", err)
		}
		f.build[macro] = defined
	}
	switch {
	case f.Format != "" && !f.Size:
		return errors.New("--format needs --size")
	case len(f.ABI) > 0 && !f.enabled():
		return errors.New("--abi needs --size or --max-size")
	}
	return nil
}

// enabled reports whether a flag requests the size.
func (f *sizeFlags) enabled() bool { return f.Size || f.MaxSize > 0 }

// A byteSize is a number of bytes: 8192, 8k or 1M.
type byteSize int

func (b *byteSize) UnmarshalText(text []byte) error {
	s, unit := strings.ToLower(string(text)), 1
	for suffix, n := range map[string]int{"k": 1 << 10, "m": 1 << 20} {
		if digits, found := strings.CutSuffix(s, suffix); found {
			s, unit = digits, n
		}
	}
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is not a positive number of bytes, such as 8192, 8k or 1M", text)
	}
	*b = byteSize(int(n) * unit)
	return nil
}

// sizes prints the sizes of C tables and of their source, and checks the limit.
func (c *compileCmd) sizes(w io.Writer, list []codegen.Footprint, source int) error {
	if len(c.ABI) > 0 {
		list = slices.DeleteFunc(list, func(f codegen.Footprint) bool { return !slices.Contains(c.ABI, f.ABI) })
	}
	if c.Size {
		write := c.sizeText
		if c.Format == "json" {
			write = c.sizeJSON
		}
		if err := write(w, list, source); err != nil {
			return err
		}
	}
	var over []error
	for _, f := range list {
		if c.MaxSize > 0 && f.O2.Total > int(c.MaxSize) {
			over = append(over, fmt.Errorf("%s: the tables have %d bytes on %s (%d with gcc -Os), more than --max-size %d",
				displayName(strings.Join(c.files(), ", ")), f.O2.Total, f.ABI, f.Os.Total, c.MaxSize))
		}
	}
	if over != nil {
		return &exitError{exitFindings, errors.Join(over...)}
	}
	return nil
}

func (c *compileCmd) sizeJSON(w io.Writer, list []codegen.Footprint, source int) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		LWS  string              `json:"lws"`
		JSON int                 `json:"json"` // size of the policy
		ABIs []codegen.Footprint `json:"abis"`
	}{c.lws().Line().String(), source, list})
}

func (c *compileCmd) sizeText(w io.Writer, list []codegen.Footprint, source int) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "bytes for lws %v\t", c.lws().Line())
	for _, f := range list {
		fmt.Fprintf(t, "%s\t", f.ABI)
	}
	fmt.Fprintln(t)
	for i, part := range (codegen.Footprint{}).Parts() {
		fmt.Fprintf(t, "%s\t", part.Kind)
		for _, f := range list {
			fmt.Fprintf(t, "%d\t", f.Parts()[i].Bytes)
		}
		fmt.Fprintln(t)
	}
	fmt.Fprintf(t, "the JSON\t%s\n", strings.Repeat(strconv.Itoa(source)+"\t", len(list)))
	return t.Flush()
}
