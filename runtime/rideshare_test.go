package runtime_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// TestRideshareRefused checks that NewStream refuses a chain that cannot be executed, and
// that the error names the faulty streamtype.
func TestRideshareRefused(t *testing.T) {
	h1 := func(name, rideshare string) *policy.StreamType {
		return &policy.StreamType{Name: name, Endpoint: "h", Port: 1, Rideshare: rideshare, HTTP: &policy.HTTP{Method: "POST"}}
	}
	h2 := h1("h2", "")
	h2.Protocol = policy.ProtocolH2
	raw := &policy.StreamType{Name: "raw", Protocol: policy.ProtocolRaw, Endpoint: "h", Port: 1, Rideshare: "end"}
	bare := h1("bare", "")
	bare.HTTP = nil
	c := teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{&fake{hang}}},
		h1("end", ""), h1("good", "on"), h1("on", "end"), h1("self", "self"), h1("a", "b"), h1("b", "c"), h1("c", "b"),
		h1("nowhere", "none"), h1("other", "h2"), h2, raw, h1("lacks", "bare"), bare)
	for name, want := range map[string]struct {
		err  error
		text string
	}{
		"self":    {runtime.ErrUnsupported, `rideshare of "self" to "self"`},
		"a":       {runtime.ErrUnsupported, `rideshare of "c" to "b"`},
		"nowhere": {runtime.ErrUnknownStreamType, `unknown streamtype: rideshare of "nowhere" to "none"`},
		"other":   {runtime.ErrUnsupported, `rideshare of "other" to "h2": that speaks another protocol`},
		"raw":     {runtime.ErrUnsupported, "it speaks raw"},
		"lacks":   {nil, `"bare": that lacks the settings`},
	} {
		_, err := c.NewStream(name, runtime.Handlers{})
		if err == nil || want.err != nil && !errors.Is(err, want.err) || !strings.Contains(err.Error(), want.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s, err := c.NewStream("good", runtime.Handlers{})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Rideshare(); got != s.StreamType() {
		t.Errorf("Rideshare of an idle stream is %q", got.Name)
	}
}

// forms returns a context whose streamtypes "about", "file" and "end" share a form, which
// h answers.
func forms(t *testing.T, h http.HandlerFunc, retry *policy.Retry) *runtime.Context {
	t.Helper()
	ln := testserver.Listen(t)
	testserver.HTTP(t, ln, &http.Server{Handler: h})
	p := &policy.Policy{}
	for _, st := range []struct{ name, next, filename string }{{"about", "file", ""}, {"file", "end", "a.bin"}, {"end", "", ""}} {
		p.StreamTypes = append(p.StreamTypes, &policy.StreamType{
			Name: st.name, Rideshare: st.next, Endpoint: "http://" + ln.Addr().String(), Retry: retry, Opportunistic: true,
			HTTP: &policy.HTTP{Method: "POST", MultipartName: st.name, MultipartFilename: st.filename},
		})
	}
	return teststream.NewPolicyContext(t, runtime.Options{Transports: []transport.Transport{sshttp.New()}}, p)
}

// formEcho answers with the parts of the form.
func formEcho(w http.ResponseWriter, r *http.Request) {
	known := r.ContentLength > 0
	mr, err := r.MultipartReader()
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	for {
		p, err := mr.NextPart()
		if err != nil {
			fmt.Fprintf(w, "%v %v", err, known)
			return
		}
		body, err := io.ReadAll(p)
		fmt.Fprintf(w, "%s %s %.9s %d %v, ", p.FormName(), p.FileName(), body, len(body), err)
	}
}

// opaque hides the Seek method of a reader.
type opaque struct{ io.Reader }

func TestFetchParts(t *testing.T) {
	big := strings.Repeat("0123456789", 10_000)
	with := func(o ...runtime.CallOption) []runtime.CallOption { return o }
	for _, tt := range []struct {
		name string
		o    []runtime.CallOption
		want string
	}{
		{"none", nil, "about   0 <nil>, file a.bin  0 <nil>, end   0 <nil>, EOF true"},
		{"the first", with(runtime.WithBody([]byte("x"))), "about  x 1 <nil>, file a.bin  0 <nil>, end   0 <nil>, EOF true"},
		{"the first by a reader", with(runtime.WithBodyReader(strings.NewReader("xy"), -1)), "about  xy 2 <nil>, file a.bin  0 <nil>, end   0 <nil>, EOF false"},
		{"all", with(runtime.WithPart("about", []byte("x")), runtime.WithPart("file", []byte(big)), runtime.WithPart("end", []byte("z"))),
			"about  x 1 <nil>, file a.bin 012345678 100000 <nil>, end  z 1 <nil>, EOF true"},
		{"in another order", with(runtime.WithPart("end", []byte("z")), runtime.WithBody([]byte("x")), runtime.WithPartReader("file", strings.NewReader(big), 100_000)),
			"about  x 1 <nil>, file a.bin 012345678 100000 <nil>, end  z 1 <nil>, EOF true"},
		{"readers", with(runtime.WithPartReader("file", opaque{strings.NewReader(big)}, -1), runtime.WithPartReader("end", opaque{strings.NewReader("z")}, 1)),
			"about   0 <nil>, file a.bin 012345678 100000 <nil>, end  z 1 <nil>, EOF false"},
		{"the last", with(runtime.WithPart("end", []byte("z"))), "about   0 <nil>, file a.bin  0 <nil>, end  z 1 <nil>, EOF true"},
		{"an empty part", with(runtime.WithPart("file", nil)), "about   0 <nil>, file a.bin  0 <nil>, end   0 <nil>, EOF true"},
	} {
		r, err := forms(t, formEcho, nil).Fetch(t.Context(), "about", tt.o...)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		} else if string(r.Body) != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, r.Body, tt.want)
		}
	}
	c := forms(t, formEcho, nil)
	if _, err := c.Fetch(t.Context(), "file", runtime.WithPart("about", nil)); !errors.Is(err, runtime.ErrUnknownStreamType) {
		t.Errorf("a part of another request: %v", err)
	}
	if _, err := c.Fetch(t.Context(), "about", runtime.WithPartReader("end", strings.NewReader("z"), 2)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a part that is too short: %v", err)
	}
}

// TestFetchPartsRetry checks that each attempt sends all parts, or that no further attempt
// is made if a part cannot be read again.
func TestFetchPartsRetry(t *testing.T) {
	big := strings.Repeat("0123456789", 10_000)
	retry := &policy.Retry{Backoff: ms(1), Conceal: 5}
	serve := func() http.HandlerFunc {
		var tries atomic.Int32
		return func(w http.ResponseWriter, r *http.Request) {
			switch tries.Add(1) {
			case 1:
				io.Copy(io.Discard, r.Body)
				w.WriteHeader(http.StatusServiceUnavailable)
			case 2: // in the middle of the second part
				io.CopyN(io.Discard, r.Body, 50_000)
				conn, _, _ := http.NewResponseController(w).Hijack()
				conn.Close()
			default:
				formEcho(w, r)
			}
		}
	}
	r, err := forms(t, serve(), retry).Fetch(t.Context(), "about", runtime.WithBody([]byte("x")),
		runtime.WithPartReader("file", strings.NewReader(big), -1), runtime.WithPart("end", []byte("z")))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(r.Body), "about  x 1 <nil>, file a.bin 012345678 100000 <nil>, end  z 1 <nil>, EOF false"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	_, err = forms(t, serve(), retry).Fetch(t.Context(), "about", runtime.WithPart("file", []byte("x")), runtime.WithPartReader("end", opaque{strings.NewReader("z")}, 1))
	if !errors.Is(err, runtime.ErrBodySpent) {
		t.Errorf("a part that cannot be read twice: %v", err)
	}
}

// TestOpenParts checks the parts that a Conn writes.
func TestOpenParts(t *testing.T) {
	for _, tt := range []struct {
		name  string
		write func(c *runtime.Conn) error
		want  string
	}{
		{"all", func(c *runtime.Conn) error {
			io.WriteString(c, "a")
			io.WriteString(c, "b")
			c.NextPart()
			io.WriteString(c, "file")
			c.NextPart()
			_, err := io.WriteString(c, "end")
			return err
		}, "about  ab 2 <nil>, file a.bin file 4 <nil>, end  end 3 <nil>, EOF false"},
		{"the first", func(c *runtime.Conn) error {
			_, err := io.WriteString(c, "a")
			return err
		}, "about  a 1 <nil>, file a.bin  0 <nil>, end   0 <nil>, EOF false"},
		{"the last", func(c *runtime.Conn) error {
			c.NextPart()
			c.NextPart()
			io.WriteString(c, "end")
			if err := c.NextPart(); !errors.Is(err, io.ErrClosedPipe) {
				return fmt.Errorf("a part after the last one: %v", err)
			}
			return nil
		}, "about   0 <nil>, file a.bin  0 <nil>, end  end 3 <nil>, EOF false"},
		{"nothing", func(c *runtime.Conn) error { return nil }, "about   0 <nil>, file a.bin  0 <nil>, end   0 <nil>, EOF false"},
	} {
		conn, err := forms(t, formEcho, nil).Open(t.Context(), "about")
		if err != nil {
			t.Fatal(err)
		}
		if err := tt.write(conn); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		conn.CloseWrite()
		if err := conn.NextPart(); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%s: a part after CloseWrite: %v", tt.name, err)
		}
		got, err := io.ReadAll(conn)
		if err != nil || string(got) != tt.want {
			t.Errorf("%s: %v\n got %s\nwant %s", tt.name, err, got, tt.want)
		}
	}
	conn, err := forms(t, formEcho, nil).Open(t.Context(), "about", runtime.WithPart("end", []byte("x")))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.NextPart(); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("NextPart when Open was given the parts: %v", err)
	}
}

// TestMultipartResponse checks the parts that Fetch and Messages return.
func TestMultipartResponse(t *testing.T) {
	const body = "--b\r\nContent-Type: text/plain\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b\r\n\r\n--b--\r\n"
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "multipart/related; boundary=b")
		io.WriteString(w, body)
	}, func(st *policy.StreamType) { st.HTTP.MultipartSSIn = true })
	want := []string{"Content-Type: text/plain\r\n\r\none", "\r\ntwo", ""}
	r, err := c.Fetch(t.Context(), "get")
	if err != nil {
		t.Fatal(err)
	}
	var parts []string
	for _, p := range r.Parts {
		parts = append(parts, string(p))
	}
	if !slices.Equal(parts, want) || string(r.Body) != strings.Join(want, "") {
		t.Errorf("Fetch: %q, %q", parts, r.Body)
	}
	conn, err := c.Open(t.Context(), "get")
	if err != nil {
		t.Fatal(err)
	}
	parts = nil
	for m, err := range conn.Messages() {
		if err != nil {
			t.Error(err)
		}
		parts = append(parts, string(m))
	}
	if !slices.Equal(parts, want) {
		t.Errorf("Messages: %q", parts)
	}

	c = serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "multipart/related; boundary=b")
		io.WriteString(w, strings.Repeat("--b\r\n\r\n", 10_001)+"--b--")
	}, func(st *policy.StreamType) { st.HTTP.MultipartSSIn = true })
	if _, err := c.Fetch(t.Context(), "get"); !errors.Is(err, runtime.ErrTooLong) {
		t.Errorf("10001 parts: %v", err)
	}
	c = serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "multipart/related; boundary=b")
		io.WriteString(w, body[:len(body)-10])
	}, func(st *policy.StreamType) { st.HTTP.MultipartSSIn = true })
	if _, err := c.Fetch(t.Context(), "get"); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("without the last delimiter: %v", err)
	}
}

func TestSplitPart(t *testing.T) {
	for _, tt := range []struct{ part, header, body string }{
		{"", "map[]", ""},
		{"\r\nbody", "map[]", "body"},
		{"\r\n\r\nbody", "map[]", "\r\nbody"},
		{"a: b\r\nContent-type:  x/y; \r\n z\r\n\r\nbody\r\n\r\n", "map[A:[b] Content-Type:[x/y; z]]", "body\r\n\r\n"},
		{"a: b\r\n\r\n", "map[A:[b]]", ""},
		{"a: b\r\n", "map[A:[b]]", ""},
		{"a: b", "map[A:[b]]", ""},
		{"no header\r\n\r\nbody", "error", ""},
		{"no header", "error", ""},
		{"a: " + strings.Repeat("b", 64<<10) + "\r\n\r\nbody", "error", ""},
	} {
		header, body, err := runtime.SplitPart([]byte(tt.part))
		got := fmt.Sprint(header)
		if err != nil {
			got = "error"
		}
		if got != tt.header || string(body) != tt.body {
			t.Errorf("%q: %s %q %v", tt.part, got, body, err)
		}
	}
}

// TestOverlayParts checks that a new policy between two attempts does not assign parts to
// other streamtypes.
func TestOverlayParts(t *testing.T) {
	var c *runtime.Context
	var tries atomic.Int32
	c = forms(t, func(w http.ResponseWriter, r *http.Request) {
		if tries.Add(1) > 1 {
			formEcho(w, r)
			return
		}
		p := &policy.Policy{}
		for _, st := range c.Policy().StreamTypes {
			changed := *st
			if st.Name == "about" {
				changed.Rideshare = "end"
			}
			p.StreamTypes = append(p.StreamTypes, &changed)
		}
		if err := c.Overlay(p); err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}, &policy.Retry{Backoff: ms(1), Conceal: 5})
	_, err := c.Fetch(t.Context(), "about", runtime.WithPart("file", []byte("x")))
	if !errors.Is(err, runtime.ErrUnsupported) || tries.Load() != 1 {
		t.Errorf("after %d attempts: %v", tries.Load(), err)
	}
	tries.Store(0)
	r, err := c.Fetch(t.Context(), "about", runtime.WithPart("end", []byte("x")))
	if want := "about   0 <nil>, end  x 1 <nil>, EOF true"; err != nil || string(r.Body) != want {
		t.Errorf("%v, %v", r, err)
	}
}
