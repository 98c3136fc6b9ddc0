package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf16"
)

// events prints the events of a run. It is safe for concurrent use.
type events struct {
	mu     sync.Mutex
	w      io.Writer
	json   bool
	stream string
	start  time.Time
}

// An event is a line of the JSON output. T is in seconds from the start.
type event struct {
	Event    string          `json:"event"`
	Stream   string          `json:"stream"`
	Addr     string          `json:"addr,omitempty"`
	Client   int             `json:"client,omitzero"` // from 1, of a server
	State    string          `json:"state,omitempty"`
	Ordinal  *uint32         `json:"ordinal,omitempty"`
	Method   string          `json:"method,omitempty"` // of a request to a server
	Path     string          `json:"path,omitempty"`
	Status   int             `json:"status,omitzero"` // of the answer of a server
	Length   *int            `json:"length,omitempty"`
	Flags    []string        `json:"flags,omitzero"`
	Perf     json.RawMessage `json:"perf,omitempty"`
	Metadata []string        `json:"metadata,omitempty"`
	Error    string          `json:"error,omitempty"`
	T        seconds         `json:"t"`
}

type seconds time.Duration

// MarshalJSON writes seconds with milliseconds.
func (s seconds) MarshalJSON() ([]byte, error) { return []byte(s.String()), nil }

func (s seconds) String() string { return fmt.Sprintf("%.3f", time.Duration(s).Seconds()) }

func (e *events) emit(v event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	v.Stream, v.T = e.stream, seconds(time.Since(e.start))
	if e.json {
		line, _ := json.Marshal(v) // cannot fail
		fmt.Fprintf(e.w, "%s\n", escapeJSON(line))
		return
	}
	fmt.Fprintf(e.w, "%8s  %s  %s\n", v.T, visible(v.Stream), visible(v.text()))
}

// escapeJSON escapes the runes in a JSON text that are not printable; package
// encoding/json leaves those above ASCII.
func escapeJSON(line []byte) string {
	var b strings.Builder
	for _, r := range string(line) {
		switch {
		case strconv.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// Warn and Error print the log messages of the runtime.
func (e *events) Warn(msg string, args ...any)  { e.log("WARN", msg, args) }
func (e *events) Error(msg string, args ...any) { e.log("ERROR", msg, args) }

func (e *events) log(level, msg string, args []any) {
	text := level + " " + strings.TrimPrefix(msg, "sspolicy: ")
	for i := 0; i+1 < len(args); i += 2 {
		text += fmt.Sprintf(" %v=%q", args[i], fmt.Sprint(args[i+1]))
	}
	e.emit(event{Event: "log", Error: text})
}

// text returns an event as a line of text.
func (v *event) text() string {
	text := v.State
	switch {
	case v.Event == "unset":
		text = "metadata not set: " + strings.Join(v.Metadata, ", ") + " (--set NAME=VALUE)"
	case v.Event == "listening":
		text = "listening on " + v.Addr
	case v.Event == "answer":
		text = fmt.Sprintf("answer %d", v.Status)
	case v.Event == "log":
		return "log: " + v.Error
	case v.Event != "state":
		text = strings.Join(append([]string{v.Event, fmt.Sprint(*v.Length)}, v.Flags...), " ")
	}
	if v.Client > 0 {
		text = fmt.Sprintf("client %d: %s", v.Client, text)
	}
	for _, part := range []string{v.Method, v.Path} {
		if part != "" {
			text += " " + part
		}
	}
	if v.Perf != nil {
		text += " " + string(v.Perf)
	}
	if v.Error != "" {
		text += ": " + v.Error
	}
	return text
}
