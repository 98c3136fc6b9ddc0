package codegen

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// CPool writes tables for several policies in one source file, and a header that
// declares the head of each. Equal certificates, waits, strings and streamtypes are
// written once. The symbols and macros of a policy begin with the prefix of o and
// the name of the policy. The source file includes the header as include.
func CPool(header, source io.Writer, include string, policies []Variant, o COptions) error {
	if strings.ContainsAny(include, "\"\\\n") {
		return fmt.Errorf("invalid name of an included header: %q", include)
	}
	c, macros, err := newPool(policies, o)
	if err != nil {
		return err
	}
	var heads strings.Builder
	for _, h := range c.heads {
		fmt.Fprintf(&heads, "extern const lws_ss_policy_t %s;\n", h.expression)
	}
	_, err = io.WriteString(header, c.comment()+c.guard("POLICY_H", fmt.Sprintf(
		"%s\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n%s\n#ifdef __cplusplus\n}\n#endif\n%s", c.needs(), heads.String(), macros)))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(source, "%s\n#include \"%s\"\n%s", c.comment(), include, c.body.String())
	return err
}

// CPoolFootprint is like [CFootprint] for the tables that [CPool] writes.
func CPoolFootprint(policies []Variant, o COptions) ([]Footprint, error) {
	c, _, err := newPool(policies, o)
	if err != nil {
		return nil, err
	}
	return c.footprints(), nil
}

// newPool returns the tables of several policies, and the macros for the header.
func newPool(policies []Variant, o COptions) (c *cFile, macros string, err error) {
	if c, err = newEmptyCFile(o); err != nil {
		return nil, "", err
	}
	names := newSymbols("DATA", "TABLES", "TOKEN")
	var b strings.Builder
	var errs []error
	for _, v := range policies {
		if len(v.Policy.StreamTypes) == 0 {
			errs = append(errs, fmt.Errorf("%s: %w", v.Name, errNoStreamtypes))
			continue
		}
		own, about := c.o.partOptions(names, v)
		c.errs = nil
		c.collect(v.Policy, own.Entry)
		if err := errors.Join(c.errs...); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", v.Name, err))
		}
		b.WriteString(about + macrosOf(v.Policy, own))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, "", err
	}
	c.write(true)
	c.body.WriteString("\n" + loud)
	return c, b.String(), nil
}
