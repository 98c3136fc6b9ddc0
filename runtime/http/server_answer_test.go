package http_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// pieces is a Tx that sends the pieces one by one.
func pieces(all ...string) func(*runtime.Stream, uint32, []byte) (int, policy.Flags, policy.Result) {
	i := 0
	return func(s *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
		n := copy(buf, all[i])
		flags := policy.Flags(0)
		if i++; i == len(all) {
			flags, i = policy.FlagEOM, 0
		} else {
			s.RequestTx()
		}
		return n, flags, policy.OK
	}
}

// do is an action that calls functions in order.
func do(all ...func(*runtime.Stream) error) func(*runtime.Stream) runtime.Result {
	return func(s *runtime.Stream) runtime.Result {
		for _, f := range all {
			if err := f(s); err != nil {
				panic(err)
			}
		}
		return runtime.OK
	}
}

func ack(status int) func(*runtime.Stream) error {
	return func(s *runtime.Stream) error { return s.Ack(status) }
}

func txLen(n uint64) func(*runtime.Stream) error {
	return func(s *runtime.Stream) error { return s.RequestTxLen(n) }
}

func set(name, value string) func(*runtime.Stream) error {
	return func(s *runtime.Stream) error { return s.SetMetadata(name, value) }
}

func respond(name, body string) func(*runtime.Stream) error {
	return func(s *runtime.Stream) error {
		return s.Respond(name, time.Unix(1e9, 0), strings.NewReader(body))
	}
}

// TestServerAnswers checks the answers on the wire, without Date, for what the program does
// in SERVER_TXN.
func TestServerAnswers(t *testing.T) {
	get := "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
	for name, tt := range map[string]struct {
		request string
		txn     func(*runtime.Stream) runtime.Result
		tx      func(*runtime.Stream, uint32, []byte) (int, policy.Flags, policy.Result)
		change  func(*policy.StreamType)
		want    string // each LF stands for CR LF
		states  string // if not the usual
	}{
		"nothing":          {request: get, txn: do(), want: "HTTP/1.1 404 Not Found\nContent-Length: 0\n\n"},
		"nothing, with Tx": {request: get, txn: do(), tx: pieces("x"), want: "HTTP/1.1 404 Not Found\nContent-Length: 0\n\n"},
		"ack":              {request: get, txn: do(ack(0)), want: "HTTP/1.1 200 OK\nContent-Length: 0\n\n"},
		"ack with status":  {request: get, txn: do(ack(503)), want: "HTTP/1.1 503 Service Unavailable\nContent-Length: 0\n\n"},
		"no content":       {request: get, txn: do(ack(204), txLen(0)), tx: pieces("x"), want: "HTTP/1.1 204 No Content\n\n"},
		"tx without ack":   {request: get, txn: do(txLen(0)), tx: pieces("none"), want: "HTTP/1.1 404 Not Found\nContent-Length: 4\n\nnone"},
		"one piece":        {request: get, txn: do(ack(0), set("mime", "a/b"), txLen(0)), tx: pieces("body"), want: "HTTP/1.1 200 OK\nContent-Type: a/b\nContent-Length: 4\n\nbody"},
		"two pieces":       {request: get, txn: do(ack(0), txLen(0)), tx: pieces("one ", "two"), want: "HTTP/1.1 200 OK\nContent-Length: 7\n\none two"},
		"length":           {request: get, txn: do(ack(0), txLen(7)), tx: pieces("one ", "two"), want: "HTTP/1.1 200 OK\nContent-Length: 7\n\none two"},
		"length without EOM": {request: get, txn: do(ack(0), txLen(3)), tx: pieces("one", "two"),
			want: "HTTP/1.1 200 OK\nContent-Length: 3\n\none"},
		"longer than its length": {request: get, txn: do(ack(0), txLen(2)), tx: pieces("one"), want: "HTTP/1.1 200 OK\nContent-Length: 2\n\non"},
		"no content-length": {request: get, txn: do(ack(0), txLen(3)), tx: pieces("one"), change: func(st *policy.StreamType) { st.HTTP.NoContentLength = true },
			want: "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n3\none\n0\n\n"},
		"HEAD":            {request: "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", txn: do(ack(0), txLen(7)), tx: pieces("one two"), want: "HTTP/1.1 200 OK\nContent-Length: 7\n\n"},
		"HEAD of content": {request: "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", txn: do(respond("a.css", "content")), want: "HTTP/1.1 200 OK\nAccept-Ranges: bytes\nContent-Length: 7\nContent-Type: text/css; charset=utf-8\nLast-Modified: Sun, 09 Sep 2001 01:46:40 GMT\n\n"},
		"content":         {request: get, txn: do(set("mime", "a/b"), respond("a.css", "content")), want: "HTTP/1.1 200 OK\nAccept-Ranges: bytes\nContent-Length: 7\nContent-Type: a/b\nLast-Modified: Sun, 09 Sep 2001 01:46:40 GMT\n\ncontent"},
		"content, failed": {request: get, txn: do(ack(500), respond("", "content")), want: "HTTP/1.1 500 Internal Server Error\nContent-Length: 7\n\ncontent"},
		"range": {request: "GET / HTTP/1.1\r\nHost: h\r\nRange: bytes=1-3\r\n\r\n", txn: do(set("mime", "a/b"), respond("", "content")),
			want: "HTTP/1.1 206 Partial Content\nAccept-Ranges: bytes\nContent-Length: 3\nContent-Range: bytes 1-3/7\nContent-Type: a/b\nLast-Modified: Sun, 09 Sep 2001 01:46:40 GMT\n\nont"},
		"not modified": {request: "GET / HTTP/1.1\r\nHost: h\r\nIf-Modified-Since: Sun, 09 Sep 2001 01:46:40 GMT\r\n\r\n", txn: do(respond("", "content")),
			want: "HTTP/1.1 304 Not Modified\nLast-Modified: Sun, 09 Sep 2001 01:46:40 GMT\n\n"},
		"OPTIONS *": {request: "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", want: "HTTP/1.1 200 OK\nContent-Length: 0\n\n", states: " "},
		"100-continue": {request: "PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab", txn: do(ack(0)),
			want: "HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\nContent-Length: 0\n\n", states: "CRE CNG CON TXN rx(SOM) rx(EOM) DIS DES"},
		"refused early": {request: "PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n", txn: do(ack(413)),
			want: "HTTP/1.1 413 Request Entity Too Large\nContent-Length: 0\nConnection: close\n\n"},
		"chunked request": {request: "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", txn: do(ack(0)),
			want: "HTTP/1.1 200 OK\nContent-Length: 0\n\n", states: "CRE CNG CON TXN rx(SOM) rx(EOM) DIS DES"},
		"header that frames": {request: get, txn: do(ack(0), set("te", "chunked")), change: func(st *policy.StreamType) {
			st.Metadata = append(st.Metadata, policy.Metadata{Name: "te", Header: "transfer-encoding:"})
		}, want: ""},
		"disconnect": {request: get, txn: teststream.Disconnect, want: ""},
		"destroy":    {request: get, txn: teststream.Destroy, want: ""},
		"too short":  {request: get, txn: do(ack(0), txLen(5)), tx: pieces("abc"), want: ""},
		"direct_proto_str": {request: get, txn: do(ack(0), set("X-Direct", "1")), change: func(st *policy.StreamType) { st.DirectProtoStr = true },
			want: "HTTP/1.1 200 OK\nX-Direct: 1\nContent-Length: 0\n\n"},
		"set-cookie": {request: get, txn: do(ack(0), set("cookie", "a=b")), change: func(st *policy.StreamType) {
			st.Metadata = append(st.Metadata, policy.Metadata{Name: "cookie", Header: "set-cookie:"})
		}, want: "HTTP/1.1 200 OK\nSet-Cookie: a=b\nContent-Length: 0\n\n"},
	} {
		t.Run(name, func(t *testing.T) {
			k := &clients{on: teststream.Actions{"TXN": tt.txn}, tx: tt.tx}
			s := k.listen(t, serverType(policy.ProtocolH1, func(st *policy.StreamType) {
				if tt.change != nil {
					tt.change(st)
				}
			}))
			var lines []string
			for l := range strings.Lines(exchangeRaw(t, s.Addr().String(), tt.request)) {
				if l = strings.ReplaceAll(l, "\r", ""); !strings.HasPrefix(l, "Date: ") {
					lines = append(lines, l)
				}
			}
			if got := strings.Join(lines, ""); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
			switch tt.states {
			case "":
				tt.states = "CRE CNG CON TXN DIS DES"
			case " ":
				return
			}
			k.trace(t, 0).AwaitEnd(t, "DES")
			k.trace(t, 0).Want(t, tt.states)
		})
	}
}

// A closer is content that counts calls of Close.
type closer struct {
	*strings.Reader
	n *atomic.Int32
}

func (c closer) Close() error { c.n.Add(1); return nil }

// TestServerContentCloses checks that content is closed once, whether it was sent or not.
func TestServerContentCloses(t *testing.T) {
	for name, request := range map[string]string{
		"sent":      "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
		"HEAD":      "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n",
		"cut short": "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab",
		"refused":   "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
	} {
		var n atomic.Int32
		provide := func(s *runtime.Stream) error {
			return s.Respond("", time.Time{}, closer{strings.NewReader("content"), &n})
		}
		respond := do(provide, provide)
		k := &clients{on: teststream.Actions{"TXN": func(s *runtime.Stream) runtime.Result {
			if r := respond(s); name != "refused" {
				return r
			}
			return runtime.DisconnectMe
		}}}
		s := k.listen(t, serverType(policy.ProtocolH1))
		exchangeRaw(t, s.Addr().String(), request)
		k.trace(t, 0).AwaitEnd(t, "DES")
		if n.Load() != 2 {
			t.Errorf("%s: closed %d times, want 2", name, n.Load())
		}
	}
}

// TestServerLater answers after the callbacks have returned.
func TestServerLater(t *testing.T) {
	streams := make(chan *runtime.Stream, 1)
	ready := false // guarded by the turn: Tx follows the second request
	k := &clients{on: teststream.Actions{"TXN": func(s *runtime.Stream) runtime.Result {
		s.RequestTx()
		streams <- s
		return runtime.OK
	}}, tx: func(s *runtime.Stream, ordinal uint32, buf []byte) (int, policy.Flags, policy.Result) {
		if ordinal == 0 {
			streams <- s
			return 0, 0, runtime.TxDontSend
		}
		ready = true
		return copy(buf, "late"), policy.FlagEOM, runtime.OK
	}}
	s := k.listen(t, serverType(policy.ProtocolH1))
	go func() {
		client := <-streams
		<-streams // the first Tx has been called
		client.Ack(202)
		client.SetMetadata("mime", "a/b")
		client.RequestTx()
	}()
	resp, err := http.Get("http://" + s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 202 || resp.Header.Get("Content-Type") != "a/b" || string(body) != "late" || !ready {
		t.Errorf("%v %q", resp, body)
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestServerTrailers has trailers in both directions.
func TestServerTrailers(t *testing.T) {
	for _, p := range protocols {
		k := &clients{on: teststream.Actions{"TXN": do(ack(0), set("tag", "early")), "rx(EOM)": teststream.RequestTx}}
		k.tx = func(s *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
			if s.Status() != 0 {
				t.Error("a server has no status")
			}
			if n := len(buf); item(s, "tag") == "sent last" { // received
				s.SetMetadata("tag", "after")
				return n, policy.FlagEOM, policy.OK
			}
			return 0, 0, policy.DestroyMe
		}
		// The first piece fixes the head, the second changes the item.
		first := true
		inner := k.tx
		k.tx = func(s *runtime.Stream, o uint32, buf []byte) (int, policy.Flags, policy.Result) {
			if first {
				first = false
				s.RequestTx()
				return 1, 0, policy.OK
			}
			return inner(s, o, buf[:1])
		}
		s := k.listen(t, serverType(p, func(st *policy.StreamType) { st.HTTP.NoContentLength = true }))
		tr := &http.Transport{Protocols: new(http.Protocols)}
		tr.Protocols.SetHTTP1(p == policy.ProtocolH1)
		tr.Protocols.SetUnencryptedHTTP2(p == policy.ProtocolH2)
		req, _ := http.NewRequest("POST", "http://"+s.Addr().String(), io.MultiReader(strings.NewReader("body")))
		req.Trailer = http.Header{"X-Tag": {"sent last"}}
		resp, err := (&http.Client{Transport: tr}).Do(req)
		if err != nil {
			t.Fatal(p, err)
		}
		body, err := io.ReadAll(resp.Body)
		if resp.Header.Get("X-Tag") != "early" || resp.Trailer.Get("X-Tag") != "after" || len(body) != 2 {
			t.Errorf("%v: header %v, trailer %v, body %q, %v", p, resp.Header, resp.Trailer, body, err)
		}
		resp.Body.Close()
		tr.CloseIdleConnections()
	}
}

// TestServerMetadata checks that clients have the metadata of the listener, in each
// transaction.
func TestServerMetadata(t *testing.T) {
	first := true
	k := &clients{on: teststream.Actions{"TXN": func(s *runtime.Stream) runtime.Result {
		s.Ack(0)
		if first {
			first = false
			s.SetMetadata("tag", "of the transaction")
		}
		return runtime.OK
	}}}
	s := k.listen(t, serverType(policy.ProtocolH1), runtime.WithMetadata("tag", "of the listener"))
	get := "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
	got := exchangeRaw(t, s.Addr().String(), get+get)
	if strings.Count(got, "X-Tag: of the transaction") != 1 || strings.Count(got, "X-Tag: of the listener") != 1 {
		t.Error(got)
	}
	if err := s.Ack(0); !errors.Is(err, runtime.ErrNoTransaction) {
		t.Error(err)
	}
}

// TestServerPause checks that PauseRx holds back a request body.
func TestServerPause(t *testing.T) {
	k := &clients{on: teststream.Actions{
		"TXN": func(s *runtime.Stream) runtime.Result {
			s.PauseRx()
			s.StartTimeout(20 * time.Millisecond)
			return runtime.OK
		},
		"TMO":     func(s *runtime.Stream) runtime.Result { s.ResumeRx(); return runtime.OK },
		"rx(EOM)": do(ack(0)),
	}}
	s := k.listen(t, serverType(policy.ProtocolH1))
	got := exchangeRaw(t, s.Addr().String(), "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx")
	if !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Error(got)
	}
	k.trace(t, 0).AwaitEnd(t, "DES")
	k.trace(t, 0).Want(t, "CRE CNG CON TXN TMO rx(SOM) rx(EOM) DIS DES")
}

// TestServerMultipart splits a request into its parts.
func TestServerMultipart(t *testing.T) {
	for _, p := range protocols {
		k := &clients{on: teststream.Actions{"TXN": do(ack(0))}}
		s := k.listen(t, serverType(p, func(st *policy.StreamType) { st.HTTP.MultipartSSIn = true }))
		body := "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b\r\n\r\n2\r\n--b--\r\n"
		got := exchangeRaw(t, s.Addr().String(), fmt.Sprintf("POST / HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
		if !strings.HasPrefix(got, "HTTP/1.1 200") {
			t.Error(got)
		}
		k.trace(t, 0).AwaitEnd(t, "DES")
		k.trace(t, 0).Want(t, "CRE CNG CON TXN rx(0 bytes, flags 8) rx(45 bytes, flags 3) rx(3 bytes, flags 19) DIS DES")
	}
}

// TestServerClientGone checks that the stream of a client ends if the client disconnects
// before the answer.
func TestServerClientGone(t *testing.T) {
	waiting := make(chan struct{})
	k := &clients{on: teststream.Actions{"TXN": teststream.RequestTx},
		tx: func(*runtime.Stream, uint32, []byte) (int, policy.Flags, policy.Result) {
			close(waiting)
			return 0, 0, runtime.TxDontSend
		}}
	s := k.listen(t, serverType(policy.ProtocolH1))
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	<-waiting
	conn.Close()
	k.trace(t, 0).AwaitEnd(t, "CRE CNG CON TXN DIS DES")
}

// TestServerTakesTime has a program that pauses within a request and its answer for longer
// than a client may.
func TestServerTakesTime(t *testing.T) {
	const idle = 400 * time.Millisecond
	for _, p := range protocols {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			pause := func(s *runtime.Stream) runtime.Result { s.StartTimeout(2 * idle); return runtime.OK }
			send := sender("one", "two")
			k := &clients{
				on: teststream.Actions{
					"TXN":     do(ack(0)),
					"rx(SOM)": func(s *runtime.Stream) runtime.Result { s.PauseRx(); return pause(s) },
					"TMO":     func(s *runtime.Stream) runtime.Result { s.ResumeRx(); return teststream.RequestTx(s) },
				},
				tx: func(s *runtime.Stream, ordinal uint32, buf []byte) (int, policy.Flags, policy.Result) {
					pause(s)
					return send(s, ordinal, buf)
				},
			}
			s := k.listen(t, serverType(p), runtime.WithLimits(runtime.Limits{IdleTimeout: idle}))
			client := &http.Client{Transport: &http.Transport{Protocols: testserver.Protocols(p == policy.ProtocolH1, p == policy.ProtocolH2)}}
			defer client.CloseIdleConnections()
			resp, err := client.Post("http://"+s.Addr().String(), "", bytes.NewReader(make([]byte, 4<<20))) // more than the window
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if body, err := io.ReadAll(resp.Body); string(body) != "onetwo" || err != nil {
				t.Errorf("%q, %v", body, err)
			}
		})
	}
}
