// Package oauth gets the auth tokens of a policy's streams from OAuth 2.0 token
// servers, and gets new ones before they expire.
//
// An entry of the policy's auth section says which streamtype asks for a token,
// and the index of the token. The streamtype says where the token server is, and
// is to send a body (http_method POST); what the body is, the program knows: the
// refresh request of RFC 6749 section 6, with whatever else the server wants.
//
//	memory := new(credentials.Memory)
//	memory.SetBlob(policy.BlobAuth, 1, "grant_type=refresh_token&refresh_token=…&client_id=…")
//	source := oauth.New(memory, oauth.Options{})
//	c, err := runtime.NewContext(policy, runtime.Options{Credentials: source, …})
//	…
//	err = source.Bind(c)
//
// As in lws (lib/secure-streams/system/auth-api.amazon.com of v5.0.0) auth token
// 1 is the body, and the streamtype api_amazon_com_auth gets token 0, if no
// entry says who else does. Other than there, nothing is asked for until a
// stream needs it, a new token replaces the old one when it is there as a
// whole, and no timer runs.
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

// rootIndex is the index of the auth token that is the body of a request.
const rootIndex = 1

// amazonStream is the streamtype that gets token 0 if no auth entry says which.
const amazonStream = "api_amazon_com_auth"

// maxAnswer is how many bytes the answer of a token server may have.
const maxAnswer = 64 << 10

// maxLifetime is the longest that a token is taken to be good for.
const maxLifetime = 365 * 24 * time.Hour

// How long to wait, after a request has failed, before the next.
const (
	minBackoff = time.Second
	maxBackoff = 5 * time.Minute
)

// Options are the settings of a source. The zero value is good.
type Options struct {
	// Request returns the body of the request for the auth token of an index.
	// It may be called by several goroutines at a time, for different indexes.
	// Nil means auth token 1 of the credentials inside.
	Request func(ctx context.Context, index int) (string, error)

	// Rotated is told the body of the next request, when the server has
	// answered with another refresh token than that in the one before (RFC 6749
	// section 6). It is for the program to keep: the old one may be worthless
	// by now. The body must be a form. It is called before the token is used.
	Rotated func(index int, request string)

	// Margin is how long before a token expires a new one is got, if a stream
	// needs it then; up to half of it more, at random, so that many devices do
	// not come at once. A token whose life is less than two of it has a margin
	// of half of that. 0 means a minute.
	Margin time.Duration

	// Timeout is how long a request may take, with all retries of the policy.
	// 0 means a minute.
	Timeout time.Duration
}

// A Source is [runtime.Credentials], those inside and besides the auth tokens
// that the policy says how to get. It may be used by many goroutines at a time,
// and by one context.
//
// Where the credentials inside have such a token, that is used, and no other is
// got. Else one that is there and good is used at once; if it is about to
// expire, a new one is got meanwhile. Streams that need one that is not there
// wait for the one request for it. When a request fails, attempts to connect
// that need the token fail with it, and there is no other for a time, which
// doubles each time from 1 s to 5 min.
type Source struct {
	inside runtime.Credentials
	o      Options

	mu     sync.Mutex
	c      func() *runtime.Context // nil: not bound; in a function, which fmt does not look into
	tokens map[int]*token
}

// A token is an auth token, and how it is got. The texts are in functions,
// which fmt does not look into.
type token struct {
	text    func() string // nil: none
	expires time.Time     // zero: never
	renew   time.Time     // when to get a new one; zero: never

	flight  *flight
	wait    time.Duration // after the last failure
	retry   time.Time     // not before
	failure error         // the last one, until a request succeeds

	root, request func() string // what the credentials inside had, and what it has become
}

// A flight is one request for a token.
type flight struct {
	done chan struct{} // closed when text and err are there
	text func() string
	err  error
}

// New returns a source. It has to be bound to a context. If inside is nil there are
// no other credentials, and Options.Request is needed.
func New(inside runtime.Credentials, o Options) *Source {
	if inside == nil {
		inside = credentials.Chain{}
	}
	if o.Margin <= 0 {
		o.Margin = time.Minute
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Minute
	}
	return &Source{inside: inside, o: o, tokens: make(map[int]*token)}
}

// Bind names the context whose streams get the tokens. Until then there are
// none. The error says what in the policy's auth section can not be done:
// a streamtype that there is not, one that needs the token that it is to get,
// or two for the same token.
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

// tokenOf returns the index of the auth token that a streamtype needs, or -1.
func tokenOf(st *policy.StreamType) int {
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
			return "", fmt.Errorf("sspolicy: oauth: auth %q and %q get the token of the same blob, %d, by different streamtypes, %q and %q", auth, a.Name, index, name, a.StreamType)
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
	case tokenOf(st) == index:
		return "", fmt.Errorf("sspolicy: oauth: streamtype %q is to get auth token %d, and needs it itself", name, index)
	}
	return name, nil
}

// ClientCertificate returns the certificate of the credentials inside.
func (s *Source) ClientCertificate(ctx context.Context, index int) (*tls.Certificate, error) {
	return s.inside.ClientCertificate(ctx, index)
}

// Blob returns a text: that of the credentials inside, if they have it, else an
// auth token, if the policy says how it is got. It waits for that until ctx is
// done.
func (s *Source) Blob(ctx context.Context, b policy.Blob, index int) (string, error) {
	text, err := s.inside.Blob(ctx, b, index)
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
	good := t.text != nil && !past(now, t.expires)
	due := !good || past(now, t.renew)
	if due && t.flight == nil && !now.Before(t.retry) {
		t.flight = &flight{done: make(chan struct{})}
		go s.get(s.c(), t, t.flight, streamtype, index)
	}
	f, held, failure := t.flight, t.text, t.failure
	s.mu.Unlock()
	switch {
	case good:
		return held(), nil
	case f == nil:
		return "", failure
	}
	select {
	case <-f.done:
		if f.err != nil {
			return "", f.err
		}
		return f.text(), nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// past reports whether it is t, or later, by either of the clocks: the monotonic
// one may stand still while the system sleeps, the other may be set back. A zero
// t is never.
func past(now, t time.Time) bool {
	return !t.IsZero() && (!now.Before(t) || !now.Round(0).Before(t.Round(0)))
}

// Forget gives the auth token of an index up, as when a server has refused it.
// The next attempt that needs it gets a new one.
func (s *Source) Forget(index int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tokens[index]; t != nil {
		t.text = nil
	}
}

// get makes one request for a token.
func (s *Source) get(c *runtime.Context, t *token, f *flight, streamtype string, index int) {
	ctx, cancel := context.WithTimeout(context.Background(), s.o.Timeout)
	defer cancel()
	a, err := s.ask(ctx, c, t, streamtype, index)
	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(f.done)
	t.flight = nil
	now := time.Now()
	if err != nil {
		t.wait = min(max(2*t.wait, minBackoff), maxBackoff)
		t.retry = now.Add(t.wait/2 + rand.N(t.wait/2))
		f.err = fmt.Errorf("sspolicy: oauth: streamtype %q: %w", streamtype, err)
		t.failure = f.err
		return
	}
	f.text = func() string { return a.token }
	t.text, t.wait, t.retry, t.failure = f.text, 0, time.Time{}, nil
	t.expires, t.renew = time.Time{}, time.Time{}
	if a.lifetime > 0 {
		margin := min(s.o.Margin, a.lifetime/2)
		t.expires = now.Add(a.lifetime)
		t.renew = t.expires.Add(-margin - rand.N(margin/2+1))
	}
}

// ask asks the token server. Its error holds nothing of what was sent or
// received. There is one call at a time for a token.
func (s *Source) ask(ctx context.Context, c *runtime.Context, t *token, streamtype string, index int) (answer, error) {
	request, err := s.request(ctx, t, index)
	if err != nil {
		return answer{}, err
	}
	began := time.Now()
	resp, err := c.Fetch(ctx, streamtype, runtime.WithBody([]byte(request)), runtime.WithLimit(maxAnswer))
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
	// It was made some time after it was asked for.
	if a.lifetime > 0 {
		a.lifetime = max(a.lifetime-time.Since(began), time.Second)
	}
	if next, ok := rotate(request, a.refresh); ok {
		s.mu.Lock()
		t.request = func() string { return next }
		s.mu.Unlock()
		if s.o.Rotated != nil {
			s.o.Rotated(index, next)
		}
	}
	return a, nil
}

// request returns the body of the next request.
func (s *Source) request(ctx context.Context, t *token, index int) (root string, err error) {
	if s.o.Request != nil {
		root, err = s.o.Request(ctx, index)
	} else {
		root, err = s.inside.Blob(ctx, policy.BlobAuth, rootIndex)
	}
	if err == nil && root == "" {
		err = runtime.ErrNoCredentials
	}
	if err != nil {
		return "", fmt.Errorf("what to ask the token server with: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.root == nil || t.root() != root { // the program has got another one
		t.root = func() string { return root }
		t.request = t.root
	}
	return t.request(), nil
}

// rotate returns a form with another refresh token in it, and whether there is
// anything to change.
func rotate(request, refresh string) (string, bool) {
	form, err := url.ParseQuery(request)
	if err != nil || refresh == "" || !form.Has("refresh_token") || form.Get("refresh_token") == refresh {
		return "", false
	}
	form.Set("refresh_token", refresh)
	return form.Encode(), true
}

// A RefusedError says that the token server was reached, and gave no token.
type RefusedError struct {
	// Code is the error of RFC 6749 section 5.2 that the server told, such as
	// "invalid_grant", where the user has to log in again; "" if it told none.
	Code   string
	Status int // of HTTP; 0 if the protocol has none
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

// errorCodes are those of RFC 6749 section 5.2. No other text is taken from an
// answer: it might quote what was sent.
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

// An answer is what a token server gave: RFC 6749 section 5.1.
type answer struct {
	token, refresh string
	lifetime       time.Duration // 0: not told
}

// ErrAnswer is why a request failed that was answered with something else than
// a token.
var ErrAnswer = errors.New("the answer is not the JSON of a token")

// parseAnswer reads an answer. An expires_in may be a string of digits, as some
// servers have it.
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
