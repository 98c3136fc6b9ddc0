// Package minisig signs policies in the format of minisign, for people who check
// files by hand. Product, version and times are in the trusted comment, which the
// minisign signature also covers.
package minisig

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"aead.dev/minisign"

	"github.com/secure-streams/sspolicy/runtime/signing"
)

// comment begins each file of minisign.
const comment = "untrusted comment: "

// Is reports whether a text is a key or a signature of minisign.
func Is(text []byte) bool { return bytes.HasPrefix(text, []byte(comment)) }

// GenerateKey returns the texts of a new key, without a password.
func GenerateKey() (private, public []byte, err error) {
	pub, priv, err := minisign.GenerateKey(nil)
	if err != nil {
		return nil, nil, err
	}
	if private, err = priv.MarshalText(); err != nil {
		return nil, nil, err
	}
	public, err = pub.MarshalText()
	return append(private, '\n'), append(public, '\n'), err
}

// Sign returns the signature of a policy. file is the name of the policy.
func Sign(key, policy []byte, file string, m signing.Manifest) ([]byte, error) {
	key = bytes.TrimSpace(key)
	if minisign.IsEncrypted(key) {
		return nil, errors.New("the key has a password: take a key without one (minisign -G -W, sspolicy keygen --format minisign)")
	}
	var private minisign.PrivateKey
	if err := private.UnmarshalText(key); err != nil {
		return nil, errors.New("not a private key of minisign")
	}
	if err := signing.CheckProduct(m.Product); err != nil {
		return nil, err
	}
	trusted := fmt.Sprintf("timestamp:%d\tfile:%s\tproduct:%s\tversion:%d\tnot_after:%d",
		m.IssuedAt.Unix(), printable(filepath.Base(file)), m.Product, m.Version, m.NotAfter.Unix())
	r := minisign.NewReader(bytes.NewReader(policy))
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, err
	}
	return r.SignWithComments(private, trusted, fmt.Sprintf("signature of minisign key %016X", private.ID())), nil
}

// printable replaces characters that would end the comment or one of its items.
func printable(name string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '_'
		}
		return r
	}, name)
}

// Verify verifies the signature of a policy, and returns the manifest in its
// trusted comment. A signature made by minisign itself has no version and
// not_after; they are then zero.
func Verify(key, policy, signature []byte) (signing.Manifest, error) {
	var public minisign.PublicKey
	if err := public.UnmarshalText(bytes.TrimSpace(key)); err != nil {
		return signing.Manifest{}, errors.New("not a public key of minisign")
	}
	var s minisign.Signature
	if err := s.UnmarshalText(signature); err != nil {
		return signing.Manifest{}, fmt.Errorf("%w: not a signature of minisign", signing.ErrMalformed)
	}
	if s.KeyID != public.ID() {
		return signing.Manifest{}, fmt.Errorf("%w: minisign key %016X", signing.ErrUnknownKey, s.KeyID)
	}
	if !minisign.Verify(public, policy, signature) {
		return signing.Manifest{}, signing.ErrSignature
	}
	m := signing.NewManifest(policy)
	for item := range strings.SplitSeq(s.TrustedComment, "\t") {
		name, value, _ := strings.Cut(item, ":")
		var err error
		switch name {
		case "product":
			m.Product = value
		case "version":
			m.Version, err = strconv.ParseUint(value, 10, 64)
		case "timestamp":
			m.IssuedAt, err = seconds(value)
		case "not_after":
			m.NotAfter, err = seconds(value)
		}
		if err != nil {
			return signing.Manifest{}, fmt.Errorf("%w: %q in the trusted comment", signing.ErrMalformed, item)
		}
	}
	return m, nil
}

func seconds(value string) (time.Time, error) {
	n, err := strconv.ParseInt(value, 10, 64)
	return time.Unix(n, 0).UTC(), err
}
