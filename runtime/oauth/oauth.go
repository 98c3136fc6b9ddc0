// Package oauth gets the auth tokens of a policy's streams from OAuth 2.0 token
// servers, and renews them before they expire.
//
// An entry of the policy's auth section names the index of a token and the
// streamtype that gets it. The streamtype names the token server and must send a
// body (http_method POST). The program provides the body: the refresh request of
// RFC 6749 section 6, with any further fields that the server needs.
//
//	memory := new(credentials.Memory)
//	memory.SetBlob(policy.BlobAuth, 1, "grant_type=refresh_token&refresh_token=…&client_id=…")
//	source := oauth.New(memory, oauth.Options{})
//	c, err := runtime.NewContext(policy, runtime.Options{Credentials: source, …})
//	…
//	err = source.Bind(c)
//
// As in lws 5.0.0 (lib/secure-streams/system/auth-api.amazon.com) auth token 1 is
// the body, and the streamtype api_amazon_com_auth gets token 0 if no entry names
// another one. Unlike lws, it requests a token only when a stream needs it,
// replaces the old token only when the new one is complete, and runs no timer.
package oauth

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/credentials"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// rootIndex is the index of the auth token that is the body of requests.
const rootIndex = 1

// amazonStream is the streamtype that gets token 0 if no auth entry names one.
const amazonStream = "api_amazon_com_auth"

// maxAnswer is the maximum size of a token server's answer, in bytes.
const maxAnswer = 64 << 10

// maxLifetime limits the lifetime of tokens.
const maxLifetime = 365 * 24 * time.Hour

// The limits of the wait after a failed request.
const (
	minBackoff = time.Second
	maxBackoff = 5 * time.Minute
)

// Options configure a [Source]. The zero value is ready to use.
type Options struct {
	// Request returns the body of the request for the auth token of an index. Calls
	// for different indexes may overlap. Nil means auth token 1 of the credentials
	// passed to New.
	Request func(ctx context.Context, index int) (string, error)

	// Rotated is called with the body of the next request if the server has
	// answered with a new refresh token (RFC 6749 section 6). The program should
	// store the body, since the old token may be invalid. Only form bodies support
	// this. Rotated is called before the token is used.
	Rotated func(index int, request string)

	// Margin is the time before the expiry of a token at which a stream that needs
	// the token also renews it. Up to half of Margin is added at random, so that
	// many devices do not renew at once. Margin is limited to half the lifetime of
	// the token. 0 means a minute.
	Margin time.Duration

	// Timeout is the time limit of a request, including retries of the policy. 0
	// means a minute.
	Timeout time.Duration
}

// A Source implements [runtime.Credentials]. It adds the tokens of the policy's
// auth section to other credentials, the base. It is safe for concurrent use. It
// serves one context.
//
// A token in the base is used unchanged. Otherwise a valid token is used at once,
// and renewed in the background if it is about to expire. Streams that need a
// missing token wait for one common request. If the request fails, their attempts
// to connect fail with its error, and the next request is delayed, from 1 s after
// the first failure to 5 min.
type Source struct {
	base runtime.Credentials
	o    Options

	mu     sync.Mutex
	c      func() *runtime.Context // nil before Bind; a function, so that fmt does not print the context
	tokens map[int]*token
}

// A token is an auth token. Secrets are in functions, so that fmt does not print
// them.
type token struct {
	text    func() string // nil if there is none
	expires time.Time     // zero means never
	renew   time.Time     // when to request a new token; zero means never

	request *request      // running request, or nil
	wait    time.Duration // after the latest failure
	retry   time.Time     // the earliest time of the next request
	failure error         // the latest one, until a request succeeds

	// The body of the next request, and the program's body from which it is
	// derived.
	body, root func() string
}

// A request is one request for a token.
type request struct {
	done chan struct{} // closed when text or err is set
	text func() string
	err  error
}

// New returns a source, which needs Bind. A nil base means no other credentials;
// the source then needs Options.Request.
func New(base runtime.Credentials, o Options) *Source {
	if base == nil {
		base = credentials.Chain{}
	}
	if o.Margin <= 0 {
		o.Margin = time.Minute
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Minute
	}
	return &Source{base: base, o: o, tokens: make(map[int]*token)}
}

// Bind sets the context whose streams get the tokens. Until then there are none. It
// returns an error if the auth section names a streamtype that does not exist, one
// that needs the token that it must get, or two for the same token.
func (s *Source) Bind(c *runtime.Context) error {
	for index := range 4 {
		if _, err := getter(c.Policy(), index); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c != nil && s.c() != c {
		return errors.New("sspolicy: oauth: the source is bound to another context")
	}
	s.c = func() *runtime.Context { return c }
	return nil
}

// tokenIndex returns the index of the auth token that a streamtype needs, or -1.
func tokenIndex(st *policy.StreamType) int {
	switch {
	case st.Auth != nil && st.Auth.Type != policy.AuthSigV4:
		return int(st.Auth.Blob)
	case st.HTTP != nil && st.HTTP.AuthHeader != "":
		return 0
	}
	return -1
}

// getter returns the name of the streamtype that gets the auth token of an
// index, or "" if there is none.
func getter(p *policy.Policy, index int) (string, error) {
	name, auth := "", ""
	for _, st := range p.StreamTypes {
		a := st.Auth
		if a == nil || a.StreamType == "" || a.Type == policy.AuthSigV4 || int(a.Blob) != index {
			continue
		}
		if name != "" && name != a.StreamType {
			return "", fmt.Errorf("sspolicy: oauth: auth %q and %q get the same token, blob %d, by different streamtypes, %q and %q", auth, a.Name, index, name, a.StreamType)
		}
		name, auth = a.StreamType, a.Name
	}
	if name == "" && index == 0 && p.StreamType(amazonStream) != nil {
		name = amazonStream
	}
	if name == "" {
		return "", nil
	}
	st := p.StreamType(name)
	switch {
	case st == nil:
		return "", fmt.Errorf("sspolicy: oauth: auth %q: the policy has no streamtype %q", auth, name)
	case tokenIndex(st) == index:
		return "", fmt.Errorf("sspolicy: oauth: streamtype %q needs auth token %d, which it must get", name, index)
	}
	return name, nil
}

// ClientCertificate returns the certificate of the base.
func (s *Source) ClientCertificate(ctx context.Context, index int) (*tls.Certificate, error) {
	return s.base.ClientCertificate(ctx, index)
}

// ServerCertificate returns the certificate of the base.
func (s *Source) ServerCertificate(ctx context.Context, streamtype string) (*tls.Certificate, error) {
	return s.base.ServerCertificate(ctx, streamtype)
}

// Blob returns a text of the base or, if it has none, an auth token for which the
// policy names a streamtype. It waits for the token until ctx is done.
func (s *Source) Blob(ctx context.Context, b policy.Blob, index int) (string, error) {
	text, err := s.base.Blob(ctx, b, index)
	if err == nil && text != "" || err != nil && !errors.Is(err, runtime.ErrNoCredentials) || b != policy.BlobAuth {
		return text, err
	}
	s.mu.Lock()
	if s.c == nil {
		s.mu.Unlock()
		return "", runtime.ErrNoCredentials
	}
	streamtype, err := getter(s.c().Policy(), index)
	if err != nil || streamtype == "" {
		s.mu.Unlock()
		if err == nil {
			err = runtime.ErrNoCredentials
		}
		return "", err
	}
	t := s.tokens[index]
	if t == nil {
		t = new(token)
		s.tokens[index] = t
	}
	now := time.Now()
	valid := t.text != nil && !past(now, t.expires)
	due := !valid || past(now, t.renew)
	if due && t.request == nil && !now.Before(t.retry) {
		t.request = &request{done: make(chan struct{})}
		go s.get(s.c(), t, t.request, streamtype, index)
	}
	r, current, failure := t.request, t.text, t.failure
	s.mu.Unlock()
	switch {
	case valid:
		return current(), nil
	case r == nil:
		return "", failure
	}
	select {
	case <-r.done:
		if r.err != nil {
			return "", r.err
		}
		return r.text(), nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// past reports whether now is t or later, by either clock: the monotonic clock may
// stop while the system sleeps, and the wall clock may be set back. A zero t means
// never.
func past(now, t time.Time) bool {
	return !t.IsZero() && (!now.Before(t) || !now.Round(0).Before(t.Round(0)))
}

// Forget drops the auth token of an index, for example because a server has
// rejected it. The next attempt that needs the token requests a new one.
func (s *Source) Forget(index int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tokens[index]; t != nil {
		t.text = nil
	}
}

// get makes a request for a token.
func (s *Source) get(c *runtime.Context, t *token, r *request, streamtype string, index int) {
	ctx, cancel := context.WithTimeout(context.Background(), s.o.Timeout)
	defer cancel()
	a, err := s.fetch(ctx, c, t, streamtype, index)
	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(r.done)
	t.request = nil
	now := time.Now()
	if err != nil {
		t.wait = min(max(2*t.wait, minBackoff), maxBackoff)
		t.retry = now.Add(t.wait/2 + rand.N(t.wait/2))
		r.err = fmt.Errorf("sspolicy: oauth: streamtype %q: %w", streamtype, err)
		t.failure = r.err
		return
	}
	r.text = func() string { return a.token }
	t.text, t.wait, t.retry, t.failure = r.text, 0, time.Time{}, nil
	t.expires, t.renew = time.Time{}, time.Time{}
	if a.lifetime > 0 {
		margin := min(s.o.Margin, a.lifetime/2)
		t.expires = now.Add(a.lifetime)
		t.renew = t.expires.Add(-margin - rand.N(margin/2+1))
	}
}

// fetch requests a token from the token server. The error contains no data that was
// sent or received. Calls for the same token do not overlap.
func (s *Source) fetch(ctx context.Context, c *runtime.Context, t *token, streamtype string, index int) (answer, error) {
	body, err := s.body(ctx, t, index)
	if err != nil {
		return answer{}, err
	}
	start := time.Now()
	resp, err := c.Fetch(ctx, streamtype, runtime.WithBody([]byte(body)), runtime.WithLimit(maxAnswer))
	if nack, ok := errors.AsType[*runtime.NackError](err); ok {
		return answer{}, &RefusedError{Code: errorCode(nack.Response.Body), Status: nack.Status}
	}
	if err != nil {
		return answer{}, err
	}
	a, err := parseAnswer(resp.Body)
	if err != nil {
		return answer{}, err
	}
	// The lifetime began no earlier than start.
	if a.lifetime > 0 {
		a.lifetime = max(a.lifetime-time.Since(start), time.Second)
	}
	if next, ok := rotate(body, a.refresh); ok {
		s.mu.Lock()
		t.body = func() string { return next }
		s.mu.Unlock()
		if s.o.Rotated != nil {
			s.o.Rotated(index, next)
		}
	}
	return a, nil
}

// body returns the body of the next request.
func (s *Source) body(ctx context.Context, t *token, index int) (root string, err error) {
	if s.o.Request != nil {
		root, err = s.o.Request(ctx, index)
	} else {
		root, err = s.base.Blob(ctx, policy.BlobAuth, rootIndex)
	}
	if err == nil && root == "" {
		err = runtime.ErrNoCredentials
	}
	if err != nil {
		return "", fmt.Errorf("body of the token request: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.root == nil || t.root() != root { // the program has changed it
		t.root = func() string { return root }
		t.body = t.root
	}
	return t.body(), nil
}

// rotate returns a form with a new refresh token. It returns false if the form does
// not change.
func rotate(body, refresh string) (string, bool) {
	form, err := url.ParseQuery(body)
	if err != nil || refresh == "" || !form.Has("refresh_token") || form.Get("refresh_token") == refresh {
		return "", false
	}
	form.Set("refresh_token", refresh)
	return form.Encode(), true
}

// A RefusedError is returned when the token server has answered without a token.
type RefusedError struct {
	// Code is the error code of the server (RFC 6749 section 5.2), or "". After
	// "invalid_grant" the user has to log in again.
	Code   string
	Status int // HTTP status; 0 with other protocols
}

func (e *RefusedError) Error() string {
	text := "the token server refused"
	switch {
	case e.Code != "":
		text += ": " + e.Code
	case e.Status != 0:
		text += fmt.Sprintf(": status %d", e.Status)
	}
	return text
}

// errorCodes are the codes of RFC 6749 section 5.2. No other text of an answer is
// used, since it might quote the request.
var errorCodes = []string{"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope"}

func errorCode(body []byte) string {
	var a struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &a) != nil || !slices.Contains(errorCodes, a.Error) {
		return ""
	}
	return a.Error
}

// An answer is the answer of a token server (RFC 6749 section 5.1).
type answer struct {
	token, refresh string
	lifetime       time.Duration // 0 means unknown
}

// ErrAnswer is returned when the token server has accepted the request but its
// answer contains no token.
var ErrAnswer = errors.New("the answer contains no token")

// parseAnswer parses an answer. It accepts a string as expires_in, as some servers
// send it.
func parseAnswer(body []byte) (answer, error) {
	var a struct {
		Token   string          `json:"access_token"`
		Refresh string          `json:"refresh_token"`
		Expires json.RawMessage `json:"expires_in"`
	}
	if json.Unmarshal(body, &a) != nil || a.Token == "" {
		return answer{}, ErrAnswer
	}
	r := answer{token: a.Token, refresh: a.Refresh}
	if text := string(a.Expires); text != "" && text != "null" {
		if unquoted, err := strconv.Unquote(text); err == nil {
			text = unquoted
		}
		seconds, err := strconv.ParseFloat(text, 64)
		if err != nil || !(seconds > 0) {
			return answer{}, fmt.Errorf("%w: expires_in", ErrAnswer)
		}
		r.lifetime = maxLifetime
		if seconds < maxLifetime.Seconds() {
			r.lifetime = max(time.Duration(seconds*float64(time.Second)), 1)
		}
	}
	return r, nil
}
