package runtime_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/runtime"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

// Two streamtypes share a form, and the response is multipart.
func ExampleWithPart() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, file, err := r.FormFile("photo")
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "multipart/mixed; boundary=x")
		fmt.Fprintf(w, "--x\r\n\r\n%s\r\n--x\r\nContent-Type: text/plain\r\n\r\n%s, %d bytes\r\n--x--\r\n",
			r.FormValue("title"), file.Filename, file.Size)
	}))
	defer server.Close()

	p := &policy.Policy{StreamTypes: []*policy.StreamType{{
		Name: "title", Rideshare: "photo", Endpoint: server.URL, Opportunistic: true,
		HTTP: &policy.HTTP{Method: "POST", MultipartName: "title", MultipartSSIn: true},
	}, {
		Name: "photo", Endpoint: server.URL, Opportunistic: true,
		HTTP: &policy.HTTP{Method: "POST", MultipartName: "photo", MultipartFilename: "photo.jpg", MIMEContentType: "image/jpeg"},
	}}}
	c, err := runtime.NewContext(p, runtime.Options{Transports: []transport.Transport{sshttp.New()}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Shutdown(context.Background())

	response, err := c.Fetch(context.Background(), "title",
		runtime.WithPart("title", []byte("At the sea")),
		runtime.WithPart("photo", []byte("not really one")))
	if err != nil {
		log.Fatal(err)
	}
	for _, part := range response.Parts {
		header, body, err := runtime.SplitPart(part)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%q %s\n", header.Get("Content-Type"), body)
	}
	// Output:
	// "" At the sea
	// "text/plain" photo.jpg, 14 bytes
}

// The handlers of a stream receive each state of a request and the payload of the
// response.
func Example() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello from "+r.URL.Path)
	}))
	defer server.Close()

	// Usually codegen.Compile makes a policy from JSON, or it is generated Go source.
	p := &policy.Policy{StreamTypes: []*policy.StreamType{{
		Name:          "greeting",
		Protocol:      policy.ProtocolH1,
		Endpoint:      "${server}",
		Opportunistic: true,
		Metadata:      []policy.Metadata{{Name: "server"}},
		HTTP:          &policy.HTTP{Method: "GET"},
	}}}
	c, err := runtime.NewContext(p, runtime.Options{
		Transports: []transport.Transport{sshttp.New()},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Shutdown(context.Background())

	done := make(chan struct{})
	s, err := c.NewStream("greeting", runtime.Handlers{
		State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
			fmt.Println(state)
			switch state {
			case runtime.StateUnreachable:
				fmt.Println(s.Err())
			case runtime.StateDisconnected, runtime.StateAllRetriesFailed:
				close(done)
			}
			return runtime.OK
		},
		Rx: func(_ *runtime.Stream, buf []byte, _ runtime.Flags) runtime.Result {
			os.Stdout.Write(append(buf, '\n'))
			return runtime.OK
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := s.SetMetadata("server", server.URL+"/world"); err != nil {
		log.Fatal(err)
	}
	s.RequestTx()
	<-done
	// Output:
	// CREATING
	// POLL
	// CONNECTING
	// CONNECTED
	// hello from /world
	//
	// QOS_ACK_REMOTE
	// DISCONNECTED
	// DESTROYING
}

// examplePolicy returns the policy of the examples. Usually codegen.Compile makes a policy
// from JSON, or it is generated Go source.
func examplePolicy() *policy.Policy {
	st := func(name, method string) *policy.StreamType {
		return &policy.StreamType{
			Name:          name,
			Protocol:      policy.ProtocolH1,
			Endpoint:      "${server}",
			Opportunistic: true,
			Metadata: []policy.Metadata{
				{Name: "server"},
				{Name: "language", Header: "accept-language:"},
				{Name: "served_by", Header: "x-served-by:"},
			},
			HTTP: &policy.HTTP{Method: method},
		}
	}
	return &policy.Policy{StreamTypes: []*policy.StreamType{st("greeting", "GET"), st("echo", "POST")}}
}

// Fetch makes a request and returns the response.
func ExampleContext_Fetch() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/world" {
			http.Error(w, "not found", http.StatusNotFound)
			return
		}
		io.WriteString(w, "hello from "+r.URL.Path)
	}))
	defer server.Close()
	c, err := runtime.NewContext(examplePolicy(), runtime.Options{
		Transports: []transport.Transport{sshttp.New()},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Shutdown(context.Background())

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, place := range []string{"/world", "/moon"} {
		response, err := c.Fetch(ctx, "greeting", runtime.WithMetadata("server", server.URL+place))
		if errors.Is(err, runtime.ErrNack) {
			fmt.Println("not accepted")
			continue
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", response.Body)
	}
	// Output:
	// hello from /world
	// not accepted
}

// The policy maps metadata to headers of the request and the response.
func ExampleWithMetadata() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Served-By", "node 7")
		if r.Header.Get("Accept-Language") == "fr" {
			io.WriteString(w, "bonjour")
		}
	}))
	defer server.Close()
	c, err := runtime.NewContext(examplePolicy(), runtime.Options{
		Transports: []transport.Transport{sshttp.New()},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Shutdown(context.Background())

	response, err := c.Fetch(context.Background(), "greeting",
		runtime.WithMetadata("server", server.URL),
		runtime.WithMetadata("language", "fr"))
	if err != nil {
		log.Fatal(err)
	}
	by, err := response.Metadata("served_by")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, says %s\n", response.Body, by)
	// Output: bonjour, says node 7
}

// A Conn writes the body of the request and reads the body of the response.
func ExampleContext_Open() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Write(bytes.ToUpper(body))
	}))
	defer server.Close()
	c, err := runtime.NewContext(examplePolicy(), runtime.Options{
		Transports: []transport.Transport{sshttp.New()},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Shutdown(context.Background())

	conn, err := c.Open(context.Background(), "echo", runtime.WithMetadata("server", server.URL))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	for i := range 3 {
		if _, err := fmt.Fprintf(conn, "line %d\n", i); err != nil {
			log.Fatal(err)
		}
	}
	conn.CloseWrite()
	if _, err := io.Copy(os.Stdout, conn); err != nil {
		log.Fatal(err)
	}
	// Output:
	// LINE 0
	// LINE 1
	// LINE 2
}

// Messages returns whole messages, however the network split them.
func ExampleConn_Messages() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for _, part := range []string{"all ", "of ", "it"} {
			io.WriteString(w, part)
			w.(http.Flusher).Flush()
		}
	}))
	defer server.Close()
	c, err := runtime.NewContext(examplePolicy(), runtime.Options{
		Transports: []transport.Transport{sshttp.New()},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Shutdown(context.Background())

	conn, err := c.Open(context.Background(), "greeting", runtime.WithMetadata("server", server.URL))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	for msg, err := range conn.Messages() {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", msg)
	}
	// Output: all of it
}

// A streamtype with a trust store trusts only its certificates, not those of the operating
// system.
func ExampleTrustStore() {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "trusted")
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	defer server.Close()
	p := examplePolicy()
	greeting := p.StreamType("greeting")
	greeting.TLS = true
	greeting.TrustStore = &policy.TrustStore{
		Name:  "ours",
		Stack: []*policy.Cert{{Name: "ca", DER: string(server.Certificate().Raw)}},
	}
	p.StreamType("echo").TLS = true // with the roots of the operating system
	c, err := runtime.NewContext(p, runtime.Options{
		Transports: []transport.Transport{sshttp.New()},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Shutdown(context.Background())

	at := runtime.WithMetadata("server", server.URL)
	response, err := c.Fetch(context.Background(), "greeting", at)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", response.Body)
	_, err = c.Fetch(context.Background(), "echo", at)
	_, untrusted := errors.AsType[x509.UnknownAuthorityError](err)
	fmt.Println("untrusted:", untrusted)
	// Output:
	// trusted
	// untrusted: true
}

// Tx sends a message in as many pieces as its buffers need.
func ExampleHandlers() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%d bytes", len(body))
	}))
	defer server.Close()
	c, err := runtime.NewContext(examplePolicy(), runtime.Options{
		Transports: []transport.Transport{sshttp.New()},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Shutdown(context.Background())

	message, flags := bytes.Repeat([]byte("x"), 100_000), runtime.FlagSOM
	done := make(chan struct{})
	s, err := c.NewStream("echo", runtime.Handlers{
		Tx: func(s *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
			if len(message) == 0 {
				return 0, 0, runtime.TxDontSend
			}
			n, f := copy(buf, message), flags
			if message, flags = message[n:], 0; len(message) == 0 {
				return n, f | runtime.FlagEOM, runtime.OK
			}
			s.RequestTx() // the rest
			return n, f, runtime.OK
		},
		Rx: func(_ *runtime.Stream, buf []byte, _ runtime.Flags) runtime.Result {
			fmt.Printf("%s", buf)
			return runtime.OK
		},
		State: func(_ *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
			if state == runtime.StateDisconnected || state == runtime.StateAllRetriesFailed {
				close(done)
			}
			return runtime.OK
		},
	}, runtime.WithMetadata("server", server.URL))
	if err != nil {
		log.Fatal(err)
	}
	s.RequestTx()
	<-done
	// Output: 100000 bytes
}

// A program that has no room for more payload pauses the stream, and the peer waits.
func ExampleStream_PauseRx() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Write(make([]byte, 1<<20))
	}))
	defer server.Close()
	c, err := runtime.NewContext(examplePolicy(), runtime.Options{
		Transports: []transport.Transport{sshttp.New()},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Shutdown(context.Background())

	pieces := make(chan []byte, 1)
	s, err := c.NewStream("greeting", runtime.Handlers{
		Rx: func(s *runtime.Stream, buf []byte, _ runtime.Flags) runtime.Result {
			s.PauseRx()
			pieces <- bytes.Clone(buf) // has room: Rx is not called before ResumeRx
			return runtime.OK
		},
		State: func(_ *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
			if state == runtime.StateQoSAckRemote || state == runtime.StateAllRetriesFailed {
				close(pieces)
			}
			return runtime.OK
		},
	}, runtime.WithMetadata("server", server.URL))
	if err != nil {
		log.Fatal(err)
	}
	s.RequestTx()
	total := 0
	for piece := range pieces {
		total += len(piece) // takes its time
		s.ResumeRx()
	}
	fmt.Println(total, "bytes")
	// Output: 1048576 bytes
}

// When a connection is lost and the policy wants another one, the program decides. Here
// it stays away when the server says, by a code of its own, that it does not want it.
func ExampleConn_Messages_reconnect() {
	var connections atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		n := connections.Add(1)
		conn.Write(r.Context(), websocket.MessageText, fmt.Appendf(nil, "connection %d", n))
		if n == 3 {
			conn.Close(4001, "signed in elsewhere")
		}
		conn.CloseNow() // without a close frame
	}))
	defer server.Close()
	p := &policy.Policy{StreamTypes: []*policy.StreamType{{
		Name:     "live",
		Protocol: policy.ProtocolWS,
		Endpoint: server.URL,
		HTTP:     &policy.HTTP{},
		Retry:    &policy.Retry{Backoff: []time.Duration{time.Millisecond}, Conceal: 65535},
	}}}
	c, err := runtime.NewContext(p, runtime.Options{Transports: []transport.Transport{ws.New()}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Shutdown(context.Background())

	conn, err := c.Open(context.Background(), "live")
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	for msg, err := range conn.Messages() {
		if closed, ok := errors.AsType[*ws.CloseError](err); ok && closed.Code == 4001 {
			fmt.Println(closed.Reason)
			return // Close: the stream does not connect again
		}
		if _, ok := errors.AsType[*runtime.ReconnectError](err); ok {
			fmt.Println("again")
			continue
		}
		if err != nil { // such as ErrAllRetriesFailed
			log.Fatal(err)
		}
		fmt.Printf("%s\n", msg)
	}
	// Output:
	// connection 1
	// again
	// connection 2
	// again
	// connection 3
	// signed in elsewhere
}
