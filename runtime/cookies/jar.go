// Package cookies keeps the cookies of streams whose policy says "http_cookies":
// in memory, or also in a file of the format that lws and curl have.
//
// What a server may set is for net/http/cookiejar and the public suffix list to
// say (RFC 6265), and for the rules of RFC 6265bis on Secure and the prefixes of
// names. Beside that, cookies are kept apart by [transport.CookieScope].
//
// The package is apart from the transports since the list takes 140 KB of a
// program.
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

// Limits of a jar. RFC 6265 section 6.1 asks for the first three at least.
const (
	MaxSize   = 4096 // bytes of the name and the value of a cookie
	MaxSite   = 50   // cookies of a site, which is a public suffix and one label more
	MaxJar    = 3000 // cookies
	MaxHeader = 16 << 10

	maxAttribute = 1024                 // bytes of a path or domain
	maxAge       = 400 * 24 * time.Hour // RFC 6265bis section 5.5
)

// Options are the settings of a jar.
type Options struct {
	// File is where the cookies are kept: read by Open, and written, as a whole
	// and readable by its owner alone, within a second of a change and by Close.
	// "" keeps them in memory. Two jars must not have the same file.
	File string

	// PerStreamType gives each streamtype its own cookies. Else they are shared,
	// as far as their scope allows, as in lws.
	PerStreamType bool

	// Logger is told of lines of the file that mean nothing, and of failures to
	// write it. Nil is told nothing.
	Logger transport.Logger
}

// A Jar keeps cookies. Its methods may be called from any goroutine, and it may
// be given to several contexts.
type Jar struct {
	o Options

	mu     sync.Mutex
	scopes map[transport.CookieScope]*scope
	count  int    // of cookies
	order  uint64 // of the latest one that was set
	save   *time.Timer
	failed bool // to write the latest changes
	closed bool
}

var _ transport.CookieJar = (*Jar)(nil)

// A scope is the cookies of one scope. cookiejar knows who gets them, but not
// how many there are, nor does it tell what to write to a file.
type scope struct {
	jar     *cookiejar.Jar
	cookies map[id]*cookie
	sites   map[string]int // how many cookies each has
}

type id struct{ domain, path, name string }

// A cookie is one that the jar has accepted.
type cookie struct {
	id
	value    string
	quoted   bool
	hostOnly bool
	secure   bool
	httpOnly bool
	expires  time.Time // zero: never, as far as the server has said
	site     string
	order    uint64
}

// New returns a jar that keeps cookies in memory.
func New() *Jar { return &Jar{scopes: make(map[transport.CookieScope]*scope)} }

// key returns the scope to use.
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
	r := http.Request{Header: make(http.Header, 1)}
	value := ""
	for _, c := range s.jar.Cookies(urlOf(u.Scheme, hostOf(u), u.Path)) { // those of the longest path first
		r.AddCookie(c)
		if longer := r.Header.Get("Cookie"); len(longer) <= MaxHeader {
			value = longer
		} else {
			break
		}
	}
	return value
}

// SetCookies takes the Set-Cookie headers of a response from u. What is no
// cookie, or may not be set, is passed over, as RFC 6265 wants.
func (j *Jar) SetCookies(sc transport.CookieScope, u *url.URL, lines []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	changed := false
	for _, line := range lines[:min(len(lines), MaxSite)] {
		if c, err := http.ParseSetCookie(line); err == nil {
			changed = j.set(j.key(sc), u, c, time.Now()) || changed
		}
	}
	if changed {
		j.saveLater()
	}
}

// set sets a cookie, or takes it away. It reports whether something has
// changed. mu is held.
func (j *Jar) set(key transport.CookieScope, u *url.URL, c *http.Cookie, now time.Time) bool {
	k := &cookie{value: c.Value, quoted: c.Quoted, secure: c.Secure, httpOnly: c.HttpOnly, hostOnly: c.Domain == ""}
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
			return false // it never is
		}
		s = &scope{jar, make(map[id]*cookie), make(map[string]int)}
		j.scopes[key] = s
	}
	if gone {
		old := s.cookies[k.id]
		if old != nil && s.may(host, old) {
			j.remove(s, old)
		}
		return old != nil
	}
	s.put(host, k)
	if !s.has(host, k) { // another domain, or one that is many people's
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
	j.evict(s, k.site, now)
	return old == nil || old.value != k.value || !old.expires.Equal(k.expires) || old.secure != k.secure || old.httpOnly != k.httpOnly
}

// hides reports whether there is a cookie of that name that came by TLS, and so
// is not to be put aside by one that did not (RFC 6265bis section 5.7, step 9).
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

// under reports whether a name is a domain, or below it.
func under(name, domain string) bool {
	return name == domain || strings.HasSuffix(name, "."+domain)
}

// put hands a cookie that is set by a host to cookiejar.
func (s *scope) put(host string, k *cookie) {
	c := &http.Cookie{Name: k.name, Value: k.value, Quoted: k.quoted, Path: k.path, Secure: k.secure, HttpOnly: k.httpOnly, Expires: k.expires}
	if !k.hostOnly {
		c.Domain = k.domain
	}
	s.jar.SetCookies(k.url(host), []*http.Cookie{c})
}

// has reports whether cookiejar has the cookie, for the host.
func (s *scope) has(host string, k *cookie) bool {
	return slices.ContainsFunc(s.jar.Cookies(k.url(host)), func(c *http.Cookie) bool { return c.Name == k.name && c.Value == k.value })
}

// may reports whether the host may take the cookie away.
func (s *scope) may(host string, k *cookie) bool {
	return host == k.domain || !k.hostOnly && under(host, k.domain)
}

// url returns a URL of the host that the cookie is for.
func (k *cookie) url(host string) *url.URL { return urlOf("https", host, k.path) }

// urlOf returns a URL for cookiejar, which takes an IPv6 address with a port, any
// one, for another host than one without.
func urlOf(scheme, host, path string) *url.URL {
	return &url.URL{Scheme: scheme, Host: net.JoinHostPort(host, "1"), Path: path}
}

// remove takes a cookie away.
func (j *Jar) remove(s *scope, k *cookie) {
	delete(s.cookies, k.id)
	if s.sites[k.site]--; s.sites[k.site] == 0 {
		delete(s.sites, k.site)
	}
	j.count--
	gone := *k
	gone.expires = time.Unix(1, 0)
	s.put(k.domain, &gone)
}

// evict keeps the limits: expired cookies go first, then those that were set
// the longest time ago.
func (j *Jar) evict(s *scope, site string, now time.Time) {
	if s.sites[site] > MaxSite {
		var of []*cookie
		for _, k := range s.cookies {
			if k.site == site {
				of = append(of, k)
			}
		}
		for _, k := range oldest(of, MaxSite, now) {
			j.remove(s, k)
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
	for _, k := range oldest(all, MaxJar*9/10, now) { // some more, so that it is not done each time
		j.remove(in[k], k)
	}
	for key, s := range j.scopes {
		if len(s.cookies) == 0 {
			delete(j.scopes, key)
		}
	}
}

// oldest returns which cookies have to go so that no more than limit are left.
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

// hostOf returns the host of a URL as cookies know it, or "".
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

// hasPrefix is strings.HasPrefix whatever the case.
func hasPrefix(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}
