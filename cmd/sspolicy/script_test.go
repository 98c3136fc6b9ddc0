package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/secure-streams/sspolicy/internal/atomicfile"
	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/schema"
)

var update = flag.Bool("update", false, "update the expected outputs in testdata/script and the documentation")

func TestMain(m *testing.M) {
	if _, ok := os.LookupEnv("GORACE"); !ok {
		os.Setenv("GORACE", noRaceSleep)
	}
	testscript.Main(m, map[string]func(){"sspolicy": main})
}

// noRaceSleep is a value of GORACE. Without it, a program built with the race detector
// sleeps for a second before it exits, and the tests run a thousand.
const noRaceSleep = "atexit_sleep_ms=0"

// TestStories runs the scripts in testdata/script. They have these commands besides
// those of testscript:
//
//	exits CODE COMMAND...           executes a command that must exit with CODE
//	interrupt CODE TEXT COMMAND...  interrupts a command when TEXT is on its standard error; it must exit with CODE
//	json FILE PATH VALUE            checks a value in a JSON document
//	events FILE WANT                checks the events of sspolicy run --json
//	nofile FILE...                  checks that files, and pieces of them, do not exist
//	make WHAT FILE                  creates a file that is too large, not text, or new each time
//	snippet PAGE LANGUAGE FILE      copies the first block in LANGUAGE from a page in docs to the end of FILE
//	tick                            waits until a file that is written is newer than all others
//
// In their files @PORT@ stands for the port of a TLS server on 127.0.0.1, @CA@ for
// the certificate of its CA, and @OTHER_CA@ for that of another CA, both as in a
// policy.
func TestStories(t *testing.T) {
	srv := newServer(t)
	_, port, err := net.SplitHostPort(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer(
		"@PORT@", port,
		"@CA@", base64.StdEncoding.EncodeToString(srv.Certificate().Raw),
		"@OTHER_CA@", base64.StdEncoding.EncodeToString(testcert.New("other CA").Cert.Raw))
	checkout, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "json": jsonValue, "events": compareEvents, "nofile": noFile, "make": makeFile, "interrupt": interrupt, "snippet": snippet, "tick": tick,
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("CHECKOUT", checkout)
			e.Setenv("FIXTURES", filepath.Join(checkout, "fixtures"))
			for _, name := range []string{"HOME", "GOCACHE", "GOPATH", "GORACE"} { // go build, in the demo
				value := os.Getenv(name)
				if name == "GOCACHE" && value == "" {
					dir, err := os.UserCacheDir()
					if err != nil {
						return err
					}
					value = filepath.Join(dir, "go-build")
				}
				e.Setenv(name, value)
			}
			return filepath.WalkDir(e.WorkDir, func(path string, d os.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				text, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				return os.WriteFile(path, []byte(fill.Replace(string(text))), 0o666)
			})
		},
		UpdateScripts:       *update,
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
	})
}

// newServer starts the server of the scripts.
func newServer(t *testing.T) *httptest.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello from the server\n")
	})
	mux.HandleFunc("GET /empty", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("GET /greet/{name}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s, your token is %q\n", r.PathValue("name"), r.Header.Get("X-Token"))
	})
	mux.HandleFunc("GET /cut", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "only this much")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	mux.HandleFunc("GET /silent", func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
	})
	mux.HandleFunc("GET /busy", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "come back later", http.StatusServiceUnavailable)
	})
	mux.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprintf(w, "%d bytes (content-length %d): %s\n", len(body), r.ContentLength, body)
	})
	mux.HandleFunc("GET /whoami", func(w http.ResponseWriter, r *http.Request) {
		cert := ""
		for _, c := range r.TLS.PeerCertificates {
			cert = c.SerialNumber.String()
		}
		fmt.Fprintf(w, "%q %q %q\n", r.Header.Get("Authorization"), r.Header.Get("X-Serial"), cert)
	})
	mux.HandleFunc("GET /visits", func(w http.ResponseWriter, r *http.Request) {
		n := 0
		if c, err := r.Cookie("visits"); err == nil {
			n, _ = strconv.Atoi(c.Value)
		}
		http.SetCookie(w, &http.Cookie{Name: "visits", Value: strconv.Itoa(n + 1), MaxAge: 3600})
		fmt.Fprintf(w, "%d visits before\n", n)
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		switch r.PostFormValue("refresh_token") {
		case "s3kr1t":
		case "once":
			io.WriteString(w, `{"access_token": "fresh", "expires_in": 3600, "refresh_token": "s3kr1t"}`)
			return
		default:
			http.Error(w, `{"error": "invalid_grant"}`, http.StatusBadRequest)
			return
		}
		io.WriteString(w, `{"access_token": "fresh", "expires_in": 3600}`)
	})
	mux.HandleFunc("/parts", func(w http.ResponseWriter, r *http.Request) {
		parts, err := r.MultipartReader()
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for {
			part, err := parts.NextPart()
			if err != nil {
				return
			}
			body, _ := io.ReadAll(part)
			fmt.Fprintf(w, "%s %s\n", part.FormName(), body)
		}
	})
	mux.HandleFunc("GET /feed", func(w http.ResponseWriter, r *http.Request) {
		form := multipart.NewWriter(w)
		w.Header().Set("Content-Type", "multipart/related; boundary="+form.Boundary())
		for i := 0; ; i++ {
			part, err := form.CreatePart(textproto.MIMEHeader{})
			if err != nil {
				return
			}
			fmt.Fprintf(part, "message %d\n", i)
			http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
	mux.HandleFunc("GET /ws", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"echo"}})
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(1 << 20)
		if r.URL.RawQuery == "hangup" { // after the first message
			_, _, _ = c.Read(r.Context())
			_ = c.Write(r.Context(), websocket.MessageText, []byte("bye\n"))
			c.Close(websocket.StatusNormalClosure, "")
			return
		}
		if r.URL.RawQuery == "greet" {
			_ = c.Write(r.Context(), websocket.MessageText, []byte("welcome\n"))
		}
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil {
				return
			}
			for range 2 {
				_ = c.Write(r.Context(), kind, fmt.Appendf(nil, "%d bytes: %s\n", len(b), b))
			}
		}
	})
	srv := httptest.NewUnstartedServer(mux)
	srv.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // some stories make handshakes fail
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits code command...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
	if stderr := ts.ReadFile("stderr"); strings.Contains(stderr, "goroutine ") {
		ts.Fatalf("the command panicked")
	}
}

// interrupt sends SIGINT to a command when its standard error contains a text.
func interrupt(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: interrupt code text command...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	program, err := exec.LookPath(args[2])
	ts.Check(err)
	c := exec.Command(program, args[3:]...)
	c.Dir = ts.MkAbs(".")
	var stdout bytes.Buffer
	c.Stdout = &stdout
	stderr, err := c.StderrPipe()
	ts.Check(err)
	ts.Check(c.Start())
	var lines strings.Builder
	sent := false
	for in := bufio.NewScanner(stderr); in.Scan(); {
		lines.WriteString(in.Text() + "\n")
		if !sent && strings.Contains(in.Text(), args[1]) {
			sent = true
			ts.Check(c.Process.Signal(os.Interrupt))
		}
	}
	_ = c.Wait() // the exit code is checked
	ts.Check(os.WriteFile(ts.MkAbs("interrupted.out"), stdout.Bytes(), 0o666))
	ts.Check(os.WriteFile(ts.MkAbs("interrupted.err"), []byte(lines.String()), 0o666))
	if got := c.ProcessState.ExitCode(); got != want || !sent {
		ts.Fatalf("exit code %d, want %d; interrupted: %v\n%s", got, want, sent, lines.String())
	}
}

func jsonValue(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: json file path value")
	}
	var doc any
	if err := json.Unmarshal([]byte(ts.ReadFile(args[0])), &doc); err != nil {
		ts.Fatalf("%s is not JSON: %v", args[0], err)
	}
	for step := range strings.SplitSeq(args[1], ".") {
		switch v := doc.(type) {
		case []any:
			if step == "length" {
				doc = len(v)
				continue
			}
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(v) {
				ts.Fatalf("%s: no element %s", args[1], step)
			}
			doc = v[i]
		case map[string]any:
			member, ok := v[step]
			if !ok {
				ts.Fatalf("%s: no member %s", args[1], step)
			}
			doc = member
		default:
			ts.Fatalf("%s: no %s in a scalar", args[1], step)
		}
	}
	if s, ok := doc.(string); ok && s == args[2] {
		return
	}
	if got, err := json.Marshal(doc); err != nil || string(got) != args[2] {
		ts.Fatalf("%s is %s, want %s", args[1], got, args[2])
	}
}

// compareEvents compares the events of a run. Times must be in order.
func compareEvents(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: events file want")
	}
	var got bytes.Buffer
	last := 0.0
	in := bufio.NewScanner(strings.NewReader(ts.ReadFile(args[0])))
	for in.Scan() {
		var e struct {
			Event, Stream, State, Error string
			Ordinal, Length             *int
			Flags, Metadata             []string
			T                           *float64
		}
		d := json.NewDecoder(strings.NewReader(in.Text()))
		d.DisallowUnknownFields()
		if err := d.Decode(&e); err != nil {
			ts.Fatalf("%s: %v", in.Text(), err)
		}
		if e.T == nil || *e.T < last {
			ts.Fatalf("%s: the time is missing, or before the last", in.Text())
		}
		last = *e.T
		fmt.Fprintf(&got, "%s %s %s", e.Stream, e.Event, e.State)
		if e.Event == "state" && e.Ordinal == nil || e.Event == "failed" && e.Error == "" ||
			(e.Event == "rx" || e.Event == "tx") && (e.Length == nil || e.Flags == nil) {
			ts.Fatalf("%s: a member is missing", in.Text())
		}
		if e.Length != nil {
			fmt.Fprintf(&got, "%d %s", *e.Length, strings.Join(e.Flags, "+"))
		}
		got.WriteByte('\n')
	}
	ts.Check(in.Err())
	if want := ts.ReadFile(args[1]); got.String() != want {
		ts.Fatalf("the events are\n%swant\n%s", got.String(), want)
	}
}

func noFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: nofile file...")
	}
	for _, name := range args {
		path := ts.MkAbs(name)
		found, err := filepath.Glob(filepath.Join(filepath.Dir(path), atomicfile.Prefix+"*"))
		ts.Check(err)
		if _, err := os.Lstat(path); err == nil || len(found) > 0 {
			ts.Fatalf("%s exists: %q", name, found)
		}
	}
}

func makeFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: make what file")
	}
	var text []byte
	switch args[0] {
	case "binary":
		text = []byte("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00")
	case "latin1":
		text = []byte("{\"s\":[{\"caf\xe9\":{}}]}")
	case "utf16":
		text = []byte("\xff\xfe{\x00}\x00")
	case "deep":
		text = bytes.Repeat([]byte("["), schema.MaxSize-1)
	case "huge":
		text = bytes.Repeat([]byte("["), 100<<20)
	case "large":
		text = bytes.Repeat([]byte("x"), 100_000)
	case "identity": // a client certificate, 77, and its key
		testcert.WritePEM(ts.MkAbs(args[1]), *testcert.New("clients").Client(77))
		return
	default:
		ts.Fatalf("unknown file %s", args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), text, 0o666))
}

// tick waits until a file that is written is newer than all files of the script: make
// compares times, which have whole seconds on some file systems.
func tick(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: tick")
	}
	var newest time.Time
	ts.Check(filepath.WalkDir(ts.Getenv("WORK"), func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.ModTime().After(newest) {
			newest = info.ModTime()
		}
		return err
	}))
	for file := ts.MkAbs("tick"); ; time.Sleep(time.Millisecond) {
		ts.Check(os.WriteFile(file, nil, 0o666))
		info, err := os.Stat(file)
		ts.Check(err)
		ts.Check(os.Remove(file))
		if info.ModTime().After(newest) {
			return
		}
	}
}

func snippet(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: snippet page language file")
	}
	page := ts.ReadFile(filepath.Join(ts.Getenv("CHECKOUT"), "docs", args[0]))
	_, block, found := strings.Cut(page, "```"+args[1]+"\n")
	block, _, closed := strings.Cut(block, "```\n")
	if !found || !closed {
		ts.Fatalf("docs/%s has no block in %s", args[0], args[1])
	}
	file := ts.MkAbs(args[2])
	before, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		ts.Check(err)
	}
	ts.Check(os.WriteFile(file, append(before, block...), 0o666))
}
