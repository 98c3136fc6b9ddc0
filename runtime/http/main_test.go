package http_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/secure-streams/sspolicy/internal/leaktest"
	"github.com/secure-streams/sspolicy/internal/testcert"
)

// system is the authority that the operating system trusts, for these tests.
var system *testcert.Authority

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	// The roots of the operating system are, for these tests, one authority of
	// their own. They are read at the first use of TLS.
	system = testcert.New("the operating system's")
	dir, err := os.MkdirTemp("", "sspolicy")
	if err == nil {
		defer os.RemoveAll(dir)
		roots := filepath.Join(dir, "roots.pem")
		err = os.WriteFile(roots, system.PEM(), 0o644)
		os.Setenv("SSL_CERT_FILE", roots)
		os.Setenv("SSL_CERT_DIR", dir+"/none")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return leaktest.Run(m)
}
