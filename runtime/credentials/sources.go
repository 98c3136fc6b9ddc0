package credentials

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/secure-streams/sspolicy/internal/atomicfile"
	"github.com/secure-streams/sspolicy/internal/readfile"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// maxClientCert is the highest index of a client certificate: lws stores 1 + the index
// in 8 bits.
const maxClientCert = 254

// A pair has the names of a certificate and its private key in Env and Files. The zero
// pair names nothing.
type pair struct{ cert, key string }

// The names of pairs, before the dot.
const (
	clientCert, clientKey = "client_cert", "client_key"
	serverCert, serverKey = "server_cert", "server_key"
)

// clientPair returns the names of a client certificate, or the zero pair if the
// index is out of range.
func clientPair(index int) pair {
	if index < 0 || index > maxClientCert {
		return pair{}
	}
	suffix := "." + strconv.Itoa(index)
	return pair{clientCert + suffix, clientKey + suffix}
}

// serverPair returns the names of the certificate of a server streamtype, or the
// zero pair if its name cannot be part of a file name.
func serverPair(streamtype string) pair {
	if streamtype == "" || strings.ContainsAny(streamtype, "/\\:\x00") {
		return pair{}
	}
	return pair{serverCert + "." + streamtype, serverKey + "." + streamtype}
}

// Chain is a source that consists of several sources. The first one that does not
// return ErrNoCredentials decides: any other error ends the search, since later
// sources may be out of date.
type Chain []transport.Credentials

// Blob returns the text of the first source that has one, the error of a source before
// it, or ErrNoCredentials.
func (c Chain) Blob(ctx context.Context, b policy.Blob, index int) (string, error) {
	return first(c, func(source transport.Credentials) (string, error) { return source.Blob(ctx, b, index) })
}

// ClientCertificate returns the certificate of the first source that has one, the error
// of a source before it, or ErrNoCredentials.
func (c Chain) ClientCertificate(ctx context.Context, index int) (*tls.Certificate, error) {
	return first(c, func(source transport.Credentials) (*tls.Certificate, error) {
		return source.ClientCertificate(ctx, index)
	})
}

// ServerCertificate is like [Chain.ClientCertificate], for the certificate of a
// server streamtype.
func (c Chain) ServerCertificate(ctx context.Context, streamtype string) (*tls.Certificate, error) {
	return first(c, func(source transport.Credentials) (*tls.Certificate, error) {
		return source.ServerCertificate(ctx, streamtype)
	})
}

// first returns the result of the first source that does not return
// ErrNoCredentials.
func first[T comparable](c Chain, get func(transport.Credentials) (T, error)) (none T, _ error) {
	for _, source := range c {
		if v, err := get(source); err == nil && v != none || err != nil && !errors.Is(err, transport.ErrNoCredentials) {
			return v, err
		}
	}
	return none, transport.ErrNoCredentials
}

// HexAuth is a source that returns the credentials of another one, with auth tokens
// encoded in hexadecimal. lws's documentation calls it auth_hexify, a key that no
// version of lws reads.
type HexAuth struct{ transport.Credentials }

// Blob returns a text of the other source, encoded if it is an auth token.
func (h HexAuth) Blob(ctx context.Context, b policy.Blob, index int) (string, error) {
	text, err := h.Credentials.Blob(ctx, b, index)
	if err == nil && b == policy.BlobAuth {
		text = hex.EncodeToString([]byte(text))
	}
	return text, err
}

// BasicAuth returns the token of HTTP basic authentication (RFC 7617) for a user
// and password. It is an auth token for a policy with "http_auth_header":
// "authorization:" and "http_auth_preamble": "Basic ". The error wraps
// ErrBadCredentials if user contains a colon, or either contains a control
// character.
func BasicAuth(user, password string) (string, error) {
	if strings.Contains(user, ":") || strings.ContainsFunc(user+password, policy.IsControl) {
		return "", fmt.Errorf("sspolicy: basic auth: %w: colon in the user, or control character", transport.ErrBadCredentials)
	}
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password)), nil
}

// Env is a source that reads environment variables, each time a credential is
// requested. The name of a variable is Prefix and the name of the text
// ([policy.Blob.Name]) in capitals, with "_" in place of all characters except
// letters and digits: with the prefix "SSPOLICY_" the first auth token is
// SSPOLICY_AUTH_0. A client certificate and its chain are in
// SSPOLICY_CLIENT_CERT_0, and its private key in SSPOLICY_CLIENT_KEY_0, both in
// PEM; those of the server streamtype "web" are in SSPOLICY_SERVER_CERT_WEB and
// SSPOLICY_SERVER_KEY_WEB. An empty variable counts as missing. An Env must not be
// copied after first use.
type Env struct {
	Prefix string

	certs certCache
}

// get returns the variable for a name in lower case.
func (e *Env) get(name string) (string, error) {
	if name == "" {
		return "", transport.ErrNoCredentials
	}
	text := os.Getenv(e.Prefix + strings.Map(variableRune, name))
	if text == "" {
		return "", transport.ErrNoCredentials
	}
	return text, nil
}

// variableRune returns the replacement for r in the name of a variable.
func variableRune(r rune) rune {
	switch {
	case 'a' <= r && r <= 'z':
		return r - 'a' + 'A'
	case 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
		return r
	}
	return '_'
}

// Blob returns the text of a variable, or ErrNoCredentials.
func (e *Env) Blob(_ context.Context, b policy.Blob, index int) (string, error) {
	return e.get(b.Name(index))
}

// ClientCertificate returns the certificate of two variables. The error wraps
// ErrNoCredentials if both are missing, or ErrBadCredentials if they do not hold a
// certificate and its key.
func (e *Env) ClientCertificate(_ context.Context, index int) (*tls.Certificate, error) {
	return e.certs.get(clientPair(index), e.bytes)
}

// ServerCertificate is like [Env.ClientCertificate], for the certificate of a
// server streamtype.
func (e *Env) ServerCertificate(_ context.Context, streamtype string) (*tls.Certificate, error) {
	return e.certs.get(serverPair(streamtype), e.bytes)
}

func (e *Env) bytes(name string) ([]byte, error) {
	text, err := e.get(name)
	return []byte(text), err
}

// maxFileSize is the maximum size of a file in bytes.
const maxFileSize = 256 << 10

// Files is a source that reads the files of a directory. The name of a file is the
// name of the text ([policy.Blob.Name]), such as auth.0 or device_serial. Trailing
// line breaks are not part of the text. A client certificate is in client_cert.0 to
// client_cert.254, with its chain if in PEM, and the private key in client_key.0
// and so on, both in PEM or DER; those of the server streamtype "web" are in
// server_cert.web and server_key.web. Each is a regular file of at most 256 KiB.
//
// A file is read each time a credential is requested, so new contents apply to the
// next attempt to connect. Replace a file by renaming another one to it: an attempt
// fails if a file is half written, or if a certificate and its key do not match. A
// Files must not be copied after first use.
type Files struct {
	Dir string

	certs certCache
}

// Blob returns the text of a file. The error wraps ErrNoCredentials if there is no such
// file, ErrBadCredentials if it is too large or not a regular file, or the error of
// reading it.
func (f *Files) Blob(_ context.Context, b policy.Blob, index int) (string, error) {
	text, err := f.read(b.Name(index))
	return strings.TrimRight(string(text), "\r\n"), err
}

// ClientCertificate returns the certificate of two files. The error wraps
// ErrNoCredentials if both are missing, ErrBadCredentials if they do not hold a
// certificate and its key, or the error of reading them.
func (f *Files) ClientCertificate(_ context.Context, index int) (*tls.Certificate, error) {
	return f.certs.get(clientPair(index), f.read)
}

// ServerCertificate is like [Files.ClientCertificate], for the certificate of a
// server streamtype.
func (f *Files) ServerCertificate(_ context.Context, streamtype string) (*tls.Certificate, error) {
	return f.certs.get(serverPair(streamtype), f.read)
}

// read returns the contents of a file.
func (f *Files) read(name string) ([]byte, error) {
	if name == "" || f.Dir == "" {
		return nil, transport.ErrNoCredentials
	}
	path := filepath.Join(f.Dir, name)
	text, err := readfile.Regular(path, maxFileSize)
	_, tooLarge := errors.AsType[*readfile.TooLargeError](err)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, transport.ErrNoCredentials
	case tooLarge || errors.Is(err, readfile.ErrNotRegular):
		return nil, fmt.Errorf("%w: %w", transport.ErrBadCredentials, err)
	}
	return text, err
}

// SetBlob writes the file of a text, for later attempts. It replaces the file
// atomically, with mode 0600. It is for credentials that the program receives and
// must keep, such as a refresh token. The error wraps ErrNoCredentials if the text
// has no file name; it is an *fs.PathError if the file cannot be written.
func (f *Files) SetBlob(b policy.Blob, index int, text string) error {
	name := b.Name(index)
	if name == "" || f.Dir == "" {
		return fmt.Errorf("sspolicy: set %v %d: %w: no file has that text", b, index, transport.ErrNoCredentials)
	}
	return atomicfile.WritePrivate(filepath.Join(f.Dir, name), []byte(text+"\n"))
}

// Exposed returns the paths of the files in Dir that contain a secret and that
// users other than the owner may read, so that a program can warn about them. On
// Windows, which has no such permission bits, it returns none.
func (f *Files) Exposed() []string {
	var exposed []string
	if runtime.GOOS == "windows" {
		return nil
	}
	entries, _ := os.ReadDir(f.Dir)
	for _, e := range entries {
		name := e.Name()
		if _, _, ok := policy.ParseBlob(name); !ok && !strings.HasPrefix(name, clientKey+".") && !strings.HasPrefix(name, serverKey+".") {
			continue
		}
		path := filepath.Join(f.Dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o044 != 0 {
			exposed = append(exposed, path)
		}
	}
	return exposed
}

// A certCache keeps parsed certificates, so that an unchanged text yields the same
// certificate, and connections made with it are kept.
type certCache struct {
	mu    sync.Mutex
	certs map[pair]parsedCert
}

// A parsedCert is a certificate and the hash of the texts that it was parsed from.
type parsedCert struct {
	hash [sha256.Size]byte
	cert hiddenCert
}

// get returns the certificate of a pair, whose texts read returns.
func (c *certCache) get(names pair, read func(name string) ([]byte, error)) (*tls.Certificate, error) {
	chain, err := read(names.cert)
	key, keyErr := read(names.key)
	switch none, noKey := errors.Is(err, transport.ErrNoCredentials), errors.Is(keyErr, transport.ErrNoCredentials); {
	case none && noKey:
		return nil, transport.ErrNoCredentials
	case none && keyErr == nil:
		return nil, fmt.Errorf("%w: %s without %s", transport.ErrBadCredentials, names.key, names.cert)
	case noKey && err == nil:
		return nil, fmt.Errorf("%w: %s without %s", transport.ErrBadCredentials, names.cert, names.key)
	}
	if err := errors.Join(err, keyErr); err != nil {
		return nil, err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%d ", len(chain))
	h.Write(chain)
	h.Write(key)
	hash := [sha256.Size]byte(h.Sum(nil))
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.certs[names]; p.cert != nil && p.hash == hash {
		return p.cert(), nil
	}
	cert, err := parseCert(names, chain, key)
	if err != nil {
		return nil, err
	}
	if c.certs == nil {
		c.certs = make(map[pair]parsedCert)
	}
	c.certs[names] = parsedCert{hash, hide(cert)}
	return cert, nil
}

// parseCert parses a chain and a private key, each in PEM or DER. The error wraps
// ErrBadCredentials and does not quote them.
func parseCert(names pair, chain, key []byte) (*tls.Certificate, error) {
	ders := pemBlocks(chain, func(kind string) bool { return kind == "CERTIFICATE" })
	if ders == nil {
		ders = [][]byte{chain}
	}
	leaf, err := x509.ParseCertificate(ders[0])
	if err != nil {
		return nil, fmt.Errorf("%w: %s is not a certificate in PEM or DER", transport.ErrBadCredentials, names.cert)
	}
	if keys := pemBlocks(key, func(kind string) bool { return strings.HasSuffix(kind, "PRIVATE KEY") }); keys != nil {
		key = keys[0]
	}
	cert := &tls.Certificate{Certificate: ders, Leaf: leaf}
	if cert.PrivateKey, err = transport.ParsePrivateKey(key); err != nil {
		return nil, fmt.Errorf("%w: %s is not an unencrypted private key in PEM or DER", transport.ErrBadCredentials, names.key)
	}
	return cert, transport.CheckKeyPair(cert)
}

// pemBlocks returns the contents of the PEM blocks whose type satisfies kind.
func pemBlocks(text []byte, kind func(string) bool) (blocks [][]byte) {
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return blocks
		}
		if kind(block.Type) {
			blocks = append(blocks, slices.Clip(block.Bytes))
		}
		text = rest
	}
}
