package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A Use is the set of places where the policy uses the value of a metadata item.
type Use uint8

// The places of a value.
const (
	UseHeader Use = 1 << iota // a header, in either direction
	UseURL                    // the path or query of a URL
	UseName                   // the host name of an endpoint
	UseHost                   // the host or port of an endpoint that is a URL
	UsePath                   // the path of a unix socket or file
	UsePart                   // an encoded part of a URL
	UseLevel                  // a level of an MQTT topic or filter, or a part of one
)

// Check returns an error if value would change the meaning of the text around it.
// The error wraps ErrMetadataValue and does not quote the value. The rules are
// those of RFC 9110 section 5.5 for headers, RFC 3986 section 3.2 for hosts, and
// MQTT 3.1.1 section 4.7 for topics.
func (u Use) Check(value string) error {
	if u != 0 && strings.ContainsAny(value, "\r\n\x00") {
		return fmt.Errorf("%w: a header, host or URL cannot hold CR, LF or NUL", ErrMetadataValue)
	}
	if u&UseHeader != 0 && strings.ContainsFunc(value, IsControl) {
		return fmt.Errorf("%w: a header cannot hold a control character", ErrMetadataValue)
	}
	if u&UsePath != 0 && strings.Contains(value, "/") {
		return fmt.Errorf("%w: part of a path of a unix socket or file cannot hold \"/\"", ErrMetadataValue)
	}
	if u&UsePart != 0 && slices.ContainsFunc(strings.Split(value, "/"), func(s string) bool { return s == "." || s == ".." }) {
		return fmt.Errorf("%w: part of a URL cannot hold \".\" or \"..\" between slashes", ErrMetadataValue)
	}
	if u&UseLevel != 0 && strings.ContainsAny(value, "+#/") {
		return fmt.Errorf("%w: part of a topic cannot hold \"+\", \"#\" or \"/\"", ErrMetadataValue)
	}
	// A ':' would turn a name into a URL, and add a port to a URL. An IPv6 address
	// does neither.
	if u&UseName != 0 || u&UseHost != 0 && !isIPv6(value) {
		for i := range len(value) {
			if !isHostByte(value[i]) {
				return fmt.Errorf("%w: part of a host name cannot hold %q", ErrMetadataValue, value[i])
			}
		}
	}
	return nil
}

// isIPv6 reports whether s is an IPv6 address without a zone, possibly in brackets.
func isIPv6(s string) bool {
	if len(s) > 1 && s[0] == '[' && s[len(s)-1] == ']' {
		s = s[1 : len(s)-1]
	}
	a, err := netip.ParseAddr(s)
	return err == nil && a.Is6() && a.Zone() == ""
}

// IsControl reports whether r is a control character that is invalid in the value
// of a header (RFC 9110 section 5.5): any except the tab.
func IsControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// IsToken reports whether s is a token (RFC 9110 section 5.6.2), such as the name of a
// header.
func IsToken(s string) bool {
	for i := range len(s) {
		if !isAlphanumeric(s[i]) && strings.IndexByte("!#$%&'*+-.^_`|~", s[i]) < 0 {
			return false
		}
	}
	return s != ""
}

func isAlphanumeric(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9'
}

// isHostByte reports whether a host name may hold b. It includes underscore and tilde,
// which resolvers accept.
func isHostByte(b byte) bool { return isAlphanumeric(b) || strings.IndexByte("-._~", b) >= 0 }

// IsHostName reports whether s is not empty and holds only characters of host names.
func IsHostName(s string) bool {
	for i := range len(s) {
		if !isHostByte(s[i]) {
			return false
		}
	}
	return s != ""
}
