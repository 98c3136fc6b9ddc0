package transport

import (
	"os"
	"testing"

	"github.com/secure-streams/sspolicy/internal/leaktest"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// newEnv returns an environment that ends with the test.
func newEnv(t testing.TB, c Config) Host {
	env := NewHost(c)
	t.Cleanup(func() {
		env.Close()
		env.Release()
	})
	return env
}

// newSetup returns the setup of a streamtype.
func newSetup(t testing.TB, env Host, st *policy.StreamType) *Setup {
	t.Helper()
	s, err := env.Setup(st, []*policy.StreamType{st})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
