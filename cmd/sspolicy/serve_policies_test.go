package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// TestServedPolicies runs each server of fixtures/servers.json, and of the policies in the
// folder SSPOLICY_CORPUS, and sends it requests. It uses free ports. Policies of the corpus
// that cannot be executed must cause an error.
func TestServedPolicies(t *testing.T) {
	files := []string{"../../fixtures/servers.json"}
	if dir := os.Getenv("SSPOLICY_CORPUS"); dir != "" {
		more, err := filepath.Glob(filepath.Join(dir, "*", "*.json"))
		if err != nil || len(more) == 0 {
			t.Fatal(err)
		}
		files = append(files, more...)
	}
	served := 0
	for _, file := range files {
		p, err := sspolicy.Load(file, sspolicy.Options{})
		if err != nil {
			continue // others check that run refuses it
		}
		for i, st := range p.Policy.StreamTypes {
			if !st.Server {
				continue
			}
			served++
			t.Run(filepath.Base(file)+"/"+st.Name, func(t *testing.T) {
				st := *st
				where := `"endpoint": "127.0.0.1", "port": 0`
				if strings.HasPrefix(st.Endpoint, "+") {
					where = fmt.Sprintf(`"endpoint": "+@sspolicy-test-%d-%d"`, os.Getpid(), i)
				}
				overlay := filepath.Join(t.TempDir(), "overlay.json")
				if err := os.WriteFile(overlay, fmt.Appendf(nil, `{"s": [{%q: {%s}}]}`, st.Name, where), 0o600); err != nil {
					t.Fatal(err)
				}
				args := []string{"run", "--json", "--timeout", "1m", "--respond", "hello"}
				questions := []func(*testing.T, *policy.StreamType, string) string{askRaw}
				switch {
				case st.Protocol == policy.ProtocolWS:
					questions[0] = askWS
				case st.Protocol.IsHTTP():
					questions[0] = askHTTP
					if st.HTTP.WSSubprotocol != "" {
						questions = append(questions, askWS)
					}
				}
				args = append(args, "--count", fmt.Sprint(len(questions)), "--overlay", overlay, file, st.Name)
				events, stderr := io.Pipe()
				code := make(chan int, 1)
				go func() {
					code <- run(args, nil, io.Discard, stderr)
					stderr.Close()
				}()
				answers := make(chan string, 1)
				var lines []string
				for s := bufio.NewScanner(events); s.Scan(); {
					lines = append(lines, s.Text())
					var e struct{ Event, Addr string }
					if json.Unmarshal(s.Bytes(), &e) == nil && e.Event == "listening" {
						go func() {
							var all []string
							for _, ask := range questions {
								all = append(all, ask(t, &st, e.Addr))
							}
							answers <- strings.Join(all, " ")
						}()
					}
				}
				if got := <-code; got != exitOK {
					t.Fatalf("exit %d\n%s", got, strings.Join(lines, "\n"))
				}
				if got, want := <-answers, strings.TrimSpace(strings.Repeat("hello ", len(questions))); got != want {
					t.Errorf("%q, want %q", got, want)
				}
			})
		}
	}
	if served < 7 {
		t.Errorf("%d servers", served)
	}
}

// dialServer connects to a server. The certificate must be that of the policy.
func dialServer(st *policy.StreamType, addr string, alpn ...string) (net.Conn, error) {
	network := "tcp"
	if strings.HasPrefix(st.Endpoint, "+") {
		network = "unix"
	}
	c, err := net.DialTimeout(network, addr, time.Minute)
	if err != nil || !st.TLS {
		return c, err
	}
	return tls.Client(c, &tls.Config{NextProtos: alpn, InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error {
		if got := string(s.PeerCertificates[0].Raw); got != st.ServerCert.DER {
			return fmt.Errorf("the certificate of %s", s.PeerCertificates[0].Subject)
		}
		return nil
	}}), nil
}

func askRaw(_ *testing.T, st *policy.StreamType, addr string) string {
	c, err := dialServer(st, addr)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	io.WriteString(c, "x")
	var buf [5]byte
	if _, err := io.ReadFull(c, buf[:]); err != nil {
		return err.Error()
	}
	return string(buf[:])
}

func askHTTP(_ *testing.T, st *policy.StreamType, addr string) string {
	h2 := st.Protocol == policy.ProtocolH2
	tr := &http.Transport{Protocols: new(http.Protocols)}
	dial := func(context.Context, string, string) (net.Conn, error) { return dialServer(st, addr, "h2", "http/1.1") }
	url := "http://h/"
	if st.TLS {
		url = "https://h/"
		tr.DialTLSContext = dial
		tr.Protocols.SetHTTP2(h2)
	} else {
		tr.DialContext = dial
		tr.Protocols.SetUnencryptedHTTP2(h2)
	}
	tr.Protocols.SetHTTP1(!h2)
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr, Timeout: time.Minute}).Get(url)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 200 || (resp.ProtoMajor == 2) != h2 {
		return resp.Proto + " " + resp.Status
	}
	return string(body)
}

func askWS(t *testing.T, st *policy.StreamType, addr string) string {
	tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return dialServer(st, addr, "http/1.1") }}
	o := &websocket.DialOptions{HTTPClient: &http.Client{Transport: tr}}
	if sub := st.HTTP.WSSubprotocol; sub != "" {
		o.Subprotocols = []string{sub}
	}
	c, _, err := websocket.Dial(t.Context(), "ws://h/", o) // the dialer does TLS
	if err != nil {
		return err.Error()
	}
	defer c.CloseNow()
	if err := c.Write(t.Context(), websocket.MessageText, []byte("x")); err != nil {
		return err.Error()
	}
	_, answer, err := c.Read(t.Context())
	if err != nil {
		return err.Error()
	}
	return string(answer)
}
