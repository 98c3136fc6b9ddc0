package faulttest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/secure-streams/sspolicy/internal/readfile"
	"github.com/secure-streams/sspolicy/internal/testcert"
)

// An Authority certifies the peers of faults. Its key is unprotected, so only tests may
// trust it.
type Authority struct{ authority *testcert.Authority }

// NewAuthority returns a new authority.
func NewAuthority() *Authority { return &Authority{testcert.New(authorityName)} }

// maxAuthority is the maximum size of the file of an authority.
const maxAuthority = 1 << 20

// OpenAuthority returns the authority in a file, so that peers started later fit an
// existing fragment. It creates the file if it does not exist; "" means a file in the
// user's cache directory.
func OpenAuthority(file string) (*Authority, error) {
	if file == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return nil, err
		}
		file = filepath.Join(dir, "sspolicy", "fault-authority.pem")
	}
	text, err := readfile.Regular(file, maxAuthority)
	if errors.Is(err, fs.ErrNotExist) {
		a := NewAuthority()
		return a, errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, a.authority.KeyPEM(), 0o600))
	}
	if err != nil {
		return nil, err
	}
	a, err := testcert.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return &Authority{a}, nil
}
