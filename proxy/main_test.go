package proxy

import (
	"os"
	"testing"

	"github.com/secure-streams/sspolicy/internal/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }
