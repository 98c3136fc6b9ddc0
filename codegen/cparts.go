package codegen

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

// The functions in this file write the objects that streamtypes point to. Each
// returns the expression for a pointer to its object.

func (c *cFile) metrics(list []*policy.Metric) string {
	if len(list) == 0 {
		return ""
	}
	symbol := c.symbol("metrics", "")
	name := c.table(symbol, true)
	c.subject = subject{schema.Metrics, list[0].Name}
	c.need("LWS_WITH_SYS_METRICS", "the report")
	// lws uses the first policy in the list whose report matches a metric. lws's
	// list begins with the last definition.
	c.array("lws_metric_policy_t", symbol, len(list), func(i int) values {
		c.subject = subject{schema.Metrics, list[i].Name}
		v := c.keyed(list[i])
		if i > 0 {
			v["next"] = fmt.Sprintf("&%s[%d]", name, i-1)
		}
		return v
	})
	return fmt.Sprintf("&%s[%d]", name, len(list)-1)
}

// metadata writes a list in lws's order: the last item first. length is the index
// of the value in a stream, in the order of definition.
//
// Lists with the same first items therefore end in the same nodes, and share them.
func (c *cFile) metadata(symbol string, list []policy.Metadata) string {
	type itemsKey string // the names and headers of the first items
	keys := make([]itemsKey, len(list)+1)
	for i, m := range list {
		keys[i+1] = keys[i] + itemsKey(strconv.Quote(m.Name)+strconv.Quote(m.Header))
	}
	shared := len(list)
	for shared > 0 && c.expressions[keys[shared]] == "" {
		shared--
	}
	if shared == len(list) {
		return c.expressions[keys[shared]]
	}
	symbol = c.symbol("md", symbol)
	name := c.table(symbol, true)
	for i := shared; i < len(list); i++ {
		c.expressions[keys[i+1]] = fmt.Sprintf("(lws_ss_metadata_t *)&%s[%d]", name, i-shared)
	}
	c.array("lws_ss_metadata_t", symbol, len(list)-shared, func(i int) values {
		i += shared
		header := list[i].Header
		v := values{
			"name":   c.text(list[i].Name),
			"length": strconv.Itoa(i),
		}
		if i > 0 {
			v["next"] = c.expressions[keys[i]]
		}
		value := "(void *)" + c.text(header)
		if !c.o.Target.has("4.2", "") { // 4.2 added the token and renamed the value
			v["value"] = value
			return v
		}
		v["value__may_own_heap"] = value
		v["value_length"] = c.count(len(header), 255, "bytes in a metadata item's header")
		v["value_is_http_token"] = c.header(header)
		return v
	})
	return c.expressions[keys[len(list)]]
}

// noHeader is LWS_HTTP_NO_KNOWN_HEADER, which lws does not export. 0 would be a
// header.
const noHeader = "255"

// header returns the number of the header that a metadata item is mapped to.
func (c *cFile) header(mapping string) string {
	h := lookupHeader(mapping)
	switch {
	case h == nil:
		return noHeader
	case h.macros == "":
		return h.symbol
	case c.expressions[h] == "":
		name := c.o.Prefix + "token_" + cSymbol(h.name)
		c.expressions[h] = name
		fmt.Fprintf(&c.tokens, "\n#if %s\n#define %s %s\n#else\n#define %s %s\n#endif\n", h.macros, name, h.symbol, name, noHeader)
	}
	return c.expressions[h]
}

func (c *cFile) respmap(symbol string, list []policy.StatusState) string {
	var b strings.Builder
	b.WriteString("{\n")
	for _, s := range list {
		fmt.Fprintf(&b, "\t{ .resp = %d, .state = %d },\n", s.Status, s.State)
	}
	b.WriteString("}")
	return c.define("lws_ss_http_respmap_t", len(list), "respmap", symbol, "", b.String(), nil)
}

// options writes a list in the order of the policy.
func (c *cFile) options(symbol string, list []policy.Option) string {
	type options string
	key := options(fmt.Sprintf("%q", list))
	if name := c.expressions[key]; name != "" {
		return name
	}
	symbol = c.symbol("pvo", symbol)
	name := c.table(symbol, true)
	c.expressions[key] = name
	c.need("LWS_WITH_SERVER", "options")
	c.array("struct lws_protocol_vhost_options", symbol, len(list), func(i int) values {
		v := values{"name": c.text(list[i].Name), "value": c.text(list[i].Value)}
		if i+1 < len(list) {
			v["next"] = fmt.Sprintf("&%s[%d]", name, i+1)
		}
		return v
	})
	return name
}

func (c *cFile) retry(r *policy.Retry) string {
	return c.once(r, func() string {
		v := c.keyed(r)
		if len(r.Backoff) > 0 {
			var ms []string
			for _, d := range r.Backoff {
				ms = append(ms, c.duration(d, schema.LookupKey(schema.Retry, "backoff")))
			}
			v["retry_ms_table"] = c.define("uint32_t", len(ms), "backoff", cSymbol(r.Name), "", "{ "+strings.Join(ms, ", ")+" }", nil)
			v["retry_ms_table_count"] = c.count(len(ms), 65535, "waits")
		}
		return c.share("lws_retry_bo_t", "retry", cSymbol(r.Name), "", v)
	})
}

func (c *cFile) auth(a *policy.Auth) string {
	return c.once(a, func() string { return c.share("lws_ss_auth_t", "auth", cSymbol(a.Name), "", c.keyed(a)) })
}

func (c *cFile) trustStore(t *policy.TrustStore) string {
	return c.once(t, func() string {
		if len(t.Stack) == 0 {
			c.errs = append(c.errs, fmt.Errorf("trust store %s has no certificate: lws would crash", schema.QuoteName(t.Name)))
		}
		v := c.keyed(t)
		v["count"] = c.count(len(t.Stack), 6, "certificates in a trust store")
		for i, cert := range t.Stack {
			v["ssx509["+strconv.Itoa(i)+"]"] = c.cert(cert)
		}
		return c.share("lws_ss_trust_store_t", "trust", cSymbol(t.Name), "", v)
	})
}

func (c *cFile) cert(x *policy.Cert) string {
	return c.once(x, func() string {
		c.certs = append(c.certs, x)
		v := values{"vhost_name": c.text(x.Name), "ca_der": c.der(x), "ca_der_len": strconv.Itoa(len(x.DER))}
		if c.keep[x] {
			v["keep"] = "1"
		}
		return c.share("lws_ss_x509_t", "cert", cSymbol(x.Name), "", v)
	})
}

func (c *cFile) der(x *policy.Cert) string {
	const digits = "0123456789abcdef"
	var b strings.Builder
	b.WriteByte('{')
	for i := range len(x.DER) {
		if i%12 == 0 {
			b.WriteString("\n\t")
		} else {
			b.WriteByte(' ')
		}
		b.WriteString("0x")
		b.WriteByte(digits[x.DER[i]>>4])
		b.WriteByte(digits[x.DER[i]&15])
		b.WriteByte(',')
	}
	if x.DER == "" {
		b.WriteString("\n\t0") // C has no empty arrays
	}
	b.WriteString("\n}")
	return c.define("uint8_t", max(1, len(x.DER)), "der", cSymbol(x.Name), describeDER(x.DER), b.String(), nil)
}

// once returns the address of the object for a part of the policy. It calls define
// only the first time.
func (c *cFile) once(part any, define func() (symbol string)) string {
	address, ok := c.expressions[part]
	if !ok {
		address = "&" + define()
		c.expressions[part] = address
	}
	return address
}

func (c *cFile) symbol(kind, name string) string {
	return c.symbols.unique(strings.TrimSuffix(kind+"_"+name, "_"))
}
