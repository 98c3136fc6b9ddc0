package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/secure-streams/sspolicy/internal/testserver"
)

// TestRunAttacks checks that run ends in time and with little output when an h2 server
// overflows a window, floods the connection, or is silent.
func TestRunAttacks(t *testing.T) {
	for name, attack := range map[string]func(*http2.Framer, uint32){
		"overflow": func(f *http2.Framer, stream uint32) {
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0x88}, EndHeaders: true}) // :status 200
			f.WriteWindowUpdate(stream, 1<<31-1)
			f.WriteWindowUpdate(stream, 1<<31-1)
		},
		"flood": func(f *http2.Framer, _ uint32) {
			for f.WriteRawFrame(0xbb, 0, 0, []byte("\x1b]0;\a")) == nil {
			}
		},
		"silence": func(*http2.Framer, uint32) {},
	} {
		t.Run(name, func(t *testing.T) {
			ln := testserver.Listen(t)
			testserver.Serve(t, ln, func(c net.Conn) {
				r := bufio.NewReader(c)
				if _, err := io.ReadFull(r, make([]byte, len(http2.ClientPreface))); err != nil {
					return
				}
				out, in := http2.NewFramer(c, nil), http2.NewFramer(nil, r)
				out.WriteSettings()
				attacked := make(chan struct{})
				defer func() { <-attacked }()
				started := false
				for {
					f, err := in.ReadFrame()
					if err != nil {
						if !started {
							close(attacked)
						}
						return
					}
					if f, ok := f.(*http2.HeadersFrame); ok && !started {
						started = true
						stream := f.StreamID
						go func() { defer close(attacked); attack(out, stream) }()
					}
				}
			})
			file := filepath.Join(t.TempDir(), "policy.json")
			text := fmt.Sprintf(`{"retry": [{"r": {"backoff": [10], "conceal": 1}}],
				"s": [{"bad": {"endpoint": "127.0.0.1", "port": %d, "protocol": "h2", "http_method": "GET", "http_url": "", "retry": "r"}}]}`, testserver.Addr(ln).Port())
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			var stdout, stderr bytes.Buffer
			start := time.Now()
			code := run([]string{"run", "--timeout", "2s", "--connect-timeout", "10m", file, "bad"}, strings.NewReader(""), &stdout, &stderr)
			if took := time.Since(start); code != exitStream || took > time.Minute {
				t.Errorf("exit %d after %v: %s", code, took, &stderr)
			}
			if n := strings.Count(stderr.String(), "\n"); n > 20 || strings.ContainsAny(stderr.String(), "\x1b\a") {
				t.Errorf("%d lines: %.1000q", n, &stderr)
			}
		})
	}
}
