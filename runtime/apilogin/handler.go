package apilogin

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// Middleware returns a handler that requires Basic authentication, and passes calls
// to next, which talks to the gateway, with the session of the caller. It answers
// itself with
//
//   - 401 without one Basic Authorization field,
//   - 403 if the gateway answers 401 or 403 to the start of a session,
//   - 503 if the session of a call longer than MaxReplay has vanished.
//
// A session has vanished if the gateway answers with 401 or a redirect to the login
// page; then another one is started, once. Calls are not upgraded to other
// protocols.
func (l *Logins) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, ok := r.BasicAuth()
		if !ok || user == "" || len(r.Header["Authorization"]) != 1 {
			l.refuse(w, r, http.StatusUnauthorized, "Missing Authorization header", "no Basic authorization")
			return
		}
		c := &call{l: l, next: next, w: w, r: r, user: user, key: l.key(r, user, password), body: newReplay(r.Body, l.o.MaxReplay)}
		c.header = l.clean(r.Header)
		c.run()
	})
}

// clean returns the header fields of a call without those that only this package
// may set.
func (l *Logins) clean(in http.Header) http.Header {
	h := make(http.Header, len(in)+2)
	start := spelling(l.o.StartHeader)
	for name, values := range in {
		if spelling(name) != start {
			h[name] = slices.Clone(values)
		}
	}
	// A proxy would remove the fields that Connection names, such as the cookie.
	h.Del("Connection")
	h.Del("Upgrade")
	l.cookie.strip(h)
	return h
}

// spelling returns the name of a header field in a form that is equal for all names
// that some server treats as the same.
func spelling(name string) string {
	return strings.ToLower(strings.ReplaceAll(name, "_", "-"))
}

// A call is a request of a caller.
type call struct {
	l      *Logins
	next   http.Handler
	w      http.ResponseWriter
	r      *http.Request
	header http.Header // cleaned
	body   *replay
	user   string
	key    key
}

// run passes the call to the next handler, twice if the session has vanished.
func (c *call) run() {
	ctx := c.r.Context()
	for first := true; ; {
		if cookie := c.l.sessions.get(ctx, c.key); cookie != "" {
			if c.hit(cookie, first) {
				return
			}
			first = false
			if _, ok := c.body.reader(); !ok {
				c.l.refuse(c.w, c.r, http.StatusServiceUnavailable, "The session has ended. Send the request again.", "session vanished, the body is too long to send again")
				return
			}
			continue
		}
		st, first := c.l.starts.begin(c.key)
		if !first {
			select {
			case <-ctx.Done():
				return
			case <-st.done:
			}
		}
		switch {
		case first:
			var result outcome // also set if the handler panics, as that of httputil does
			defer func() { c.l.starts.end(c.key, st, result) }()
			c.start(func(o outcome) {
				result = o
				c.l.starts.end(c.key, st, o) // the others need not wait for the body
			})
			return
		case st.outcome == denied:
			c.deny()
			return
		case st.outcome == failed:
			c.start(func(outcome) {})
			return
		}
	}
}

// hit makes the call with a session. If the session has vanished and retry is set,
// it returns false without answering the caller.
func (c *call) hit(cookie string, retry bool) bool {
	return c.pass(cookie, func(status int, h http.Header) bool {
		ctx := c.r.Context()
		if c.l.vanished(status, h) {
			c.l.sessions.remove(ctx, c.key, cookie)
			c.l.cookie.take(h)
			return !retry
		}
		if value, ok := c.l.cookie.take(h); ok && value == "" {
			c.l.sessions.remove(ctx, c.key, cookie)
		} else if ok && value != cookie {
			c.l.sessions.replace(ctx, c.key, cookie, value)
		}
		return true
	})
}

// start makes the call and starts a session with it. It calls end when it knows the
// outcome.
func (c *call) start(end func(outcome)) {
	answered := c.pass("", func(status int, h http.Header) bool {
		value, _ := c.l.cookie.take(h)
		switch {
		case status == http.StatusUnauthorized || status == http.StatusForbidden:
			end(denied)
			return false
		case c.l.vanished(status, h):
			c.l.log(c.r, slog.LevelError, "apilogin: the gateway has started no session", slog.String("user", c.user), slog.String("location", h.Get("Location")))
			end(failed)
		case status >= 500 && c.r.Context().Err() != nil:
			end(unknown) // the caller has gone
		case status >= 500:
			end(failed)
		case value == "":
			c.l.log(c.r, slog.LevelWarn, "apilogin: the gateway has set no session cookie", slog.String("user", c.user), slog.Int("status", status))
			end(failed)
		default:
			c.l.sessions.put(c.r.Context(), c.key, c.user, value)
			end(started)
		}
		return true
	})
	if !answered {
		c.deny()
	}
}

// vanished reports whether an answer means that there is no session.
func (l *Logins) vanished(status int, h http.Header) bool {
	if status == http.StatusUnauthorized {
		return true
	}
	if status < 300 || status > 399 {
		return false
	}
	u, err := url.Parse(h.Get("Location"))
	return err == nil && u.Path == l.o.LoginPage
}

func (c *call) deny() {
	c.l.refuse(c.w, c.r, http.StatusForbidden, "The requested operation was denied. Please consult with your administrator.", "denied by the gateway", slog.String("user", c.user))
}

// pass calls the next handler with the cookie or, if it is "", with the field that
// starts a session. decide receives the answer, and may change its header; if it
// returns false, the answer is dropped and pass returns false.
func (c *call) pass(cookie string, decide func(status int, h http.Header) bool) bool {
	r := c.r.WithContext(c.r.Context())
	r.Header = c.header.Clone()
	r.Body, _ = c.body.reader()
	r.Trailer = nil
	if cookie != "" {
		c.l.cookie.insert(r.Header, cookie)
	} else {
		r.Header.Set(c.l.o.StartHeader, c.l.o.StartValue)
	}
	w := &answer{w: c.w, header: make(http.Header), decide: func(status int, h http.Header) bool {
		if status < 200 || status > 299 {
			c.l.diagnose(c, status, cookie, h)
		}
		return decide(status, h)
	}}
	c.next.ServeHTTP(w, r)
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	return !w.dropped
}

// refuse answers a call without the gateway, and closes the connection.
func (l *Logins) refuse(w http.ResponseWriter, r *http.Request, status int, fault, why string, attrs ...slog.Attr) {
	h := w.Header()
	h.Set("Connection", "close")
	switch status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Basic realm="`+l.o.Realm+`", charset="UTF-8"`)
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", "0")
	}
	body := ""
	attrs = append(attrs, slog.Int("status", status), slog.String("client", l.o.ClientAddress(r)), slog.String("method", r.Method), slog.String("path", r.URL.Path))
	if l.o.SOAP {
		if status == http.StatusForbidden {
			id := rand.Text()
			fault += " Your support ID is: " + id
			attrs = append(attrs, slog.String("support_id", id))
		}
		h.Set("Content-Type", "text/xml; charset=utf-8")
		body = fmt.Sprintf(soapFault, fault)
	}
	l.log(r, slog.LevelInfo, "apilogin: "+why, attrs...)
	h.Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(status)
	io.WriteString(w, body)
}

// soapFault is the fault of SOAP 1.1.
const soapFault = `<?xml version="1.0" encoding="utf-8"?>
<soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/"><soap:Body><soap:Fault><faultcode>soap:Client</faultcode><faultstring>%s</faultstring></soap:Fault></soap:Body></soap:Envelope>
`

func (l *Logins) log(r *http.Request, level slog.Level, msg string, attrs ...slog.Attr) {
	l.o.Logger.LogAttrs(r.Context(), level, msg, attrs...)
}

// diagnose logs an answer that is not 2xx.
func (l *Logins) diagnose(c *call, status int, cookie string, h http.Header) {
	sum := sha256.Sum256([]byte(cookie))
	id := "none"
	if cookie != "" {
		id = hex.EncodeToString(sum[:6])
	}
	l.log(c.r, slog.LevelWarn, "apilogin: the gateway's answer is not 2xx", slog.Int("status", status), slog.String("session", id), slog.String("user", c.user),
		fields("request", c.header), fields("response", h))
}

// maxField limits the length of a logged header field.
const maxField = 256

// fields returns the header fields for the log, without secrets.
func fields(name string, h http.Header) slog.Attr {
	var attrs []any
	for _, k := range slices.Sorted(maps.Keys(h)) {
		value := strings.Join(h[k], ", ")
		if secret(k) {
			value = "(redacted)"
		} else if len(value) > maxField {
			value = value[:maxField] + "…"
		}
		attrs = append(attrs, slog.String(k, value))
	}
	return slog.Group(name, attrs...)
}

// secret reports whether the value of a header field may be a secret.
func secret(name string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc([]string{"auth", "cookie", "token", "secret", "key", "pass", "session", "signature", "credential"}, func(s string) bool { return strings.Contains(name, s) })
}

// An answer is the ResponseWriter of the next handler. It holds the header back
// until the status is known.
type answer struct {
	w       http.ResponseWriter
	header  http.Header // until the status
	decide  func(status int, h http.Header) bool
	status  int
	dropped bool
}

func (a *answer) Header() http.Header {
	if a.status != 0 && !a.dropped {
		return a.w.Header() // trailers
	}
	return a.header
}

func (a *answer) WriteHeader(status int) {
	if a.status != 0 || status >= 100 && status <= 199 {
		return // early hints are for browsers
	}
	a.dropped = !a.decide(status, a.header)
	a.status = status
	if !a.dropped {
		maps.Copy(a.w.Header(), a.header)
		a.w.WriteHeader(status)
	}
}

func (a *answer) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	if a.dropped {
		return len(b), nil
	}
	return a.w.Write(b)
}

// FlushError is for [http.ResponseController].
func (a *answer) FlushError() error {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	if a.dropped {
		return nil
	}
	return http.NewResponseController(a.w).Flush()
}

// A replay is a body that can be read twice, up to a length.
type replay struct {
	mu    sync.Mutex
	body  io.ReadCloser
	max   int
	saved []byte        // what has been read; nil if that exceeds max
	total int           // length of what has been read
	err   error         // of body
	owner *replayReader // the only one that may read
}

func newReplay(body io.ReadCloser, limit int) *replay {
	if body == nil {
		body = http.NoBody
	}
	return &replay{body: body, max: limit}
}

// reader returns a reader of the body from its beginning. Earlier readers, which a
// transport may still use, fail from then on. It returns false if the beginning is
// lost.
func (p *replay) reader() (io.ReadCloser, bool) {
	if p.body == http.NoBody {
		return http.NoBody, true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.owner = &replayReader{p: p}
	return p.owner, len(p.saved) == p.total
}

type replayReader struct {
	p   *replay
	pos int
}

func (r *replayReader) Read(b []byte) (int, error) {
	p := r.p
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.owner != r:
		return 0, http.ErrBodyReadAfterClose
	case r.pos < len(p.saved):
		n := copy(b, p.saved[r.pos:])
		r.pos += n
		return n, nil
	case p.err != nil:
		return 0, p.err
	}
	n, err := p.body.Read(b)
	p.err = err
	p.total += n
	r.pos += n
	if p.total > p.max {
		p.saved = nil
	} else {
		p.saved = append(p.saved, b[:n]...)
	}
	return n, err
}

// Close does nothing: the server closes the body.
func (r *replayReader) Close() error { return nil }
