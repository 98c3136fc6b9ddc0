package codegen

import (
	"fmt"
	"reflect"
	"strconv"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

// scalar returns the value of a field other than a list or reference.
func (c *cFile) scalar(v reflect.Value, k *schema.Key) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return c.duration(x, k)
	case policy.Protocol:
		return c.protocol(x)
	case string:
		return c.text(x)
	case bool:
		return "1"
	}
	suffix := ""
	if n := v.Uint(); n > 1<<32-1 {
		suffix = "ull"
	} else if n > 1<<31-1 {
		suffix = "u"
	}
	return strconv.FormatUint(v.Uint(), 10) + suffix
}

func (c *cFile) duration(d time.Duration, k *schema.Key) string {
	u := unit(k)
	if n := d / u; n*u != d || n < 0 || n>>k.Width > 0 {
		c.errs = append(c.errs, fmt.Errorf("%s: %s of %v is not a multiple of %v that fits into %d bits", c.subject, k.Name, d, u, k.Width))
	}
	return c.scalar(reflect.ValueOf(uint64(d/u)), k)
}

func (c *cFile) protocol(p policy.Protocol) string {
	for _, l := range cProtocols {
		if l.protocol == p && c.available("protocol "+p.String(), l.since) {
			c.need(l.macro, "protocol "+p.String())
			return l.symbol
		}
	}
	if int(p) >= len(cProtocols) {
		c.errs = append(c.errs, fmt.Errorf("%s: lws has no %v", c.subject, p))
	}
	return ""
}

func (c *cFile) count(n, most int, what string) string {
	if n > most {
		c.errs = append(c.errs, fmt.Errorf("%s: %d %s, but lws has room for %d", c.subject, n, what, most))
	}
	return strconv.Itoa(n)
}

// text returns an expression for a string: a literal, or the name of an array if it is
// too long for one. Compilers merge equal literals.
func (c *cFile) text(s string) string {
	if len(s) < maxCString {
		literal := cString(s)
		c.literals[literal] = len(s) + 1
		return literal
	}
	return c.define("char", len(s)+1, "text", "", "", "{"+cChars(s)+"\n}", nil)
}
