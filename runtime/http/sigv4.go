package http

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// Signature Version 4 follows "Create a signed AWS API request" of the AWS IAM User
// Guide. AWS's own library would add two modules and 110 KB.

const (
	sigv4Algorithm = "AWS4-HMAC-SHA256"
	sigv4Time      = "20060102T150405Z"
	unsigned       = "UNSIGNED-PAYLOAD"

	amzDate   = "X-Amz-Date"
	amzHash   = "X-Amz-Content-Sha256"
	amzToken  = "X-Amz-Security-Token"
	authorize = "Authorization"
)

// emptyHash is the hash of an empty payload.
var emptyHash = hashOf(nil)

// maxHashed is the size limit of a body that is hashed before it is sent. Most
// services accept less.
const maxHashed = 1 << 20

// A signer signs the requests of a streamtype.
type signer interface {
	sign(context.Context, transport.Link, *http.Request) error
}

// SigV4 is an [Option] that signs the requests of streamtypes whose use_auth is of
// type sigv4. Generated files pass it to [New] if the policy has such streamtypes.
// It makes a program 32 KB larger.
func SigV4(t *Transport) {
	t.signer = func(s *transport.Setup) (signer, error) { return newSigV4(s) }
}

// newSigner returns the signer of a streamtype, or nil if its requests are not
// signed.
func (t *Transport) newSigner(s *transport.Setup) (signer, error) {
	st := s.Stream
	switch {
	case st.Auth == nil || st.Auth.Type != policy.AuthSigV4:
		return nil, nil
	case t.signer == nil:
		return nil, fmt.Errorf("%w: use_auth of type %s: pass the option SigV4 of package github.com/secure-streams/sspolicy/runtime/http to New", transport.ErrUnsupported, st.Auth.Type)
	}
	return t.signer(s)
}

// A sigV4 is the signer of a streamtype.
type sigV4 struct {
	setup           *transport.Setup
	region, service int // metadata items
}

func newSigV4(setup *transport.Setup) (*sigV4, error) {
	st := setup.Stream
	s := &sigV4{setup: setup}
	for _, k := range []struct {
		key, name string
		item      *int
	}{{"aws_region", st.AWSRegion, &s.region}, {"aws_service", st.AWSService, &s.service}} {
		*k.item = slices.IndexFunc(st.Metadata, func(m policy.Metadata) bool { return m.Name == k.name })
		switch {
		case k.name == "":
			return nil, fmt.Errorf("%w: use_auth of type sigv4 without %s", transport.ErrUnsupported, k.key)
		case *k.item < 0:
			return nil, fmt.Errorf("%w: %s %q: it must name a metadata item of the streamtype", policy.ErrUnknownMetadata, k.key, k.name)
		}
	}
	return s, nil
}

// sign signs a request. It sets the time and the hash unless the program has set
// them; for the hash it may read the body.
func (s *sigV4) sign(ctx context.Context, l transport.Link, req *http.Request) error {
	k, err := s.key(ctx, l)
	if err != nil {
		return err
	}
	h := req.Header.Clone()
	req.Header = h
	if k.token != "" {
		if h[amzToken] != nil {
			return &HeaderError{Header: amzToken, Reason: "there are both metadata and a credential for it"}
		}
		h[amzToken] = []string{k.token}
	}
	if h[amzDate] == nil {
		h[amzDate] = []string{time.Now().UTC().Format(sigv4Time)}
	} else if _, err := time.Parse(sigv4Time, h.Get(amzDate)); err != nil || len(h[amzDate]) > 1 {
		return &HeaderError{Header: amzDate, Reason: "it is not a time like " + sigv4Time}
	}
	if h[amzHash] == nil {
		hash, err := hashBody(req, k.raw && req.URL.Scheme == "https", s.setup.Stream.HTTP.NoContentLength)
		if err != nil {
			return err
		}
		h[amzHash] = []string{hash}
	}
	// Send the URL in the form that is signed: some servers read "+" as a space,
	// and S3 escapes more than a URL requires.
	target := req.URL.RequestURI()
	path, query, hasQuery := strings.Cut(target, "?")
	if k.raw {
		path = canonicalPath(path, true)
	}
	if hasQuery {
		path += "?" + unambiguousQuery(query)
	}
	if path != target {
		req.URL = &url.URL{Scheme: req.URL.Scheme, Host: req.URL.Host, Opaque: path}
	}
	h[authorize] = []string{k.authorization(req.Method, path, req.Host, h, signsHeader)}
	return nil
}

// unambiguousQuery returns a query that every server decodes alike: "+" is a space, and
// "%" stands for itself unless it begins an escape.
func unambiguousQuery(query string) string {
	query = strings.ReplaceAll(query, "+", "%20")
	var b strings.Builder
	for i := range len(query) {
		b.WriteByte(query[i])
		if query[i] == '%' && !(i+2 < len(query) && isHex(query[i+1]) && isHex(query[i+2])) {
			b.WriteString("25")
		}
	}
	return b.String()
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// signsHeader reports whether a header is signed: x-amz- headers as in lws, and
// Content-Type as AWS requires.
func signsHeader(name string) bool {
	return name == "Content-Type" || strings.HasPrefix(name, "X-Amz-")
}

// key returns the signing key of a request.
func (s *sigV4) key(ctx context.Context, l transport.Link) (*signingKey, error) {
	k := new(signingKey)
	for _, m := range []struct {
		item int
		key  string
		to   *string
	}{{s.region, "aws_region", &k.region}, {s.service, "aws_service", &k.service}} {
		*m.to, _ = l.Metadata(m.item)
		if !isScope(*m.to) {
			return nil, fmt.Errorf("sspolicy: sigv4: the metadata named by %s must be set to letters, digits and -", m.key)
		}
	}
	k.raw = k.service == "s3"
	blob := int(s.setup.Stream.Auth.Blob)
	var err error
	if k.id, err = s.setup.Secret(ctx, policy.BlobAWSKeyID, blob); err != nil {
		return nil, err
	}
	if !isScope(k.id) {
		return nil, fmt.Errorf("sspolicy: sigv4: %w: an AWS key id must consist of letters and digits", transport.ErrBadCredentials)
	}
	if k.secret, err = s.setup.Secret(ctx, policy.BlobAWSSecret, blob); err != nil {
		return nil, err
	}
	if k.token, err = s.setup.Secret(ctx, policy.BlobAWSSessionToken, blob); err != nil && !errors.Is(err, transport.ErrNoCredentials) {
		return nil, err
	}
	return k, nil
}

// isScope reports whether s is valid in the scope of a signature.
func isScope(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 || !unreserved(byte(r)) })
}

// hashBody returns the hash of a request's body, which it reads into memory, unless
// the body may stay unsigned.
func hashBody(req *http.Request, mayBeUnsigned, noLength bool) (string, error) {
	switch {
	case req.Body == nil || req.Body == http.NoBody:
		return emptyHash, nil
	case mayBeUnsigned:
		return unsigned, nil
	case req.ContentLength > maxHashed:
		return "", errTooLongToHash
	}
	body, err := io.ReadAll(io.LimitReader(req.Body, maxHashed+1))
	if err == nil && len(body) > maxHashed {
		err = errTooLongToHash
	}
	req.Body.Close()
	if err != nil {
		return "", err
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	if len(body) == 0 {
		req.Body = http.NoBody
	}
	if !noLength {
		req.ContentLength = int64(len(body))
	}
	return hashOf(body), nil
}

var errTooLongToHash = fmt.Errorf("sspolicy: sigv4: the message has more than %d bytes: map metadata to %s, and set it to the SHA-256 of the message or to a value that the service accepts instead", maxHashed, strings.ToLower(amzHash))

// A signingKey holds the values that sign a request.
type signingKey struct {
	id, secret, token string
	region, service   string
	raw               bool // the path is not normalized (S3)
}

// authorization returns the value of the Authorization header. It signs the host and
// the headers for which signs returns true. h must have the time and the hash.
func (k *signingKey) authorization(method, target, host string, h http.Header, signs func(name string) bool) string {
	values := map[string]string{"host": host}
	for name, v := range h {
		if signs(name) {
			values[strings.ToLower(name)] = canonicalValue(v)
		}
	}
	names := slices.Sorted(maps.Keys(values))
	signed := strings.Join(names, ";")
	p, query, _ := strings.Cut(target, "?")

	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n%s\n", method, canonicalPath(p, k.raw), canonicalQuery(query))
	for _, name := range names {
		fmt.Fprintf(&b, "%s:%s\n", name, values[name])
	}
	fmt.Fprintf(&b, "\n%s\n%s", signed, h.Get(amzHash))

	at := h.Get(amzDate)
	scope := at[:len("20060102")] + "/" + k.region + "/" + k.service + "/aws4_request"
	key := []byte("AWS4" + k.secret)
	for part := range strings.SplitSeq(scope, "/") {
		key = hmacOf(key, part)
	}
	signature := hmacOf(key, sigv4Algorithm+"\n"+at+"\n"+scope+"\n"+hashOf([]byte(b.String())))
	return fmt.Sprintf("%s Credential=%s/%s, SignedHeaders=%s, Signature=%x", sigv4Algorithm, k.id, scope, signed, signature)
}

// canonicalPath returns the path to sign: for S3 (raw) the decoded path, for other
// services the path as sent, without ".", ".." and empty segments.
func canonicalPath(p string, raw bool) string {
	if !raw {
		slash := strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.") || strings.HasSuffix(p, "/..")
		if p = path.Clean("/" + p); slash && p != "/" {
			p += "/"
		}
	}
	segments := strings.Split(p, "/")
	for i, s := range segments {
		if raw {
			s = unescape(s)
		}
		segments[i] = escape(s)
	}
	return strings.Join(segments, "/")
}

// canonicalQuery returns the query to sign: sorted, with uniform escapes.
func canonicalQuery(query string) string {
	var pairs []string
	for pair := range strings.SplitSeq(query, "&") {
		if pair != "" {
			name, value, _ := strings.Cut(pair, "=")
			pairs = append(pairs, escape(unescape(name))+"="+escape(unescape(value)))
		}
	}
	// Sort by name and then by value: as a byte, "=" sorts after "-", "." and "%".
	slices.SortFunc(pairs, func(a, b string) int {
		return strings.Compare(strings.Replace(a, "=", "\x00", 1), strings.Replace(b, "=", "\x00", 1))
	})
	return strings.Join(pairs, "&")
}

// canonicalValue returns the value of a header to sign.
func canonicalValue(values []string) string {
	trimmed := make([]string, len(values))
	for i, v := range values {
		trimmed[i] = strings.Join(strings.FieldsFunc(v, func(r rune) bool { return r == ' ' || r == '\t' || r == '\n' }), " ")
	}
	return strings.Join(trimmed, ",")
}

func unreserved(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || b == '-' || b == '.' || b == '_' || b == '~'
}

// escape escapes all bytes that are not unreserved (RFC 3986 section 2.3).
func escape(s string) string {
	const digits = "0123456789ABCDEF"
	b := make([]byte, 0, len(s))
	for i := range len(s) {
		if c := s[i]; unreserved(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return string(b)
}

// unescape decodes escapes. It returns text with an invalid escape unchanged.
func unescape(s string) string {
	if t, err := url.PathUnescape(s); err == nil {
		return t
	}
	return s
}

func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func hmacOf(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
