// Package apilogin reuses the login sessions of API callers that keep no cookies.
//
// A gateway that authenticates its users starts a session and hands out its id as a
// cookie. A program that calls an API with Basic authentication drops the cookie,
// so each call starts another session. The middleware of this package runs in front
// of the gateway. It keeps the cookie on behalf of the caller, under a key made
// from the caller's name, password, address and path, and inserts it into the next
// call with the same key.
//
// Session cookies that a caller sends are removed and never read, and those that
// the gateway sets never reach a caller. Passwords are not stored.
package apilogin

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// A Part is a part of the key of a session, in addition to the user name and the
// password.
type Part uint8

// The parts. Calls that differ in a selected part have different sessions.
const (
	Address Part = 1 << iota // address of the client
	Path                     // path of the URL
)

// Options configure [Logins]. The zero value of a field means its default.
type Options struct {
	// Cookie is the name of the cookie that holds the session id; default
	// "MRHSession".
	Cookie string

	// StartHeader and StartValue are the header field that makes the gateway start
	// a session instead of redirecting to a login page; default "clientless-mode"
	// and "1".
	StartHeader, StartValue string

	// LoginPage is the path to which the gateway redirects callers without a
	// session; default "/my.policy".
	LoginPage string

	// Key selects the parts of the key. The default is Address|Path; UserOnly
	// selects none.
	Key      Part
	UserOnly bool

	Idle     time.Duration // lifetime of an unused session; default 15 min
	Lifetime time.Duration // lifetime of any session; default 8 h

	MaxSessions int // maximum number of sessions; default 10,000
	MaxPerUser  int // maximum number of sessions of a user name; default 100

	// MaxReplay is the size up to which the body of a call is kept until the
	// gateway answers, to send it again if the session has vanished; default 64
	// KiB. A longer call is then answered with 503.
	MaxReplay int

	// Store shares the sessions with other processes. Nil means none.
	Store Store

	// Secret derives the keys, and encrypts the values in the Store. Processes that
	// share a Store need the same; it has 32 bytes or more. Nil means a random one,
	// which is an error with a Store.
	Secret []byte

	// ClientAddress returns the address of a client; the default is the host of
	// RemoteAddr. Behind another proxy it may come from a header that this proxy
	// sets.
	ClientAddress func(*http.Request) string

	// Realm is the realm of 401 answers; default "api".
	Realm string

	// SOAP adds a SOAP fault as the body of the 401 and 403 answers of this
	// package.
	SOAP bool

	// Logger receives a line for each refusal, and the headers of each answer that
	// is not 2xx. Nil means slog.Default.
	Logger *slog.Logger
}

// Logins keeps the sessions of callers. Its methods are safe for concurrent use.
type Logins struct {
	o        Options
	cookie   cookieFilter
	sessions *sessions
	starts   starts
}

// New returns Logins without sessions.
func New(o Options) (*Logins, error) {
	def := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	def(&o.Cookie, "MRHSession")
	def(&o.StartHeader, "clientless-mode")
	def(&o.StartValue, "1")
	def(&o.LoginPage, "/my.policy")
	def(&o.Realm, "api")
	limit := func(n *int, value int) {
		if *n <= 0 {
			*n = value
		}
	}
	limit(&o.MaxSessions, 10_000)
	limit(&o.MaxPerUser, 100)
	limit(&o.MaxReplay, 64<<10)
	if o.Idle <= 0 {
		o.Idle = 15 * time.Minute
	}
	if o.Lifetime <= 0 {
		o.Lifetime = 8 * time.Hour
	}
	switch {
	case o.UserOnly:
		o.Key = 0
	case o.Key == 0:
		o.Key = Address | Path
	}
	if o.ClientAddress == nil {
		o.ClientAddress = clientAddress
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	switch {
	case !httpguts.ValidHeaderFieldName(o.Cookie): // a cookie's name is a token too
		return nil, fmt.Errorf("sspolicy: apilogin: Cookie %q is not the name of a cookie", o.Cookie)
	case !httpguts.ValidHeaderFieldName(o.StartHeader) || !httpguts.ValidHeaderFieldValue(o.StartValue):
		return nil, fmt.Errorf("sspolicy: apilogin: %q: %q is not a header field", o.StartHeader, o.StartValue)
	case strings.ContainsAny(o.Realm, "\"\\\r\n"):
		return nil, fmt.Errorf("sspolicy: apilogin: Realm %q has characters that need quoting", o.Realm)
	case o.Secret == nil && o.Store != nil:
		return nil, errors.New("sspolicy: apilogin: a Store needs a Secret")
	case o.Secret == nil:
		o.Secret = make([]byte, 32)
		rand.Read(o.Secret)
	case len(o.Secret) < 32:
		return nil, fmt.Errorf("sspolicy: apilogin: the Secret has %d bytes, want 32 or more", len(o.Secret))
	}
	s, err := newSessions(&o)
	if err != nil {
		return nil, err
	}
	return &Logins{o: o, cookie: newCookieFilter(o.Cookie), sessions: s, starts: starts{m: make(map[key]*start)}}, nil
}

// Proxy returns a reverse proxy to the gateway, with the middleware in front of it.
func (l *Logins) Proxy(gateway *url.URL) http.Handler {
	return l.Middleware(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(gateway)
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
		ErrorLog: slog.NewLogLogger(l.o.Logger.Handler(), slog.LevelWarn),
	})
}

// Len returns the number of sessions in memory.
func (l *Logins) Len() int { return l.sessions.len() }

func clientAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// A key identifies a session. Without the secret it reveals nothing about the
// caller, so neither lookups nor their timing reveal a password.
type key [sha256.Size]byte

func (l *Logins) key(r *http.Request, user, password string) (k key) {
	parts := []string{"session", user, password, "", ""}
	if l.o.Key&Address != 0 {
		parts[3] = "a" + l.o.ClientAddress(r)
	}
	if l.o.Key&Path != 0 {
		parts[4] = "p" + r.URL.Path
	}
	h := hmac.New(sha256.New, l.o.Secret)
	for _, p := range parts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p))))
		h.Write([]byte(p))
	}
	h.Sum(k[:0])
	return k
}
