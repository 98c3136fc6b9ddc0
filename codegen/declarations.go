package codegen

import (
	"fmt"
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

// declarations returns a libwebsockets.h of the target with the declarations that
// tables need. It defines the macro of each build option; NO_MACRO suppresses the
// definition of MACRO.
func declarations(target Target) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#ifndef STAND_IN\n#define STAND_IN\n#include <stddef.h>\n#include <stdint.h>\n#define LWS_LIBRARY_VERSION_NUMBER (%d) + \\\n\t(%d) + 999\n",
		target.Major*1_000_000, target.Minor*1_000)
	for _, o := range buildOptions {
		fmt.Fprintf(&b, "#if !defined(NO_%s)\n#define %[1]s\n#endif\n", o.macro)
	}
	b.WriteString("#define LWS_WITH_HTTP_UNCOMMON_HEADERS\nenum {\n")
	for bit, flag := range flagBits() {
		if flag != nil && target.has(flag.Since, "") {
			fmt.Fprintf(&b, "\t%s = (1 << %d),\n", flag.Flag, bit)
		}
	}
	b.WriteString("};\nenum {\n")
	for _, p := range cProtocols {
		if target.has(p.since, "") {
			fmt.Fprintf(&b, "\t%s,\n", p.symbol)
		}
	}
	b.WriteString("};\n")
	if target.has("4.2", "") {
		b.WriteString("enum {\n")
		for _, h := range knownHeaders {
			fmt.Fprintf(&b, "\t%s,\n", h.symbol)
		}
		b.WriteString("};\n#define TOKEN_NAME(n) token_names[n]\n#define token_names ((const char *const[]){ ")
		for _, h := range knownHeaders {
			fmt.Fprintf(&b, "%q, ", h.name)
		}
		b.WriteString("})\n")
	}
	for _, typ := range []string{
		"lws_retry_bo_t", "lws_metric_policy_t", "lws_ss_x509_t", "lws_ss_trust_store_t", "lws_ss_metadata_t",
		"lws_ss_http_respmap_t", "lws_ss_auth_t", "struct lws_protocol_vhost_options", "lws_ss_policy_t",
	} {
		tag, isTag := strings.CutPrefix(typ, "struct ")
		tag = strings.TrimSuffix(tag, "_t")
		fmt.Fprintf(&b, "struct %s {\n", tag)
		declareMembers(&b, "\t", target, layouts[typ])
		b.WriteString("};\n")
		if !isTag {
			fmt.Fprintf(&b, "typedef struct %s %s;\n", tag, typ)
		}
	}
	b.WriteString("#endif\n")
	return b.String()
}

// declareMembers writes the members of a struct.
func declareMembers(b *strings.Builder, indent string, target Target, list []member) {
	for _, m := range list {
		if !target.has(m.since, m.until) {
			continue
		}
		if m.macro != "" {
			fmt.Fprintf(b, "#if defined(%s)\n", m.macro)
		}
		switch {
		case m.members != nil:
			kind := "struct"
			if m.union {
				kind = "union"
			}
			fmt.Fprintf(b, "%s%s {\n", indent, kind)
			declareMembers(b, indent+"\t", target, m.members)
			fmt.Fprintf(b, "%s} %s;\n", indent, m.name)
		case m.count > 0:
			fmt.Fprintf(b, "%s%s%s[%d];\n", indent, m.typ, m.name, m.count)
		case m.bits > 0:
			// lws uses an extension to C99 that most compilers have.
			fmt.Fprintf(b, "%s__extension__ %s%s:%d;\n", indent, m.typ, m.name, m.bits)
		default:
			fmt.Fprintf(b, "%s%s%s;\n", indent, m.typ, m.name)
		}
		if m.macro != "" {
			b.WriteString("#endif\n")
		}
	}
}

// flagBits returns the key of each flag of a streamtype.
func flagBits() (bits [32]*schema.Key) {
	for _, k := range schema.Keys(schema.Streams) {
		if k.Flag != "" {
			bits[k.Bit] = k
		}
	}
	return bits
}
