package codegen

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/schema"
)

// Here is what streamtypes point to. Each function writes an object, or several,
// and returns the expression that points to it.

func (c *cFile) metrics(list []*runtime.Metric) string {
	if len(list) == 0 {
		return ""
	}
	name := c.o.Prefix + "metrics"
	c.macros["LWS_WITH_SYS_METRICS"] = true
	// The first in the list whose report fits a metric gets it. In lws's list
	// that is the one defined last.
	c.array("lws_metric_policy_t", name, len(list), func(i int) values {
		c.what = "metric policy " + schema.QuoteName(list[i].Name)
		v := c.keyed(list[i])
		if i > 0 {
			v["next"] = fmt.Sprintf("&%s[%d]", name, i-1)
		}
		return v
	})
	return fmt.Sprintf("&%s[%d]", name, len(list)-1)
}

// metadata writes a list as lws links it: the one defined last is the first.
// length is the index of the value in a stream, counted as defined.
func (c *cFile) metadata(symbol string, list []runtime.Metadata) string {
	name := c.symbol("md", symbol)
	c.array("lws_ss_metadata_t", name, len(list), func(i int) values {
		header := list[i].Header
		v := values{
			"name":   c.text(list[i].Name),
			"length": strconv.Itoa(i),
		}
		if i > 0 {
			v["next"] = fmt.Sprintf("(lws_ss_metadata_t *)&%s[%d]", name, i-1)
		}
		value := "(void *)" + c.text(header)
		if !c.o.Target.has("4.2", "") { // which brought the token, and another name for the value
			v["value"] = value
			return v
		}
		v["value__may_own_heap"] = value
		v["value_length"] = c.count(len(header), 255, "bytes in a metadata item's header")
		v["value_is_http_token"] = c.header(header)
		return v
	})
	return fmt.Sprintf("(lws_ss_metadata_t *)&%s[%d]", name, len(list)-1)
}

// noHeader is LWS_HTTP_NO_KNOWN_HEADER, which programs do not get to see. 0
// would be a header.
const noHeader = "255"

// header returns the number of the header that a metadata item is mapped to.
func (c *cFile) header(mapping string) string {
	h := lookupHeader(mapping)
	switch {
	case h == nil:
		return noHeader
	case h.macros == "":
		return h.symbol
	case c.shared[h] == "":
		name := c.symbol("token", cSymbol(h.name))
		c.shared[h] = name
		fmt.Fprintf(&c.body, "\n#if %s\n#define %s %s\n#else\n#define %s %s\n#endif\n", h.macros, name, h.symbol, name, noHeader)
	}
	return c.shared[h]
}

func (c *cFile) respmap(symbol string, list []runtime.StatusState) string {
	name := c.symbol("respmap", symbol)
	fmt.Fprintf(&c.body, "\nstatic const lws_ss_http_respmap_t %s[] = {\n", name)
	for _, s := range list {
		fmt.Fprintf(&c.body, "\t{ .resp = %d, .state = %d },\n", s.Status, s.State)
	}
	c.body.WriteString("};\n")
	return name
}

// options writes a list that is linked as the policy has it.
func (c *cFile) options(symbol string, list []runtime.Option) string {
	name := c.symbol("pvo", symbol)
	c.macros["LWS_WITH_SERVER"] = true
	c.array("struct lws_protocol_vhost_options", name, len(list), func(i int) values {
		v := values{"name": c.text(list[i].Name), "value": c.text(list[i].Value)}
		if i+1 < len(list) {
			v["next"] = fmt.Sprintf("&%s[%d]", name, i+1)
		}
		return v
	})
	return name
}

func (c *cFile) retry(r *runtime.Retry) string {
	return c.once(r, "retry", r.Name, func(name string) {
		v := c.keyed(r)
		if len(r.Backoff) > 0 {
			table := c.symbol("backoff", cSymbol(r.Name))
			var ms []string
			for _, d := range r.Backoff {
				ms = append(ms, c.duration(d, schema.LookupKey(schema.Retry, "backoff")))
			}
			fmt.Fprintf(&c.body, "\nstatic const uint32_t %s[] = { %s };\n", table, strings.Join(ms, ", "))
			v["retry_ms_table"] = table
			v["retry_ms_table_count"] = c.count(len(ms), 65535, "waits")
		}
		c.define("lws_retry_bo_t", name, v)
	})
}

func (c *cFile) auth(a *runtime.Auth) string {
	return c.once(a, "auth", a.Name, func(name string) { c.define("lws_ss_auth_t", name, c.keyed(a)) })
}

func (c *cFile) trustStore(t *runtime.TrustStore) string {
	return c.once(t, "trust", t.Name, func(name string) {
		if len(t.Stack) == 0 {
			c.errs = append(c.errs, fmt.Errorf("trust store %s has no certificate: lws would crash", schema.QuoteName(t.Name)))
		}
		v := c.keyed(t)
		v["count"] = c.count(len(t.Stack), 6, "certificates in a trust store")
		for i, cert := range t.Stack {
			v["ssx509["+strconv.Itoa(i)+"]"] = c.cert(cert)
		}
		c.define("lws_ss_trust_store_t", name, v)
	})
}

func (c *cFile) cert(x *runtime.Cert) string {
	return c.once(x, "cert", x.Name, func(name string) {
		der := c.symbol("der", cSymbol(x.Name))
		if about := describeDER(x.DER); about != "" {
			fmt.Fprintf(&c.body, "\n/* %s */", about)
		}
		fmt.Fprintf(&c.body, "\nstatic const uint8_t %s[] = {", der)
		for i := range len(x.DER) {
			if i%12 == 0 {
				c.body.WriteString("\n\t")
			} else {
				c.body.WriteByte(' ')
			}
			fmt.Fprintf(&c.body, "0x%02x,", x.DER[i])
		}
		if x.DER == "" {
			c.body.WriteByte('0') // C has no empty arrays
		}
		c.body.WriteString("\n};\n")
		v := values{"vhost_name": c.text(x.Name), "ca_der": der, "ca_der_len": strconv.Itoa(len(x.DER))}
		if c.keep[x] {
			v["keep"] = "1"
		}
		c.define("lws_ss_x509_t", name, v)
	})
}

// once returns the address of an object, which the first call defines.
func (c *cFile) once(object any, kind, name string, define func(symbol string)) string {
	if address, ok := c.shared[object]; ok {
		return address
	}
	symbol := c.symbol(kind, cSymbol(name))
	c.shared[object] = "&" + symbol
	define(symbol)
	return "&" + symbol
}

func (c *cFile) symbol(kind, name string) string {
	return c.symbols.unique(strings.TrimSuffix(c.o.Prefix+kind+"_"+name, "_"))
}
