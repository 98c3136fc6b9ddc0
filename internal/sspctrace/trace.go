// Package sspctrace holds traces of links between the programs of lws 5.0.0, and of
// hand-made peers with them, for tests.
package sspctrace

import (
	"bytes"
	"embed"
	"encoding/hex"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

//go:embed testdata/*.txt
var files embed.FS

// A Link is one link of a trace.
type Link struct {
	File  string // without folder and extension
	Title string // what a hand-made peer attempts
	Steps []Step

	// Closed is which peer closed the link, "proxy" or "client", or "".
	Closed string
	// Crashed reports whether that killed the peer.
	Crashed bool
	// Log is the output of the client: "STATE LWSSSCS_CREATING (1) ack=0x0", "RX len=5
	// flags=0x3 total=5 data='hello' rideshare=get", and the like.
	Log []string
}

// Name returns file and title.
func (l *Link) Name() string { return l.File + "/" + l.Title }

// A Step is a frame, or the bytes of one write, that a peer sent.
type Step struct {
	FromProxy bool
	Bytes     []byte
	// Abridged reports that the trace has only the beginning of Bytes. If Bytes is one
	// frame, its rest repeats the last known byte.
	Abridged bool
	// Partial reports that the frames in Bytes are not complete.
	Partial bool
}

// Bytes returns the bytes that one peer sent, up to the first partial step.
func (l *Link) Bytes(fromProxy bool) []byte {
	var b []byte
	for _, s := range l.Steps {
		if s.FromProxy != fromProxy {
			continue
		}
		if s.Partial {
			break
		}
		b = append(b, s.Bytes...)
	}
	return b
}

var (
	dump    = regexp.MustCompile(`^\s+([0-9a-f]{4}) ((?: [0-9a-f]{2})+)$`)
	more    = regexp.MustCompile(`^\s+\.\.\.\.\s+\((\d+) more bytes; last \d+:((?: [0-9a-f]{2})+)\)$`)
	frame   = regexp.MustCompile(`^\s+([CP])->[CP] (?:[^|]*\| )?((?:[0-9a-f]{2} ?)+)(?:\.\.\.\((\d+)\))?$`)
	again   = regexp.MustCompile(`connection ([2-9]) accepted$`)
	summary = regexp.MustCompile(`^\s+([CP])->[CP] [A-Z_]+(?:\((?:c2p|p2c)\))? len=`)
)

// Links returns the links of all traces, in the order of the file names.
func Links() ([]*Link, error) {
	entries, err := files.ReadDir("testdata")
	if err != nil {
		return nil, err
	}
	var all []*Link
	for _, e := range entries {
		text, err := files.ReadFile(path.Join("testdata", e.Name()))
		if err != nil {
			return nil, err
		}
		links, err := parse(strings.TrimSuffix(e.Name(), ".txt"), string(text))
		if err != nil {
			return nil, err
		}
		all = append(all, links...)
	}
	return all, nil
}

func parse(file, text string) ([]*Link, error) {
	var links []*Link
	var l *Link
	for i, line := range slices.Collect(strings.Lines(text)) {
		line = strings.TrimRight(line, "\n")
		fail := func(what string) error { return fmt.Errorf("%s.txt:%d: %s: %s", file, i+1, what, line) }
		if title, ok := strings.CutPrefix(line, " --- "); ok {
			title, _, _ = strings.Cut(title, "   [client args")
			l = &Link{File: file, Title: title}
			links = append(links, l)
			continue
		}
		if m := again.FindStringSubmatch(line); m != nil {
			l = &Link{File: file, Title: l.Title + ", link " + m[1]}
			links = append(links, l)
			continue
		}
		if strings.HasPrefix(line, "=== ") {
			l = &Link{File: file, Title: strings.Trim(line, "= ")}
			links = append(links, l)
			continue
		}
		if l == nil {
			continue
		}
		if log, ok := strings.CutPrefix(strings.TrimSpace(line), "cli: "); ok {
			l.Log = append(l.Log, log)
			continue
		}
		if strings.Contains(line, "proxy CLOSED") {
			l.Closed = "proxy"
		}
		if strings.Contains(line, "client CLOSED") {
			l.Closed = "client"
		}
		l.Crashed = l.Crashed || strings.Contains(line, "DIED")
		if m := summary.FindStringSubmatch(line); m != nil && !strings.Contains(line, " | ") {
			l.Steps = append(l.Steps, Step{FromProxy: m[1] == "P"})
			continue
		}
		if m := dump.FindStringSubmatch(line); m != nil {
			s := &l.Steps[len(l.Steps)-1]
			b, err := bytesOf(m[2])
			if err != nil {
				return nil, fail("hex")
			}
			if m[1] != fmt.Sprintf("%04x", len(s.Bytes)) {
				return nil, fail("offset")
			}
			s.Bytes = append(s.Bytes, b...)
			continue
		}
		if m := more.FindStringSubmatch(line); m != nil {
			s := &l.Steps[len(l.Steps)-1]
			n, err := strconv.Atoi(m[1])
			last, err2 := bytesOf(m[2])
			if err != nil || err2 != nil || n < len(last) {
				return nil, fail("rest")
			}
			s.Abridged = true
			s.Bytes = append(s.Bytes, bytes.Repeat([]byte{'x'}, n-len(last))...)
			s.Bytes = append(s.Bytes, last...)
			continue
		}
		m := frame.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		b, err := bytesOf(m[2])
		if err != nil {
			return nil, fail("hex")
		}
		s := Step{FromProxy: m[1] == "P", Bytes: b}
		if m[3] != "" {
			n, err := strconv.Atoi(m[3])
			if err != nil || n < len(b) {
				return nil, fail("length")
			}
			s.Abridged = true
			s.Partial = n != 3+int(b[1])<<8+int(b[2])
			if !s.Partial {
				s.Bytes = append(b, bytes.Repeat(b[len(b)-1:], n-len(b))...)
			}
		}
		l.Steps = append(l.Steps, s)
	}
	return links, nil
}

func bytesOf(s string) ([]byte, error) { return hex.DecodeString(strings.ReplaceAll(s, " ", "")) }
