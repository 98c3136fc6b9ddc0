package policy

import (
	"fmt"
	"net/netip"
	"strings"
)

// A Use is the set of places where the policy puts the value of a metadata item.
type Use uint8

const (
	UseHeader Use = 1 << iota // a header, in either direction
	UseURL                    // the path or query of a URL
	UseName                   // the host name of an endpoint
	UseHost                   // the host or port of an endpoint that is a URL
	UsePath                   // the path of a unix socket or file
)

// Check refuses a value that would change the meaning of the text around it,
// with an error that wraps ErrMetadataValue. Sources: RFC 9110 section 5.5 for
// headers, RFC 3986 section 3.2 for characters that end or split a host.
func (u Use) Check(value string) error {
	if u != 0 && strings.ContainsAny(value, "\r\n\x00") {
		return fmt.Errorf("%w: CR, LF and NUL cannot stand in a header, host or URL", ErrMetadataValue)
	}
	if u&UseHeader != 0 && strings.ContainsFunc(value, IsControl) {
		return fmt.Errorf("%w: a control character cannot stand in a header", ErrMetadataValue)
	}
	if u&UsePath != 0 && strings.Contains(value, "/") {
		return fmt.Errorf("%w: part of the path of a unix socket or file cannot hold \"/\"", ErrMetadataValue)
	}
	// A ':' would make a URL of a name, and bring a port into a URL; but an IPv6
	// address, which has more than one, does neither.
	if u&UseName != 0 || u&UseHost != 0 && !isIPv6(value) {
		for i := range len(value) {
			if !isHostByte(value[i]) {
				return fmt.Errorf("%w: part of a host name cannot hold %q", ErrMetadataValue, value[i])
			}
		}
	}
	return nil
}

// isIPv6 reports whether s is an IPv6 address without a zone, with or without
// brackets.
func isIPv6(s string) bool {
	if len(s) > 1 && s[0] == '[' && s[len(s)-1] == ']' {
		s = s[1 : len(s)-1]
	}
	a, err := netip.ParseAddr(s)
	return err == nil && a.Is6() && a.Zone() == ""
}

// IsControl reports whether r cannot stand in the value of a header (RFC 9110
// section 5.5).
func IsControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// IsToken reports whether s is a token of RFC 9110 section 5.6.2, as the name
// of a header is.
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

// isHostByte reports whether b can stand in a host name; an underscore and a
// tilde are no part of one, but resolvers take them.
func isHostByte(b byte) bool { return isAlphanumeric(b) || strings.IndexByte("-._~", b) >= 0 }

// IsHostName reports whether s consists of characters of a host name.
func IsHostName(s string) bool {
	for i := range len(s) {
		if !isHostByte(s[i]) {
			return false
		}
	}
	return s != ""
}
