package codegen

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

// An Identity identifies the policy in C tables.
type Identity struct {
	Product, Release string
	SchemaVersion    int64
	SHA256           string // hash of the packed policy, in hexadecimal
	Target           Target
}

// String returns the identity as one line of ASCII, which strings(1) finds in a
// program.
func (i Identity) String() string {
	return fmt.Sprintf("sspolicy: product=%s release=%s schema-version=%d sha256=%s lws=%v",
		strconv.QuoteToASCII(i.Product), strconv.QuoteToASCII(i.Release), i.SchemaVersion, i.SHA256, i.Target)
}

var identityText = regexp.MustCompile(`sspolicy: product=("(?:[^"\\\x00-\x1f\x7f-\xff]|\\[ -~])*") release=("(?:[^"\\\x00-\x1f\x7f-\xff]|\\[ -~])*") schema-version=(-?\d+) sha256=([0-9a-f]*) lws=(\d+\.\d+)`)

// identities returns the identities in a file.
func identities(file []byte) (list []Identity) {
	for _, m := range identityText.FindAllSubmatch(file, -1) {
		var i Identity
		var err [3]error
		var v schema.Version
		i.Product, err[0] = strconv.Unquote(string(m[1]))
		i.Release, err[1] = strconv.Unquote(string(m[2]))
		i.SchemaVersion, err[2] = strconv.ParseInt(string(m[3]), 10, 64)
		i.SHA256 = string(m[4])
		if err != [3]error{} || v.UnmarshalText(m[5]) != nil {
			continue
		}
		if i.Target = Target(v); !slices.Contains(list, i) {
			list = append(list, i)
		}
	}
	return list
}

// identityMacros returns the macros and the object that tell a program the identity
// of its policy. A compiler drops the object if the program does not use it.
func identityMacros(prefix string, i Identity) string {
	var b strings.Builder
	b.WriteString("\n/* Which policy this is. \"strings\" finds the text in a program that uses the struct. */\n")
	name := prefix + "policy_"
	for _, m := range []struct{ name, value string }{
		{"product", i.Product}, {"release", i.Release}, {"sha256", i.SHA256}, {"text", i.String()},
	} {
		fmt.Fprintf(&b, "#define %s%s %s\n", name, m.name, macroString(m.value))
	}
	fmt.Fprintf(&b, "#define %sschema_version %dLL\n", name, i.SchemaVersion)
	fmt.Fprintf(&b, "#if defined(__GNUC__)\n__attribute__((unused))\n#endif\n"+
		"static const struct {\n\tconst char *product, *release, *sha256, *text;\n\tlong long schema_version;\n} %sidentity = {\n"+
		"\t%[1]sproduct, %[1]srelease, %[1]ssha256, %[1]stext, %[1]sschema_version,\n};\n", name)
	return b.String()
}
