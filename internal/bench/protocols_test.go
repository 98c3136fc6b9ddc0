package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/codegen"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

// libraries are packages that only programs with certain protocols link.
var libraries = []struct {
	name      string
	protocols []string // that link it
}{
	{"net/http", []string{"h1", "h2", "h3", "ws"}},
	{"github.com/coder/websocket", []string{"ws"}},
	{"github.com/quic-go/quic-go/http3", []string{"h3"}},
	{"github.com/secure-streams/sspolicy/runtime/mqtt", []string{"mqtt"}},
	{"github.com/secure-streams/sspolicy/runtime/raw", []string{"raw"}},
}

// protocolSets are the sets of protocols of the measured programs.
var protocolSets = [][]string{
	{"raw"}, {"mqtt"}, {"raw", "mqtt"}, {"h1", "h2"}, {"ws"}, {"h1", "h2", "ws"},
	{"h1", "h2", "mqtt"}, {"h3"}, {"h1", "h2", "h3"}, {"h1", "h2", "h3", "ws", "mqtt", "raw"},
}

// protocolProgram is a program that uses everything in a generated file.
const protocolProgram = `package main

import (
	"context"
	"os"

	"github.com/secure-streams/sspolicy/runtime"
)

func main() {
	c, err := NewContext(runtime.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Shutdown(context.Background())
	r, err := c.Fetch(context.Background(), os.Args[1])
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(r.Body)
}
`

// writeFor writes a program for a policy with these protocols, which "sspolicy compile
// --lang go" would write. It returns the overlay and the folder for the go command.
func writeFor(t testing.TB, protocols []string) (overlay, folder string) {
	t.Helper()
	var streams []string
	for _, p := range protocols {
		url := ""
		if p != "raw" && p != "mqtt" {
			url = `, "http_url": "x"`
		}
		if p == "mqtt" {
			url = `, "mqtt_topic": "x"`
		}
		streams = append(streams, fmt.Sprintf(`{"over_%s": {"endpoint": "example.com", "port": 443, "tls": true, "protocol": %[1]q, "retry": "r"%s}}`, p, url))
	}
	text := `{"retry": [{"r": {"backoff": [1000], "conceal": 3}}], "s": [` + strings.Join(streams, ", ") + `]}`
	policy, problems := codegen.Compile(schema.NewPolicy(schema.Parse("policy.json", []byte(text))))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	var source bytes.Buffer
	if err := codegen.Go(&source, policy, codegen.GoOptions{Package: "main"}); err != nil {
		t.Fatal(err)
	}
	// The overlay puts the files into this module.
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	temp := t.TempDir()
	folder = filepath.Join(here, "testdata", "generated")
	files := struct{ Replace map[string]string }{map[string]string{}}
	for name, text := range map[string]string{"policy.go": source.String(), "main.go": protocolProgram} {
		files.Replace[filepath.Join(folder, name)] = filepath.Join(temp, name)
		if err := os.WriteFile(filepath.Join(temp, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list, err := json.Marshal(files)
	if err != nil {
		t.Fatal(err)
	}
	overlay = filepath.Join(temp, "overlay.json")
	if err := os.WriteFile(overlay, list, 0o600); err != nil {
		t.Fatal(err)
	}
	return overlay, folder
}

// TestProtocolsLink checks that a program with one protocol links the packages of that
// protocol and of no other.
func TestProtocolsLink(t *testing.T) {
	for p := policy.ProtocolH1; p <= policy.ProtocolRaw; p++ {
		t.Run(p.String(), func(t *testing.T) {
			overlay, folder := writeFor(t, []string{p.String()})
			packages := strings.Fields(run(t, "list", "-overlay", overlay, "-deps", folder))
			for _, l := range libraries {
				linked := slices.Contains(packages, l.name)
				if want := slices.Contains(l.protocols, p.String()); linked != want {
					t.Errorf("%s is linked: %v, want %v", l.name, linked, want)
				}
			}
		})
	}
}

// BenchmarkProtocolsSize reports the sizes of programs by the protocols of their policies,
// also relative to the first.
func BenchmarkProtocolsSize(b *testing.B) {
	var first int64
	for _, set := range protocolSets {
		b.Run(strings.Join(set, "+"), func(b *testing.B) {
			var size int64
			for b.Loop() {
				overlay, folder := writeFor(b, set)
				program := filepath.Join(b.TempDir(), "program")
				run(b, "build", "-overlay", overlay, "-trimpath", "-ldflags=-s -w", "-o", program, folder)
				info, err := os.Stat(program)
				if err != nil {
					b.Fatal(err)
				}
				size = info.Size()
			}
			if first == 0 {
				first = size
			}
			b.ReportMetric(float64(size)/1024, "KB")
			b.ReportMetric(float64(size-first)/1024, "KB-more")
			b.ReportMetric(0, "ns/op")
		})
	}
}
