package signing

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"math/big"
	"strings"
)

// The types of statements (typ in the header, RFC 8725 section 3.11). They prevent
// the use of one kind of signature as the other.
const (
	typeManifest = "sspolicy-manifest"
	typeRotation = "sspolicy-rotation"
)

// header returns the only valid header for a type and key.
func header(kid, typ string) string {
	return fmt.Sprintf(`{"alg":"ES256","kid":"%s","typ":"%s"}`, kid, typ)
}

// A statement is a JWS whose signature has not been verified.
type statement struct {
	line, kid, typ string
	payload        []byte
	signed         string // what the signature covers
	signature      []byte
}

// parse reads a line of a bundle.
func parse(line string) (statement, error) {
	first, rest, _ := strings.Cut(line, ".")
	second, third, ok := strings.Cut(rest, ".")
	if !ok {
		return statement{}, malformed("not three parts with dots between them")
	}
	s := statement{line: line, signed: line[:len(first)+1+len(second)]}
	head, err := decode(first)
	if err != nil {
		return statement{}, malformed("the header is not base64url without padding")
	}
	kid, _, _ := strings.Cut(strings.TrimPrefix(string(head), `{"alg":"ES256","kid":"`), `"`)
	for _, typ := range []string{typeManifest, typeRotation} {
		if string(head) == header(kid, typ) {
			s.kid, s.typ = kid, typ
		}
	}
	if s.typ == "" {
		return statement{}, malformed("the header is %.200q: want exactly %s", head, header("...", typeManifest))
	}
	if s.payload, err = decode(second); err != nil {
		return statement{}, malformed("the payload is not base64url without padding")
	}
	if s.signature, err = decode(third); err != nil || len(s.signature) != 2*coordinate {
		return statement{}, malformed("the signature is not %d bytes in base64url without padding", 2*coordinate)
	}
	return s, nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// verify checks the signature with the key of the statement's kid among keys.
func (s statement) verify(keys []PublicKey) error {
	for _, k := range keys {
		if k.id != s.kid {
			continue
		}
		sum := sha256.Sum256([]byte(s.signed))
		r, t := new(big.Int).SetBytes(s.signature[:coordinate]), new(big.Int).SetBytes(s.signature[coordinate:])
		if !ecdsa.Verify(k.key, sum[:], r, t) {
			return fmt.Errorf("%w of key %s", ErrSignature, k.id)
		}
		return nil
	}
	return fmt.Errorf("%w: %.64q", ErrUnknownKey, s.kid)
}

// sign returns a JWS.
func (k *PrivateKey) sign(typ string, payload []byte) (string, error) {
	signed := encode([]byte(header(k.Public().ID(), typ))) + "." + encode(payload)
	sum := sha256.Sum256([]byte(signed))
	r, t, err := ecdsa.Sign(rand.Reader, k.key, sum[:])
	if err != nil {
		return "", err
	}
	signature := make([]byte, 2*coordinate)
	r.FillBytes(signature[:coordinate])
	t.FillBytes(signature[coordinate:])
	return signed + "." + encode(signature), nil
}
