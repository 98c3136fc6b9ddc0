package transport

import (
	"fmt"
	"log"
	"strings"
)

// A Logger receives what has no other way to the program. A *slog.Logger is one:
// the arguments are keys and values as there. It is an interface because log/slog
// would add 276 KB to a program that does not use it otherwise. Its methods may
// be called from many goroutines.
type Logger interface {
	Warn(msg string, args ...any)
	Error(msg string, args ...any)
}

// stdLogger writes to the standard logger of package log.
type stdLogger struct{}

func (stdLogger) Warn(msg string, args ...any)  { stdLog("WARN", msg, args) }
func (stdLogger) Error(msg string, args ...any) { stdLog("ERROR", msg, args) }

func stdLog(level, msg string, args []any) {
	var b strings.Builder
	b.WriteString(level + " " + msg)
	for i := 0; i+1 < len(args); i += 2 {
		fmt.Fprintf(&b, " %v=%v", args[i], args[i+1])
	}
	log.Print(b.String())
}
