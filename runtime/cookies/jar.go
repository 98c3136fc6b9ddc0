// Package cookies keeps the cookies of streams whose policy sets http_cookies, in
// memory and optionally in a file in the format of lws and curl.
//
// Which cookies a server may set follows RFC 6265, with net/http/cookiejar and the
// public suffix list, and RFC 6265bis for Secure and name prefixes. Each
// [transport.CookieScope] has its own cookies.
//
// The package is separate from the transports because the public suffix list adds
// 140 KB to a program.
package cookies

import (
	"cmp"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/secure-streams/sspolicy/runtime/transport"
)

// The limits of a jar. RFC 6265 section 6.1 requires at least the first three.
const (
	MaxSize   = 4096     // bytes of the name and the value of a cookie
	MaxSite   = 50       // cookies of a site: a public suffix and the label before it
	MaxJar    = 3000     // cookies
	MaxHeader = 16 << 10 // bytes of a Cookie header

	maxAttribute = 1024                 // bytes of a path or domain
	maxAge       = 400 * 24 * time.Hour // RFC 6265bis section 5.5
)

// Options configure a [Jar].
type Options struct {
	// File is the file of the cookies. Open reads it; it is replaced within a
	// second of a change and by Close, and only its owner can read it. "" keeps
	// the cookies in memory only. Two jars must not use the same file.
	File string

	// PerStreamType gives each streamtype its own cookies. Otherwise streamtypes
	// with equal CookieScope.Peer share them, as in lws.
	PerStreamType bool

	// Logger receives warnings about invalid lines of the file, and errors of
	// writing it. Nil discards them.
	Logger transport.Logger
}

// A Jar keeps cookies. Its methods are safe for concurrent use, and several
// contexts may share it.
type Jar struct {
	o Options

	mu     sync.Mutex
	scopes map[transport.CookieScope]*scope
	count  int         // number of cookies
	order  uint64      // order of the latest cookie
	save   *time.Timer // writes the file; nil unless it runs
	failed bool        // the latest changes could not be written
	closed bool
}

var _ transport.CookieJar = (*Jar)(nil)

// A scope holds the cookies of one scope. jar decides who gets a cookie; cookies is
// for limits and for the file, which a cookiejar.Jar does not support.
type scope struct {
	jar     *cookiejar.Jar
	cookies map[id]*cookie
	sites   map[string]int // number of cookies of each site
}

type id struct{ domain, path, name string }

// A cookie is a cookie that the jar has accepted.
type cookie struct {
	id
	value    string
	hostOnly bool
	secure   bool
	httpOnly bool
	expires  time.Time // zero means never
	site     string
	order    uint64
}

// New returns a jar that keeps cookies in memory.
func New() *Jar { return &Jar{scopes: make(map[transport.CookieScope]*scope)} }

// key returns the key of a scope in j.scopes.
func (j *Jar) key(s transport.CookieScope) transport.CookieScope {
	if !j.o.PerStreamType {
		s.StreamType = ""
	}
	return s
}

// Cookies returns the value of the Cookie header of a request for u, or "".
func (j *Jar) Cookies(sc transport.CookieScope, u *url.URL) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.scopes[j.key(sc)]
	if s == nil {
		return ""
	}
	var b strings.Builder
	for _, c := range s.jar.Cookies(urlOf(u.Scheme, hostOf(u), u.Path)) { // longest path first
		pair := c.Name + "=" + c.Value
		if b.Len() > 0 {
			pair = "; " + pair
		}
		if b.Len()+len(pair) > MaxHeader {
			break
		}
		b.WriteString(pair)
	}
	return b.String()
}

// SetCookies stores the Set-Cookie headers of a response from u. It ignores
// malformed and forbidden cookies, as RFC 6265 requires.
func (j *Jar) SetCookies(sc transport.CookieScope, u *url.URL, lines []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	changed := false
	for _, line := range lines[:min(len(lines), MaxSite)] {
		if c, ok := parseSetCookie(line); ok {
			changed = j.setLocked(j.key(sc), u, c, time.Now()) || changed
		}
	}
	if changed {
		j.saveLaterLocked()
	}
}

// setLocked sets or removes a cookie. It reports whether the jar has changed.
func (j *Jar) setLocked(key transport.CookieScope, u *url.URL, c *http.Cookie, now time.Time) bool {
	k := &cookie{value: c.Value, secure: c.Secure, httpOnly: c.HttpOnly, hostOnly: c.Domain == ""}
	host := hostOf(u)
	k.id = id{cmp.Or(strings.ToLower(strings.TrimPrefix(c.Domain, ".")), host), c.Path, c.Name}
	if !strings.HasPrefix(k.path, "/") {
		k.path = "/"
		if i := strings.LastIndexByte(u.Path, '/'); i > 0 && u.Path[0] == '/' {
			k.path = u.Path[:i]
		}
	}
	if len(k.domain) > maxAttribute {
		return false
	}
	k.site = siteOf(k.domain)
	switch s := j.scopes[key]; {
	case len(k.name)+len(k.value) > MaxSize, len(k.path) > maxAttribute, host == "",
		k.secure && u.Scheme != "https",
		hasPrefix(k.name, "__Secure-") && !k.secure,
		hasPrefix(k.name, "__Host-") && (!k.secure || !k.hostOnly || c.Path != "/"),
		u.Scheme != "https" && s.hides(k):
		return false
	}
	gone := c.MaxAge < 0
	switch {
	case c.MaxAge > 0:
		k.expires = now.Add(time.Duration(min(c.MaxAge, int(maxAge/time.Second))) * time.Second)
	case c.MaxAge == 0 && !c.Expires.IsZero():
		k.expires = c.Expires
		if latest := now.Add(maxAge); k.expires.After(latest) {
			k.expires = latest
		}
		gone = !k.expires.After(now)
	}
	s := j.scopes[key]
	if s == nil {
		if gone {
			return false
		}
		jar, err := cookiejar.New(&cookiejar.Options{PublicSuffixList: publicsuffix.List})
		if err != nil {
			return false // never happens
		}
		s = &scope{jar, make(map[id]*cookie), make(map[string]int)}
		j.scopes[key] = s
	}
	if gone {
		old := s.cookies[k.id]
		if old != nil && s.mayRemove(host, old) {
			j.removeLocked(s, old)
		}
		return old != nil
	}
	s.put(host, k)
	if !s.has(host, k) { // another domain, or a public suffix
		if len(s.cookies) == 0 {
			delete(j.scopes, key)
		}
		return false
	}
	old := s.cookies[k.id]
	if old == nil {
		j.count++
		s.sites[k.site]++
	}
	j.order++
	k.order = j.order
	s.cookies[k.id] = k
	j.evictLocked(s, k.site, now)
	return old == nil || old.value != k.value || !old.expires.Equal(k.expires) || old.secure != k.secure || old.httpOnly != k.httpOnly
}

// hides reports whether the scope has a Secure cookie of that name, which a cookie
// from a connection without TLS must not hide (RFC 6265bis section 5.7, step 9).
func (s *scope) hides(k *cookie) bool {
	if s == nil || s.sites[k.site] == 0 {
		return false
	}
	for _, c := range s.cookies {
		if c.secure && c.name == k.name && (under(c.domain, k.domain) || under(k.domain, c.domain)) && strings.HasPrefix(k.path, c.path) {
			return true
		}
	}
	return false
}

// under reports whether name is domain or a subdomain of it.
func under(name, domain string) bool {
	return name == domain || strings.HasSuffix(name, "."+domain)
}

// put stores a cookie that a host has set in the cookiejar.
func (s *scope) put(host string, k *cookie) {
	c := &http.Cookie{Name: k.name, Value: k.value, Path: k.path, Secure: k.secure, HttpOnly: k.httpOnly, Expires: k.expires}
	if !k.hostOnly {
		c.Domain = k.domain
	}
	s.jar.SetCookies(k.url(host), []*http.Cookie{c})
}

// has reports whether the cookiejar returns the cookie for the host.
func (s *scope) has(host string, k *cookie) bool {
	return slices.ContainsFunc(s.jar.Cookies(k.url(host)), func(c *http.Cookie) bool { return c.Name == k.name && c.Value == k.value })
}

// mayRemove reports whether the host may remove the cookie.
func (s *scope) mayRemove(host string, k *cookie) bool {
	return host == k.domain || !k.hostOnly && under(host, k.domain)
}

// url returns a URL of the host to which the cookie applies.
func (k *cookie) url(host string) *url.URL { return urlOf("https", host, k.path) }

// urlOf returns a URL for cookiejar. It always has a port, since cookiejar treats
// an IPv6 address with a port and one without as two hosts.
func urlOf(scheme, host, path string) *url.URL {
	return &url.URL{Scheme: scheme, Host: net.JoinHostPort(host, "1"), Path: path}
}

// removeLocked removes a cookie.
func (j *Jar) removeLocked(s *scope, k *cookie) {
	delete(s.cookies, k.id)
	if s.sites[k.site]--; s.sites[k.site] == 0 {
		delete(s.sites, k.site)
	}
	j.count--
	gone := *k
	gone.expires = time.Unix(1, 0)
	s.put(k.domain, &gone)
}

// evictLocked enforces the limits. Expired cookies go first, then the oldest.
func (j *Jar) evictLocked(s *scope, site string, now time.Time) {
	if s.sites[site] > MaxSite {
		var of []*cookie
		for _, k := range s.cookies {
			if k.site == site {
				of = append(of, k)
			}
		}
		for _, k := range oldest(of, MaxSite, now) {
			j.removeLocked(s, k)
		}
	}
	if j.count <= MaxJar {
		return
	}
	var all []*cookie
	in := make(map[*cookie]*scope)
	for _, s := range j.scopes {
		for _, k := range s.cookies {
			all = append(all, k)
			in[k] = s
		}
	}
	for _, k := range oldest(all, MaxJar*9/10, now) { // more than necessary, so that it is rare
		j.removeLocked(in[k], k)
	}
	for key, s := range j.scopes {
		if len(s.cookies) == 0 {
			delete(j.scopes, key)
		}
	}
}

// oldest returns the cookies to remove so that at most limit are left.
func oldest(all []*cookie, limit int, now time.Time) []*cookie {
	if len(all) <= limit {
		return nil
	}
	slices.SortFunc(all, func(a, b *cookie) int {
		if x, y := a.expired(now), b.expired(now); x != y {
			if x {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.order, b.order)
	})
	return all[:len(all)-limit]
}

func (k *cookie) expired(now time.Time) bool { return !k.expires.IsZero() && !k.expires.After(now) }

// hostOf returns the host of a URL as in the domain of a cookie, or "".
func hostOf(u *url.URL) string { return strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")) }

func siteOf(domain string) string {
	if net.ParseIP(domain) != nil {
		return domain
	}
	site, err := publicsuffix.EffectiveTLDPlusOne(domain)
	if err != nil {
		return domain
	}
	return site
}

// hasPrefix is like strings.HasPrefix but ignores case.
func hasPrefix(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}
