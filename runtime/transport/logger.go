package transport

import (
	"fmt"
	"log"
	"strconv"
	"strings"
	"unicode"
)

// A Logger receives what a program cannot learn otherwise, such as an internal
// error. *slog.Logger implements it: args are alternating keys and values. It is an
// interface because log/slog would add 276 KB to a program that does not use it.
// Implementations must be safe for concurrent use.
type Logger interface {
	// Warn reports a problem that the runtime works around.
	Warn(msg string, args ...any)

	// Error reports a problem that ends a stream or loses data.
	Error(msg string, args ...any)
}

// stdLogger writes to the standard logger of package log.
type stdLogger struct{}

func (stdLogger) Warn(msg string, args ...any)  { stdLog("WARN", msg, args) }
func (stdLogger) Error(msg string, args ...any) { stdLog("ERROR", msg, args) }

func stdLog(level, msg string, args []any) {
	for i := 0; i+1 < len(args); i += 2 {
		text := fmt.Sprint(args[i+1])
		if strings.ContainsFunc(text, unicode.IsControl) {
			text = strconv.Quote(text)
		}
		msg += fmt.Sprintf(" %v=%s", args[i], text)
	}
	log.Print(level, " ", msg)
}
