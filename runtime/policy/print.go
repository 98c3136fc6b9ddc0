package policy

import (
	"fmt"
	"strings"
)

// Format prints the policy like a struct, without the password of its proxy.
func (p Policy) Format(f fmt.State, verb rune) {
	type bare Policy
	p.SOCKS5Proxy = redact(p.SOCKS5Proxy)
	fmt.Fprintf(f, fmt.FormatString(f, verb), bare(p))
}

// Format prints the streamtype like a struct, without the password of its proxy.
func (st StreamType) Format(f fmt.State, verb rune) {
	type bare StreamType
	st.SOCKS5Proxy = redact(st.SOCKS5Proxy)
	fmt.Fprintf(f, fmt.FormatString(f, verb), bare(st))
}

// Format prints only the name of the certificate or private key.
func (c Cert) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "%q", c.Name) }

// redact replaces the password of a proxy.
func redact(proxy string) string {
	i := strings.LastIndexByte(proxy, '@')
	if i < 0 {
		return proxy
	}
	user, _, _ := strings.Cut(proxy[:i], ":")
	return user + ":xxxxx" + proxy[i:]
}
