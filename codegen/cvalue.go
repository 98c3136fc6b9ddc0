package codegen

import (
	"fmt"
	"reflect"
	"strconv"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

// scalar returns the value of a field that is no list and no reference.
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
		c.errs = append(c.errs, fmt.Errorf("%s: %s of %v is no number of %v that fits into %d bits", c.what, k.Name, d, u, k.Width))
	}
	return c.scalar(reflect.ValueOf(uint64(d/u)), k)
}

func (c *cFile) protocol(p policy.Protocol) string {
	for _, l := range cProtocols {
		if l.protocol == p && c.available("protocol "+p.String(), l.since) {
			c.macros[l.macro] = true
			return l.symbol
		}
	}
	if int(p) >= len(cProtocols) {
		c.errs = append(c.errs, fmt.Errorf("%s: lws has no %v", c.what, p))
	}
	return ""
}

func (c *cFile) count(n, most int, what string) string {
	if n > most {
		c.errs = append(c.errs, fmt.Errorf("%s: %d %s, and lws has room for %d", c.what, n, what, most))
	}
	return strconv.Itoa(n)
}

// text returns a string for use inside of an object: a literal, or if it is
// too long for that the name of an array. Of equal literals compilers make one.
func (c *cFile) text(s string) string {
	c.size.strings[s] = true
	if len(s) < maxCString {
		return cString(s)
	}
	return c.define("char", fmt.Sprintf("[%d]", len(s)+1), "text", "", "", "{"+cChars(s)+"\n}", func() {})
}
