package http_test

import (
	"os"
	"testing"

	"github.com/secure-streams/sspolicy/internal/leaktest"
	"github.com/secure-streams/sspolicy/internal/testcert"
)

// system is the authority that the operating system trusts, for these tests.
var system *testcert.Authority

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	system = testcert.New("the operating system's")
	defer system.SystemRoots()()
	return leaktest.Run(m)
}
