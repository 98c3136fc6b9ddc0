package transport

import (
	"bytes"
	"log"
	"log/slog"
	"os"
	"testing"
)

var _ Logger = (*slog.Logger)(nil)

func TestStdLogger(t *testing.T) {
	var out bytes.Buffer
	log.SetOutput(&out)
	flags := log.Flags()
	log.SetFlags(0)
	defer func() { log.SetOutput(os.Stderr); log.SetFlags(flags) }()
	stdLogger{}.Error("it broke", "streamtype", "a", "n", 3)
	stdLogger{}.Warn("odd", "alone")
	if got, want := out.String(), "ERROR it broke streamtype=a n=3\nWARN odd\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
