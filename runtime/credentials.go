package runtime

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// A Blob is a kind of text that a policy uses but does not hold: lws's system
// blobs (include/libwebsockets/lws-system.h).
type Blob uint8

const (
	BlobAuth            Blob = iota // an auth token, by index
	BlobDeviceSerial                // the serial number of the device
	BlobFirmwareVersion             // the version of its firmware
	BlobDeviceType                  // what kind of device it is
	BlobMQTTClientID                // the client id of an MQTT connection
	BlobMQTTUsername                // its user name
	BlobMQTTPassword                // its password
	BlobAWSKeyID                    // the id of an AWS access key, by index
	BlobAWSSecret                   // the secret of it
	BlobAWSSessionToken             // the session token that goes with it, if it is a temporary one
)

// maxBlobs is how many there are of a kind that is indexed, as in lws.
const maxBlobs = 4

// blobs says what each kind is called: in messages, and by the sources.
var blobs = [...]struct {
	title, name string
	indexed     bool
}{
	BlobAuth:            {"auth token", "auth", true},
	BlobDeviceSerial:    {"device serial number", "device_serial", false},
	BlobFirmwareVersion: {"firmware version", "firmware_version", false},
	BlobDeviceType:      {"device type", "device_type", false},
	BlobMQTTClientID:    {"MQTT client id", "mqtt_client_id", false},
	BlobMQTTUsername:    {"MQTT user name", "mqtt_username", false},
	BlobMQTTPassword:    {"MQTT password", "mqtt_password", false},
	BlobAWSKeyID:        {"AWS key id", "aws_key_id", true},
	BlobAWSSecret:       {"AWS secret", "aws_secret", true},
	BlobAWSSessionToken: {"AWS session token", "aws_session_token", true},
}

// String returns what the blob is called in messages.
func (b Blob) String() string {
	if int(b) < len(blobs) {
		return blobs[b].title
	}
	return "blob " + strconv.Itoa(int(b))
}

// Name returns what the sources call the text: "auth.0" to "auth.3", and so on
// for the others that are indexed; "device_serial", and so on for those that
// are not. It is empty if there is no such text.
func (b Blob) Name(index int) string {
	switch {
	case int(b) >= len(blobs) || index < 0 || index >= maxBlobs || index > 0 && !blobs[b].indexed:
		return ""
	case blobs[b].indexed:
		return blobs[b].name + "." + strconv.Itoa(index)
	}
	return blobs[b].name
}

// ParseBlob returns the kind and the index of the text that a Name is of.
func ParseBlob(name string) (b Blob, index int, ok bool) {
	for b := range blobs {
		for index := range maxBlobs {
			if Blob(b).Name(index) == name && name != "" {
				return Blob(b), index, true
			}
		}
	}
	return 0, 0, false
}

// Credentials are what a context knows and its policy must not hold: tokens,
// serial numbers, client certificates. They are asked anew for each attempt to
// connect, before anything is sent, so that they may change. An error makes the
// peer unreachable: nothing is ever sent without what the policy wants sent
// with it. The error is one of [Stream.Err], and so must hold no secret.
//
// The methods are called by many goroutines at a time. They may take their
// time, but are to return when ctx is done, as it is when the attempt is over.
type Credentials interface {
	// Blob returns a text. One that is empty is taken for none.
	Blob(ctx context.Context, b Blob, index int) (string, error)

	// ClientCertificate returns the certificate of an index, with its private
	// key and the chain to send.
	ClientCertificate(ctx context.Context, index int) (*tls.Certificate, error)
}

// CredentialFuncs are [Credentials] made of functions. One that is nil has
// nothing.
type CredentialFuncs struct {
	BlobFunc              func(ctx context.Context, b Blob, index int) (string, error)
	ClientCertificateFunc func(ctx context.Context, index int) (*tls.Certificate, error)
}

// Blob calls BlobFunc.
func (f CredentialFuncs) Blob(ctx context.Context, b Blob, index int) (string, error) {
	if f.BlobFunc == nil {
		return "", ErrNoCredentials
	}
	return f.BlobFunc(ctx, b, index)
}

// ClientCertificate calls ClientCertificateFunc.
func (f CredentialFuncs) ClientCertificate(ctx context.Context, index int) (*tls.Certificate, error) {
	if f.ClientCertificateFunc == nil {
		return nil, ErrNoCredentials
	}
	return f.ClientCertificateFunc(ctx, index)
}

// MemoryCredentials are [Credentials] that are kept in memory. The zero value
// has none. It may be used by many goroutines at a time, and must not be copied.
type MemoryCredentials struct {
	mu    sync.Mutex
	blobs map[blobKey]*string // pointers, so that fmt prints no secret
	certs map[int]hiddenCert
}

// A hiddenCert returns a certificate: fmt prints what it finds behind pointers,
// a private key too, but never what is in a function.
type hiddenCert func() *tls.Certificate

func hide(cert *tls.Certificate) hiddenCert { return func() *tls.Certificate { return cert } }

type blobKey struct {
	b     Blob
	index int
}

// SetBlob sets a text, for attempts that begin from now on; an empty one
// removes it. index is that of an auth token, 0 to 3, and else 0.
func (m *MemoryCredentials) SetBlob(b Blob, index int, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.blobs == nil {
		m.blobs = make(map[blobKey]*string)
	}
	m.blobs[blobKey{b, index}] = &text
}

// SetClientCertificate sets a client certificate, for attempts that begin from
// now on; nil removes it. index is the policy's client_cert, 0 to 254. cert must
// not be changed afterwards.
func (m *MemoryCredentials) SetClientCertificate(index int, cert *tls.Certificate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.certs == nil {
		m.certs = make(map[int]hiddenCert)
	}
	m.certs[index] = hide(cert)
}

// Blob returns what SetBlob has set, else ErrNoCredentials.
func (m *MemoryCredentials) Blob(_ context.Context, b Blob, index int) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if text := m.blobs[blobKey{b, index}]; text != nil && *text != "" {
		return *text, nil
	}
	return "", ErrNoCredentials
}

// ClientCertificate returns what SetClientCertificate has set, else
// ErrNoCredentials.
func (m *MemoryCredentials) ClientCertificate(_ context.Context, index int) (*tls.Certificate, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if cert := m.certs[index]; cert != nil && cert() != nil {
		return cert(), nil
	}
	return nil, ErrNoCredentials
}

// Blob returns a text of the context's credentials, fit to stand in a header.
// Else the error wraps ErrNoCredentials, ErrBadCredentials, or what the source
// of it returned, and does not tell the text.
func (l *Link) Blob(b Blob, index int) (string, error) {
	text, err := "", ErrNoCredentials
	if l.c.opts.Credentials != nil {
		text, err = l.s.callBlob(l.ctx, l.c.opts.Credentials, b, index)
	}
	switch {
	case err != nil:
	case text == "":
		err = ErrNoCredentials
	case strings.ContainsFunc(text, isControl):
		err = fmt.Errorf("%w: it holds a control character", ErrBadCredentials)
	default:
		return text, nil
	}
	name := b.Name(index)
	if name == "" {
		name = strconv.Itoa(index)
	}
	return "", fmt.Errorf("sspolicy: %v (%s): %w", b, name, err)
}

// clientCertificate returns the client certificate of the stream; nil if the
// policy wants none.
func (l *Link) clientCertificate() (*tls.Certificate, error) {
	if l.t.policy.ClientCert == 0 {
		return nil, nil
	}
	index := int(l.t.policy.ClientCert) - 1
	var cert *tls.Certificate
	err := ErrNoCredentials
	if l.c.opts.Credentials != nil {
		cert, err = l.s.callClientCertificate(l.ctx, l.c.opts.Credentials, index)
	}
	switch {
	case err != nil:
	case cert == nil || len(cert.Certificate) == 0:
		err = ErrNoCredentials
	default:
		if err = checkKeyPair(cert); err == nil {
			return cert, nil
		}
	}
	return nil, fmt.Errorf("sspolicy: client certificate (client_cert.%d, client_key.%d): %w", index, index, err)
}

// checkKeyPair refuses a certificate that could not be used for its owner, or
// only by a handshake that has begun to fail.
func checkKeyPair(cert *tls.Certificate) error {
	leaf := cert.Leaf
	if leaf == nil {
		var err error
		if leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return fmt.Errorf("%w: %w", ErrBadCredentials, err)
		}
	}
	key, ok := cert.PrivateKey.(crypto.Signer)
	if !ok {
		return fmt.Errorf("%w: it has no private key that signs", ErrBadCredentials)
	}
	public, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(key.Public()) {
		return fmt.Errorf("%w: the private key is not that of the certificate", ErrBadCredentials)
	}
	return nil
}

// checkCredentials refuses a streamtype that needs credentials in a context
// that has no source of them.
func (c *Context) checkCredentials(st *StreamType) error {
	switch {
	case st.Auth != nil && st.Auth.Type == AuthSigV4 && st.Protocol > ProtocolH3:
		return fmt.Errorf("%w: use_auth of type sigv4 over %v", ErrUnsupported, st.Protocol)
	case c.opts.Credentials != nil:
		return nil
	case st.Auth != nil:
		return noCredentials("use_auth")
	case st.ClientCert != 0:
		return noCredentials("client_cert")
	case st.HTTP == nil:
		return nil
	}
	for _, k := range []struct{ value, key string }{
		{st.HTTP.AuthHeader, "http_auth_header"},
		{st.HTTP.DSNHeader, "http_dsn_header"},
		{st.HTTP.FWVHeader, "http_fwv_header"},
		{st.HTTP.DevTypeHeader, "http_devtype_header"},
	} {
		if k.value != "" {
			return noCredentials(k.key)
		}
	}
	return nil
}

func noCredentials(key string) error {
	return fmt.Errorf("%w: %s needs Options.Credentials", ErrNoCredentials, key)
}
