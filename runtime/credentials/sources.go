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
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/secure-streams/sspolicy/internal/atomicfile"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// maxClientCert is the highest index of a client certificate: a policy's
// client_cert has 8 bits.
const maxClientCert = 254

// certName returns what the sources call one half of a client certificate, or
// "" if there is no such index.
func certName(half string, index int) string {
	if index < 0 || index > maxClientCert {
		return ""
	}
	return half + "." + strconv.Itoa(index)
}

const certHalf, keyHalf = "client_cert", "client_key"

// Chain are [Credentials] of several sources: the first that has
// what is asked for gives it. A source that fails ends the search, for the ones
// behind it may hold what is out of date.
type Chain []transport.Credentials

// Blob returns the text of the first source that has it, else ErrNoCredentials.
func (c Chain) Blob(ctx context.Context, b policy.Blob, index int) (string, error) {
	for _, source := range c {
		if text, err := source.Blob(ctx, b, index); err == nil && text != "" || err != nil && !errors.Is(err, transport.ErrNoCredentials) {
			return text, err
		}
	}
	return "", transport.ErrNoCredentials
}

// ClientCertificate returns the certificate of the first source that has it,
// else ErrNoCredentials.
func (c Chain) ClientCertificate(ctx context.Context, index int) (*tls.Certificate, error) {
	for _, source := range c {
		if cert, err := source.ClientCertificate(ctx, index); err == nil && cert != nil || err != nil && !errors.Is(err, transport.ErrNoCredentials) {
			return cert, err
		}
	}
	return nil, transport.ErrNoCredentials
}

// HexAuth are [Credentials] like those inside, but for the auth tokens, which
// are the bytes of those inside as hex digits, two a byte. It is what lws's
// documentation means by auth_hexify, a key that no version of lws reads.
type HexAuth struct{ transport.Credentials }

// Blob returns a text, an auth token as hex digits.
func (h HexAuth) Blob(ctx context.Context, b policy.Blob, index int) (string, error) {
	text, err := h.Credentials.Blob(ctx, b, index)
	if err == nil && b == policy.BlobAuth {
		text = hex.EncodeToString([]byte(text))
	}
	return text, err
}

// BasicAuth returns the token of RFC 7617 for a user and a password: an auth
// token for a policy with "http_auth_header": "authorization:" and
// "http_auth_preamble": "Basic ", or, after "Basic ", the value of metadata that
// is mapped to that header. A user with a colon, or a control character in
// either, can not be sent: the error wraps ErrBadCredentials.
func BasicAuth(user, password string) (string, error) {
	if strings.Contains(user, ":") || strings.ContainsFunc(user+password, policy.IsControl) {
		return "", fmt.Errorf("sspolicy: basic auth: %w: a colon in the user, or a control character", transport.ErrBadCredentials)
	}
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password)), nil
}

// Env are [Credentials] in environment variables. The name of a
// variable is the prefix and the name of the text (see [Blob.Name]) in capitals,
// with "_" for ".": with the prefix "SSPOLICY_" it is SSPOLICY_AUTH_0 for the
// first auth token. A client certificate, with its chain, is in
// SSPOLICY_CLIENT_CERT_0, and its private key in SSPOLICY_CLIENT_KEY_0, both as
// PEM. Variables are read when they are asked for. It may be used by many
// goroutines at a time, and must not be copied.
type Env struct {
	Prefix string

	certs certCache
}

func (e *Env) get(name string) (string, error) {
	if name == "" {
		return "", transport.ErrNoCredentials
	}
	text := os.Getenv(e.Prefix + strings.ToUpper(strings.ReplaceAll(name, ".", "_")))
	if text == "" {
		return "", transport.ErrNoCredentials
	}
	return text, nil
}

// Blob returns the text of a variable, else ErrNoCredentials.
func (e *Env) Blob(_ context.Context, b policy.Blob, index int) (string, error) {
	return e.get(b.Name(index))
}

// ClientCertificate returns the certificate of two variables, ErrNoCredentials
// if there is neither, and ErrBadCredentials if they are no pair.
func (e *Env) ClientCertificate(_ context.Context, index int) (*tls.Certificate, error) {
	return e.certs.get(index, func(name string) ([]byte, error) {
		text, err := e.get(name)
		return []byte(text), err
	})
}

// maxCredentialFile is how many bytes a file with a credential may have.
const maxCredentialFile = 256 << 10

// Files are [Credentials] in the files of a folder. The name of a
// file is that of the text (see [Blob.Name]), such as auth.0 or device_serial;
// line breaks at its end are not part of the text. A client certificate is in
// client_cert.0 to client_cert.254, with its chain if it is PEM, and the private
// key in client_key.0 and so on, both PEM or DER. A file has 256 KiB at most.
//
// Files are read when they are asked for, so that new contents count from the
// next attempt to connect on. To replace one, rename another over it: a file
// half written, or a key that is not that of the certificate yet, makes an
// attempt fail. It may be used by many goroutines at a time, and must not be
// copied.
type Files struct {
	Dir string

	certs certCache
}

// Blob returns the text of a file. The error is ErrNoCredentials if there is
// none, and wraps ErrBadCredentials, or what reading it failed of, if it can
// not be used.
func (f *Files) Blob(_ context.Context, b policy.Blob, index int) (string, error) {
	text, err := f.read(b.Name(index))
	return strings.TrimRight(string(text), "\r\n"), err
}

// ClientCertificate returns the certificate of two files, ErrNoCredentials if
// there is neither, and ErrBadCredentials if they are no pair.
func (f *Files) ClientCertificate(_ context.Context, index int) (*tls.Certificate, error) {
	return f.certs.get(index, f.read)
}

func (f *Files) read(name string) ([]byte, error) {
	if name == "" || f.Dir == "" {
		return nil, transport.ErrNoCredentials
	}
	path := filepath.Join(f.Dir, name)
	// Opening a named pipe would wait for someone to write to it.
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, transport.ErrNoCredentials
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%w: %s is not a regular file", transport.ErrBadCredentials, path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxCredentialFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxCredentialFile {
		return nil, fmt.Errorf("%w: %s has more than %d bytes", transport.ErrBadCredentials, path, maxCredentialFile)
	}
	return text, nil
}

// SetBlob writes the file of a text, for attempts that begin from now on, so
// that it is there as a whole or not at all, and no one but its owner may read
// it. It is for what the program is given to keep, such as a refresh token.
func (f *Files) SetBlob(b policy.Blob, index int, text string) error {
	name := b.Name(index)
	if name == "" || f.Dir == "" {
		return fmt.Errorf("sspolicy: set %v %d: %w: there is no file for it", b, index, transport.ErrNoCredentials)
	}
	return atomicfile.WritePrivate(filepath.Join(f.Dir, name), []byte(text+"\n"))
}

// Exposed returns the files of the folder that hold a secret and that others
// than their owner may read, so that a program can warn of them. On Windows,
// which has no such bits, there are none.
func (f *Files) Exposed() []string {
	var exposed []string
	if runtime.GOOS == "windows" {
		return nil
	}
	entries, _ := os.ReadDir(f.Dir)
	for _, e := range entries {
		name := e.Name()
		if _, _, ok := policy.ParseBlob(name); !ok && !strings.HasPrefix(name, keyHalf+".") {
			continue
		}
		path := filepath.Join(f.Dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o044 != 0 {
			exposed = append(exposed, path)
		}
	}
	return exposed
}

// A certCache keeps what the texts of certificates were parsed into: the same
// texts give the same certificate, so that connections made with it are kept.
type certCache struct {
	mu    sync.Mutex
	certs map[int]parsedCert
}

type parsedCert struct {
	text [sha256.Size]byte // what it was parsed of
	cert hiddenCert
}

func (c *certCache) get(index int, read func(name string) ([]byte, error)) (*tls.Certificate, error) {
	chain, err := read(certName(certHalf, index))
	key, keyErr := read(certName(keyHalf, index))
	switch none, noKey := errors.Is(err, transport.ErrNoCredentials), errors.Is(keyErr, transport.ErrNoCredentials); {
	case none && noKey:
		return nil, transport.ErrNoCredentials
	case none && keyErr == nil:
		return nil, fmt.Errorf("%w: a %s without a %s", transport.ErrBadCredentials, keyHalf, certHalf)
	case noKey && err == nil:
		return nil, fmt.Errorf("%w: a %s without a %s", transport.ErrBadCredentials, certHalf, keyHalf)
	}
	if err := errors.Join(err, keyErr); err != nil {
		return nil, err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%d ", len(chain))
	h.Write(chain)
	h.Write(key)
	text := [sha256.Size]byte(h.Sum(nil))
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.certs[index]; p.cert != nil && p.text == text {
		return p.cert(), nil
	}
	cert, err := parseClientCert(chain, key)
	if err != nil {
		return nil, err
	}
	if c.certs == nil {
		c.certs = make(map[int]parsedCert)
	}
	c.certs[index] = parsedCert{text, hide(cert)}
	return cert, nil
}

// parseClientCert makes a certificate of a chain and a private key. Errors do
// not quote what was read.
func parseClientCert(chain, key []byte) (*tls.Certificate, error) {
	ders := pemBlocks(chain, func(kind string) bool { return kind == "CERTIFICATE" })
	if ders == nil {
		ders = [][]byte{chain}
	}
	leaf, err := x509.ParseCertificate(ders[0])
	if err != nil {
		return nil, fmt.Errorf("%w: %s is no certificate in PEM or DER", transport.ErrBadCredentials, certHalf)
	}
	if keys := pemBlocks(key, func(kind string) bool { return strings.HasSuffix(kind, "PRIVATE KEY") }); keys != nil {
		key = keys[0]
	}
	cert := &tls.Certificate{Certificate: ders, Leaf: leaf}
	if k, err := x509.ParsePKCS8PrivateKey(key); err == nil {
		cert.PrivateKey = k
	} else if k, err := x509.ParseECPrivateKey(key); err == nil {
		cert.PrivateKey = k
	} else if k, err := x509.ParsePKCS1PrivateKey(key); err == nil {
		cert.PrivateKey = k
	} else {
		return nil, fmt.Errorf("%w: %s is no private key in PEM or DER, or is encrypted", transport.ErrBadCredentials, keyHalf)
	}
	return cert, transport.CheckKeyPair(cert)
}

// pemBlocks returns the contents of the blocks of a kind; nil if there is none.
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
