package schema

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// base64Alphabet maps the URL alphabet to the standard one and removes white space.
var base64Alphabet = strings.NewReplacer("-", "+", "_", "/", "\n", "", "\r", "", " ", "")

// DecodeCert decodes a certificate of the certs section. Like lws, it accepts
// base64 in either alphabet, padded or not, with line breaks (lws 5.0.0,
// lib/misc/base64-decode.c).
func DecodeCert(text string) ([]byte, error) {
	clean := base64Alphabet.Replace(text)
	clean = strings.TrimRight(clean, "=")
	der, err := base64.RawStdEncoding.DecodeString(clean)
	var corrupt base64.CorruptInputError
	switch {
	case errors.As(err, &corrupt) && int(corrupt) < len(clean) && !base64Char(clean[corrupt]):
		return nil, fmt.Errorf("%q is not base64", clean[corrupt:corrupt+1])
	case err != nil:
		return nil, errors.New("the base64 is truncated")
	case len(der) == 0:
		return nil, errors.New("it is empty")
	}
	return der, nil
}

func base64Char(c byte) bool {
	return 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '+' || c == '/'
}
