package main

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/internal/testbroker"
	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/testserver"
)

// A service answers like the servers of lws's example policies and of
// assistant.json: tokens, events and directives of a voice assistant, pages,
// policies, and the page that reveals a captive portal.
type service struct {
	t *testing.T

	mu     sync.Mutex
	tokens int // issued
	events []string
	tags   []string
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method + " " + r.URL.Path {
	case "POST /auth/o2/token", "POST /auth/token":
		s.token(w, r)
	case "GET /v20160207/directives", "GET /v1/directives":
		if s.authorized(w, r) {
			s.parts(w, `{"directive": 1}`, "\x00\xff\r\n--audio", `{"directive": 2}`)
		}
	case "POST /v20160207/events", "POST /v1/events":
		if s.authorized(w, r) {
			s.event(w, r)
		}
	case "GET /index.html", "GET /httpbin/bytes/2000":
		s.mu.Lock()
		s.tags = append(s.tags, r.Header.Get("X-Upload-Tag")+" "+r.URL.Query().Get("uptag"))
		s.mu.Unlock()
		w.Write(bytes.Repeat([]byte("x"), 2000))
	case "GET /", "GET /v1/live":
		s.echo(w, r)
	case "GET /stream":
		s.feed(w, r)
	case "GET /policy/minimal-proxy.json":
		io.WriteString(w, `{ "s": [] }`)
	case "GET /generate_204", "GET /httpbin/status/204":
		w.WriteHeader(http.StatusNoContent)
	default:
		http.NotFound(w, r)
	}
}

// echo echoes messages to a client with a known subprotocol.
func (s *service) echo(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"lws-mirror-protocol", "weather-live"}})
	if err != nil {
		return
	}
	defer c.CloseNow()
	for c.Subprotocol() != "" {
		kind, msg, err := c.Read(r.Context())
		if err != nil || kind != websocket.MessageBinary || c.Write(r.Context(), kind, msg) != nil {
			return
		}
	}
}

// feed sends messages of the kinds that the query names until the client disconnects.
func (s *service) feed(w http.ResponseWriter, r *http.Request) {
	kinds := strings.Split(r.URL.Query().Get("streams"), "/")
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	for ctx, i := c.CloseRead(r.Context()), 0; ctx.Err() == nil; i++ {
		msg := fmt.Sprintf("{%q: %q}\n", "stream", kinds[i%len(kinds)])
		if c.Write(ctx, websocket.MessageText, []byte(msg)) != nil {
			return
		}
	}
}

// token issues a token for the refresh token (RFC 6749 section 6).
func (s *service) token(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || r.PostFormValue("grant_type") != "refresh_token" || r.PostFormValue("refresh_token") != "root-s3kr1t" {
		http.Error(w, `{"error": "invalid_grant"}`, http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens++
	fmt.Fprint(w, `{"access_token": "access-s3kr1t", "token_type": "bearer", "expires_in": 3600}`)
}

func (s *service) authorized(w http.ResponseWriter, r *http.Request) bool {
	if r.ProtoMajor != 2 || r.Header.Get("Authorization") != "Bearer access-s3kr1t" {
		http.Error(w, "who are you?", http.StatusForbidden)
		return false
	}
	return true
}

// parts answers with a part for each text, like a downchannel.
func (s *service) parts(w http.ResponseWriter, texts ...string) {
	form := multipart.NewWriter(w)
	w.Header().Set("Content-Type", "multipart/related; boundary="+form.Boundary())
	for _, text := range texts {
		kind := "application/json"
		if text[0] != '{' {
			kind = "application/octet-stream"
		}
		part, err := form.CreatePart(textproto.MIMEHeader{"Content-Type": {kind}})
		if err != nil {
			return
		}
		io.WriteString(part, text)
		http.NewResponseController(w).Flush()
	}
	form.Close()
}

// event receives an event: JSON, followed by audio.
func (s *service) event(w http.ResponseWriter, r *http.Request) {
	got := ""
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "multipart/form-data" {
		got = kind
	}
	parts, err := r.MultipartReader()
	for err == nil {
		var part *multipart.Part
		if part, err = parts.NextPart(); err == nil {
			body, _ := io.ReadAll(part)
			got += fmt.Sprintf("%s, %s: %d bytes; ", part.FormName(), part.Header.Get("Content-Type"), len(body))
		}
	}
	s.mu.Lock()
	s.events = append(s.events, got)
	s.mu.Unlock()
	s.parts(w, `{"directive": "speak"}`, strings.Repeat("\x01audio", 10_000))
}

// start starts the service, without TLS if config is nil, and returns its port.
func (s *service) start(config *tls.Config) int {
	srv := httptest.NewUnstartedServer(s)
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetHTTP1(true)
	if config == nil {
		srv.Config.Protocols.SetUnencryptedHTTP2(true)
		srv.Start()
	} else {
		srv.Config.Protocols.SetHTTP2(true)
		srv.TLS, srv.EnableHTTP2 = config, true
		srv.StartTLS()
	}
	s.t.Cleanup(srv.Close)
	return srv.Listener.Addr().(*net.TCPAddr).Port
}

const portal = "captive_portal_detect"

// services are the servers that a policy is executed against.
type services struct {
	*service
	dir, policy, overlay string
}

// newServices starts a service, and writes an overlay that redirects streamtypes of a
// policy to it. If config is not nil, the service uses TLS, except for captive portal
// detection.
func newServices(t *testing.T, policy string, config *tls.Config, streamtypes ...string) *services {
	t.Helper()
	v := &services{service: &service{t: t}, dir: t.TempDir(), policy: policy}
	plain := v.start(nil)
	port := plain
	if config != nil {
		port = v.start(config)
	}
	changes := map[string]any{}
	for _, name := range streamtypes {
		changes[name] = map[string]any{"endpoint": "127.0.0.1", "port": port, "tls": config != nil}
		if name == portal {
			changes[name] = map[string]any{"endpoint": "127.0.0.1", "port": plain, "tls": false}
		}
	}
	text, err := json.Marshal(map[string]any{"s": []any{changes}})
	if err != nil {
		t.Fatal(err)
	}
	v.overlay = v.write("overlay.json", string(text))
	v.write("auth.1", "grant_type=refresh_token&refresh_token=root-s3kr1t\n")
	return v
}

func (v *services) write(name, text string) string {
	path := filepath.Join(v.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		v.t.Fatal(err)
	}
	return path
}

// run executes a streamtype, which must succeed, and returns the received payload.
func (v *services) run(t *testing.T, streamtype string, flags ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	args := append([]string{"run", "--timeout", "1m", "--credentials", v.dir, "--overlay", v.overlay, v.policy, streamtype}, flags...)
	if code := run(args, strings.NewReader(""), &stdout, &stderr); code != exitOK {
		t.Errorf("%s: exit %d: %s", streamtype, code, &stderr)
	}
	if strings.Contains(stderr.String(), "s3kr1t") {
		t.Errorf("%s: a secret got out: %s", streamtype, &stderr)
	}
	return stdout.String()
}

// assistant acts as a voice assistant.
func (v *services) assistant(t *testing.T, event, audio, directives string) {
	t.Helper()
	json := v.write("event.json", `{"event": {}}`)
	pcm := v.write("audio.pcm", strings.Repeat("\x00\xff", 50_000))
	got := v.run(t, event, "--data", "@"+json, "--part", audio+"=@"+pcm)
	for _, want := range []string{"Content-Type: application/json\r\n\r\n" + `{"directive": "speak"}`, strings.Repeat("\x01audio", 10_000)} {
		if strings.Count(got, want) != 1 {
			t.Errorf("the answer to an event has %d bytes, without %.60q", len(got), want)
		}
	}
	if got, want := fmt.Sprintf("%q", v.events), `["metadata, application/json; charset=UTF-8: 13 bytes; audio, application/octet-stream: 100000 bytes; "]`; got != want {
		t.Errorf("the service got %s, want %s", got, want)
	}
	got = v.run(t, directives)
	for _, want := range []string{`{"directive": 1}`, "\x00\xff\r\n--audio", `{"directive": 2}`} {
		if strings.Count(got, want) != 1 {
			t.Errorf("directives: %q, without %q", got, want)
		}
	}
	if v.tokens != 2 { // one per run
		t.Errorf("%d tokens were given", v.tokens)
	}
}

// echoes sends messages and expects their echoes.
func (v *services) echoes(t *testing.T, streamtype string) {
	t.Helper()
	for _, msg := range []string{"hello", strings.Repeat("hello ", 5000)} {
		if got := v.run(t, streamtype, "--count", "1", "--data", msg); got != msg {
			t.Errorf("%s: %d bytes came back, of %d", streamtype, len(got), len(msg))
		}
	}
}

// follows receives messages from a feed.
func (v *services) follows(t *testing.T, streamtype string) {
	t.Helper()
	want := `{"stream": "btcusdt@depth@0ms"}` + "\n" + `{"stream": "btcusdt@bookTicker"}` + "\n" + `{"stream": "btcusdt@aggTrade"}` + "\n"
	if got := v.run(t, streamtype, "--count", "3"); got != want {
		t.Errorf("%s: %q", streamtype, got)
	}
}

// pages fetches many pages concurrently.
func (v *services) pages(t *testing.T, streamtype string) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			if got := v.run(t, streamtype, "--set", "uptag="+strconv.Itoa(i), "--set", "x-more=1"); len(got) != 2000 {
				t.Errorf("%s: %d bytes", streamtype, len(got))
			}
		})
	}
	wg.Wait()
	for i := range 10 {
		if !strings.Contains(fmt.Sprint(v.tags), strconv.Itoa(i)+" ") {
			t.Errorf("no request has tag %d: %q", i, v.tags)
		}
	}
}

// system acts as a system at its start.
func (v *services) system(t *testing.T, fetches bool) {
	t.Helper()
	if got := v.run(t, portal); got != "" {
		t.Errorf("%s: %q", portal, got)
	}
	if fetches {
		if got := v.run(t, "fetch_policy"); got != `{ "s": [] }` {
			t.Errorf("fetch_policy: %q", got)
		}
	}
}

// TestServices executes assistant.json over TLS, with h1 and h2.
func TestServices(t *testing.T) {
	text, err := os.ReadFile("../../fixtures/assistant.json")
	if err != nil {
		t.Fatal(err)
	}
	own := testcert.New("own")
	_, rest, _ := strings.Cut(string(text), `"fixture_ca": "`)
	cert, _, _ := strings.Cut(rest, `"`)
	policy := filepath.Join(t.TempDir(), "assistant.json")
	if err := os.WriteFile(policy, []byte(strings.Replace(string(text), cert, base64.StdEncoding.EncodeToString(own.Cert.Raw), 1)), 0o666); err != nil {
		t.Fatal(err)
	}
	v := newServices(t, policy, own.Server(nil, "127.0.0.1"), "token", "directives", "event", "audio", "page", "fetch_policy", portal)
	v.assistant(t, "event", "audio", "directives")
	v.pages(t, "page")
	v.system(t, true)
}

// TestRunRaw executes streams over TCP, to a server that answers after the end of the
// request, and to one that never closes.
func TestRunRaw(t *testing.T) {
	listen := func(serve func(net.Conn)) int {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() { defer c.Close(); serve(c) }()
			}
		}()
		return ln.Addr().(*net.TCPAddr).Port
	}
	all := listen(func(c net.Conn) {
		text, _ := io.ReadAll(c)
		fmt.Fprintf(c, "%d bytes", len(text))
	})
	open := listen(func(c net.Conn) {
		io.WriteString(c, "220 hello\n")
		io.Copy(io.Discard, c)
	})
	v := newServices(t, "", nil)
	v.policy = v.write("policy.json", fmt.Sprintf(`{"s": [
		{"all": {"endpoint": "127.0.0.1", "port": %d, "protocol": "raw", "opportunistic": true}},
		{"open": {"endpoint": "127.0.0.1", "port": %d, "protocol": "raw", "opportunistic": true}}]}`, all, open))
	v.write("overlay.json", `{"s": []}`)
	large := v.write("large", strings.Repeat("x", 300_000))
	for _, tt := range []struct {
		flags []string
		want  string
	}{
		{[]string{"all", "--data", "four"}, "4 bytes"},
		{[]string{"all", "--data", "@" + large}, "300000 bytes"},
		{[]string{"all", "--data", ""}, "0 bytes"},
		{[]string{"open", "--count", "1"}, "220 hello\n"},
		{[]string{"open", "--count", "1", "--data", "x"}, "220 hello\n"},
	} {
		if got := v.run(t, tt.flags[0], tt.flags[1:]...); got != tt.want {
			t.Errorf("%.40q: got %q, want %q", tt.flags, got, tt.want)
		}
	}
	var stdout, stderr bytes.Buffer
	if code := run([]string{"run", "--timeout", "2s", v.policy, "open"}, nil, &stdout, &stderr); code != exitStream || stdout.String() != "220 hello\n" {
		t.Errorf("exit %d, %q: %s", code, &stdout, &stderr)
	}
}

// TestRunWS executes the ws streamtype of station.json.
func TestRunWS(t *testing.T) {
	newServices(t, "../../fixtures/station.json", nil, "live").echoes(t, "live")
}

// TestRunMQTT publishes to mosquitto, and receives the retained message.
func TestRunMQTT(t *testing.T) {
	at := testserver.FreePort(t)
	testbroker.Start(t, fmt.Sprintf("allow_anonymous true\nlistener %d 127.0.0.1\n", at.Port()))
	v := newServices(t, "", nil)
	v.policy = v.write("policy.json", fmt.Sprintf(`{"s": [
		{"say": {"endpoint": "127.0.0.1", "port": %[1]d, "protocol": "mqtt", "mqtt_topic": "a/b", "mqtt_qos": 1, "mqtt_retain": true, "mqtt_clean_start": true, "opportunistic": true}},
		{"hear": {"endpoint": "127.0.0.1", "port": %[1]d, "protocol": "mqtt", "mqtt_subscribe": "a/#", "mqtt_qos": 1, "mqtt_clean_start": true, "opportunistic": true}},
		{"both": {"endpoint": "127.0.0.1", "port": %[1]d, "protocol": "mqtt", "mqtt_topic": "a/c", "mqtt_subscribe": "a/c", "mqtt_qos": 1, "mqtt_clean_start": true, "opportunistic": true}}]}`, at.Port()))
	v.write("overlay.json", `{"s": []}`)
	v.write("mqtt_client_id", "sspolicy-test")
	if got := v.run(t, "say", "--data", "kept"); got != "" {
		t.Errorf("say: %q", got)
	}
	if got := v.run(t, "hear"); got != "kept" {
		t.Errorf("hear: %q", got)
	}
	if got := v.run(t, "both", "--data", "heard", "--count", "1"); got != "heard" {
		t.Errorf("both: %q", got)
	}
}

// TestServicesOfLWS executes the example policies of lws in subfolders of SSPOLICY_CORPUS.
// Their certificates are those of other servers, so the streams run without TLS, and h2
// with prior knowledge.
func TestServicesOfLWS(t *testing.T) {
	dir := os.Getenv("SSPOLICY_CORPUS")
	if dir == "" {
		t.Skip("SSPOLICY_CORPUS is not set")
	}
	for _, tt := range []struct {
		file  string
		types []string
		work  func(*services)
	}{
		{"v5.0.0-avs.json", []string{"api_amazon_com_lwa", "avs_event", "avs_metadata", "avs_audio"},
			func(v *services) { v.assistant(v.t, "avs_metadata", "avs_audio", "avs_event") }},
		{"v4.1.6-avs.json", []string{"api_amazon_com_auth", "avs_event", "avs_metadata", "avs_audio"},
			func(v *services) { v.assistant(v.t, "avs_metadata", "avs_audio", "avs_event") }},
		{"v5.0.0-post-post.json", []string{"fetch_policy", portal}, func(v *services) { v.system(v.t, true) }},
		{"v4.5.8-client-ws-echo-example-policy.json", []string{"sx_ws_echo"}, func(v *services) { v.echoes(v.t, "sx_ws_echo") }},
		{"v5.0.0-client-ws-echo-example-policy.json", []string{"sx_ws_echo"}, func(v *services) { v.echoes(v.t, "sx_ws_echo") }},
		{"v5.0.0-client-ws-echo-policy-local.json", []string{"sx_ws_echo"}, func(v *services) { v.echoes(v.t, "sx_ws_echo") }},
		{"v5.0.0-binance-policy.json", []string{"binance"}, func(v *services) { v.follows(v.t, "binance") }},
		{"v5.0.0-client-binance-example-policy.json", []string{"binance"}, func(v *services) { v.follows(v.t, "binance") }},
		{"v5.0.0-stress-direct.json", []string{"mintest", portal}, func(v *services) { v.pages(v.t, "mintest"); v.system(v.t, false) }},
		{"v5.0.0-stress-policy-local.json", []string{"mintest", portal}, func(v *services) { v.pages(v.t, "mintest"); v.system(v.t, false) }},
	} {
		t.Run(tt.file, func(t *testing.T) {
			tt.work(newServices(t, filepath.Join(dir, "lws", tt.file), nil, tt.types...))
		})
	}
}
