package http_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// upload returns a streamtype that posts its message, or shares it.
func upload(name, rideshare string, h policy.HTTP) policy.StreamType {
	h.Method = "POST"
	return policy.StreamType{Name: name, Rideshare: rideshare, HTTP: &h}
}

// describe answers with the method, the parts and the announced length of the
// request.
func describe(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintln(w, r.Method)
	counter := &countingBody{ReadCloser: r.Body}
	r.Body = counter
	mr, err := r.MultipartReader()
	if err != nil {
		body, err2 := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%v: %q %v\n", err, body, err2)
		return
	}
	for {
		p, err := mr.NextRawPart()
		if err != nil {
			fmt.Fprintln(w, err)
			break
		}
		body, err := io.ReadAll(p)
		fmt.Fprintf(w, "%v %d %.20q %v\n", p.Header, len(body), body, err)
	}
	rest, err := io.ReadAll(r.Body)
	length := "length unknown"
	if r.ContentLength >= 0 {
		length = fmt.Sprint("length ", r.ContentLength-counter.n, " off")
	}
	fmt.Fprintf(w, "%d %v, %s", len(rest), err, length)
}

type countingBody struct {
	io.ReadCloser
	n int64
}

func (b *countingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	return n, err
}

// inTurn returns a Tx that sends the message of each streamtype in pieces, and appends the
// streamtype of each call to calls.
func inTurn(messages map[string][]string, calls *[]string) func(*runtime.Stream, uint32, []byte) (int, policy.Flags, policy.Result) {
	at := map[string]int{}
	return func(s *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
		name := s.Rideshare().Name
		*calls = append(*calls, name)
		m, i := messages[name], at[name]
		at[name]++
		var flags policy.Flags
		if i == 0 {
			flags |= policy.FlagSOM
		}
		if i == len(m)-1 {
			flags |= policy.FlagEOM
		}
		return copy(buf, m[i]), flags, policy.OK
	}
}

// TestMultipart checks multipart requests, of one streamtype and of several.
func TestMultipart(t *testing.T) {
	const disposition = `map[Content-Disposition:[form-data; name=`
	full := policy.HTTP{MultipartName: "file", MultipartFilename: "a.txt", MIMEContentType: "text/plain; charset=utf-8"}
	fullHeader := disposition + `"file"; filename="a.txt"] Content-Type:[text/plain; charset=utf-8]]`
	three := []policy.StreamType{
		upload("s", "two", policy.HTTP{MultipartName: "one"}),
		upload("two", "three", full),
		upload("three", "", policy.HTTP{MultipartName: "last"}),
	}
	for _, tt := range []struct {
		name     string
		types    []policy.StreamType
		messages map[string][]string
		length   uint64 // for RequestTxLen
		calls    string // the streamtypes of the calls of Tx
		known    bool   // the content-length is announced
		want     string
	}{
		{"name, filename and type", []policy.StreamType{upload("s", "", full)},
			map[string][]string{"s": {"ab", "c"}}, 0, "s s", false, fullHeader + ` 3 "abc" <nil>`},
		{"with a length", []policy.StreamType{upload("s", "", full)},
			map[string][]string{"s": {"ab", "c"}}, 3, "s s", true, fullHeader + ` 3 "abc" <nil>`},
		{"no_content_length", []policy.StreamType{upload("s", "", policy.HTTP{MultipartName: "n", NoContentLength: true})},
			map[string][]string{"s": {"ab", "c"}}, 3, "s s", false, disposition + `"n"]] 3 "abc" <nil>`},
		{"longer than announced", []policy.StreamType{upload("s", "", policy.HTTP{MultipartName: "n"})},
			map[string][]string{"s": {"ab", "c"}}, 2, "s", true, disposition + `"n"]] 2 "ab" <nil>`},
		{"an empty message", []policy.StreamType{upload("s", "", policy.HTTP{MultipartName: "n"})},
			map[string][]string{"s": {""}}, 0, "s", false, disposition + `"n"]] 0 "" <nil>`},
		{"no Tx", []policy.StreamType{upload("s", "", policy.HTTP{MultipartName: "n"})},
			nil, 0, "", true, disposition + `"n"]] 0 "" <nil>`},
		{"names that need escapes", []policy.StreamType{upload("s", "", policy.HTTP{MultipartName: `a"b\`, MultipartFilename: `é"; x="`})},
			map[string][]string{"s": {"x"}}, 0, "s", false, disposition + `"a\"b\\"; filename="é\"; x=\""]] 1 "x" <nil>`},
		{"an empty name", []policy.StreamType{upload("s", "", policy.HTTP{Multipart: true})},
			map[string][]string{"s": {"x"}}, 0, "s", false, disposition + `""]] 1 "x" <nil>`},
		{"${} is not expanded", []policy.StreamType{upload("s", "", policy.HTTP{MultipartName: `${x}`})},
			map[string][]string{"s": {"x"}}, 0, "s", false, disposition + `"${x}"]] 1 "x" <nil>`},
		{"three parts", three,
			map[string][]string{"s": {"1", "2"}, "two": {"", "x", ""}, "three": {"z"}}, 0, "s s two two two three",
			false, disposition + `"one"]] 2 "12" <nil>` + "\n" + fullHeader + ` 1 "x" <nil>` + "\n" + disposition + `"last"]] 1 "z" <nil>`},
		{"three parts with a length", three,
			map[string][]string{"s": {"1", "2"}, "two": {""}, "three": {"z"}}, 3, "s s two three",
			true, disposition + `"one"]] 2 "12" <nil>` + "\n" + fullHeader + ` 0 "" <nil>` + "\n" + disposition + `"last"]] 1 "z" <nil>`},
		{"the last parts are empty", three,
			map[string][]string{"s": {"1", "2"}, "two": {"", ""}, "three": {""}}, 2, "s s two two",
			true, disposition + `"one"]] 2 "12" <nil>` + "\n" + fullHeader + ` 0 "" <nil>` + "\n" + disposition + `"last"]] 0 "" <nil>`},
		{"no Tx, three parts", three, nil, 0, "",
			true, disposition + `"one"]] 0 "" <nil>` + "\n" + fullHeader + ` 0 "" <nil>` + "\n" + disposition + `"last"]] 0 "" <nil>`},
	} {
		for _, p := range protocols {
			t.Run(tt.name+" "+p.String(), func(t *testing.T) {
				c := contextOf(t, p, serveBoth(t, http.HandlerFunc(describe)), tt.types...)
				var calls []string
				h := runtime.Handlers{}
				if tt.messages != nil {
					h.Tx = inTurn(tt.messages, &calls)
				}
				tr := transact(t, c, h, tt.length)
				tr.Want(t, fetched)
				if got := strings.Join(calls, " "); got != tt.calls {
					t.Errorf("Tx was called for %q, want %q", got, tt.calls)
				}
				length := "length unknown"
				if tt.known {
					length = "length 0 off"
				}
				if got, want := tr.Body(), "POST\n"+tt.want+"\nEOF\n0 <nil>, "+length; got != want {
					t.Errorf("the server got\n%s\nwant\n%s", got, want)
				}
			})
		}
	}
}

// transact runs one transaction of a new stream of "s".
func transact(t *testing.T, c *runtime.Context, h runtime.Handlers, length uint64) *teststream.Trace {
	t.Helper()
	tr := &teststream.Trace{On: teststream.Actions{"CRE": func(s *runtime.Stream) policy.Result {
		s.SetHandlers(h)
		s.RequestTxLen(length)
		return policy.OK
	}}}
	if _, err := c.NewStream("s", handlers(tr)); err != nil {
		t.Fatal(err)
	}
	tr.AwaitEnd(t, "DIS", "ARF")
	return tr
}

// TestMultipartForm checks that net/http finds the values and files of a form.
func TestMultipartForm(t *testing.T) {
	file := strings.Repeat("0123456789abcdef\r\n--", 20_000)
	for _, p := range protocols {
		url := serveBoth(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := r.ParseMultipartForm(1 << 20); err != nil {
				t.Error(err)
				return
			}
			f, h, err := r.FormFile("file")
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			body, _ := io.ReadAll(f)
			if v := r.FormValue("about"); v != "me" || string(body) != file || h.Filename != "a.bin" || h.Header.Get("Content-Type") != "application/octet-stream" {
				t.Errorf("%q, %d bytes, %q, %v", v, len(body), h.Filename, h.Header)
			}
		}))
		c := contextOf(t, p, url, upload("s", "file", policy.HTTP{MultipartName: "about"}),
			upload("file", "", policy.HTTP{MultipartName: "file", MultipartFilename: "a.bin", MIMEContentType: "application/octet-stream"}))
		rest := strings.NewReader(file)
		tr := transact(t, c, runtime.Handlers{Tx: func(s *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
			if s.Rideshare().Name == "s" {
				return copy(buf, "me"), policy.FlagSOM | policy.FlagEOM, policy.OK
			}
			n, err := rest.Read(buf)
			if err == io.EOF {
				return n, policy.FlagEOM, policy.OK
			}
			return n, 0, policy.OK
		}}, 0)
		tr.Want(t, "CRE POL CNG CON ACK DIS")
	}
}

// TestRideshare checks shared requests that are not multipart.
func TestRideshare(t *testing.T) {
	types := []policy.StreamType{upload("s", "b", policy.HTTP{}), upload("b", "c", policy.HTTP{}), upload("c", "", policy.HTTP{})}
	for _, p := range protocols {
		for _, tt := range []struct {
			messages map[string][]string
			length   uint64
			want     string
		}{
			{map[string][]string{"s": {"a", "b"}, "b": {"", ""}, "c": {"c"}}, 0, " (POST, -1)"},
			{map[string][]string{"s": {"a", "b"}, "b": {"", "c"}, "c": {""}}, 3, " (POST, 3)"},
		} {
			url := serveBoth(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				fmt.Fprintf(w, "%s (%s, %d)", body, r.Method, r.ContentLength)
			}))
			var calls []string
			tr := transact(t, contextOf(t, p, url, types...), runtime.Handlers{Tx: inTurn(tt.messages, &calls)}, tt.length)
			if got, want := tr.Body(), "abc"+tt.want; got != want {
				t.Errorf("%v: the server got %q, want %q: %s", p, got, want, tr)
			}
		}
	}
}

// TestMultipartFails checks requests whose messages do not match their length.
func TestMultipartFails(t *testing.T) {
	two := []policy.StreamType{upload("s", "b", policy.HTTP{MultipartName: "a"}), upload("b", "", policy.HTTP{MultipartName: "b"})}
	for _, p := range protocols {
		for _, tt := range []struct {
			name     string
			messages map[string][]string
			length   uint64
		}{
			{"too short", map[string][]string{"s": {"1"}, "b": {"2"}}, 3},
			{"too long before the last", map[string][]string{"s": {"1", "2", ""}, "b": {"2"}}, 1},
			{"a length and no Tx", nil, 3},
		} {
			c := contextOf(t, p, serveBoth(t, http.HandlerFunc(describe)), two...)
			var calls []string
			h := runtime.Handlers{}
			if tt.messages != nil {
				h.Tx = inTurn(tt.messages, &calls)
			}
			transact(t, c, h, tt.length).Want(t, "CRE POL CNG UNR ARF")
		}
		for header, value := range map[string]string{"content-type:": "a/b", "content-length:": "100"} {
			st := upload("s", "", policy.HTTP{MultipartName: "a"})
			st.Metadata = []policy.Metadata{{Name: "m", Header: header}}
			c := contextOf(t, p, serveBoth(t, http.HandlerFunc(describe)), st)
			_, err := c.Fetch(t.Context(), "s", runtime.WithMetadata("m", value))
			if _, ok := errors.AsType[*sshttp.HeaderError](err); !ok {
				t.Errorf("%v %s: %v", p, header, err)
			}
		}
	}
}

// TestMultipartAnswer checks the payload of multipart responses.
func TestMultipartAnswer(t *testing.T) {
	const two = "--b\r\nContent-Type: text/plain\r\n\r\none\r\n--b\r\n\r\n\r\n--b--\r\n"
	for _, tt := range []struct {
		name, contentType, body string
		status                  int
		want, got               string
	}{
		{"form-data", "multipart/form-data; boundary=b", two, 200,
			"CON rx(0 bytes, flags 8) rx(31 bytes, flags 3) rx(2 bytes, flags 19) ACK DIS", "Content-Type: text/plain\r\n\r\none\r\n"},
		{"related", `multipart/related; boundary="b"`, two, 200,
			"CON rx(0 bytes, flags 8) rx(31 bytes, flags 3) rx(2 bytes, flags 19) ACK DIS", "Content-Type: text/plain\r\n\r\none\r\n"},
		{"not accepted", "multipart/mixed; boundary=b", two, 404,
			"CON rx(0 bytes, flags 8) rx(31 bytes, flags 3) rx(2 bytes, flags 19) NAK DIS", "Content-Type: text/plain\r\n\r\none\r\n"},
		{"no parts", "multipart/mixed; boundary=b", "--b--", 200, "CON rx(0 bytes, flags 8) rx(0 bytes, flags 16) ACK DIS", ""},
		{"another type", "text/plain; boundary=b", two, 200, "CON rx(SOM) rx(EOM) ACK DIS", two},
		{"cut short", "multipart/mixed; boundary=b", two[:len(two)-8], 200,
			"CON rx(0 bytes, flags 8) rx(31 bytes, flags 3) rx(SOM) DIS", "Content-Type: text/plain\r\n\r\none\r\n"},
		{"no boundary", "multipart/mixed", two, 200, "CON DIS", ""},
	} {
		for _, p := range protocols {
			url := serveBoth(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", tt.contentType)
				w.WriteHeader(tt.status)
				io.WriteString(w, tt.body)
			}))
			tr := transact(t, contextOf(t, p, url, policy.StreamType{Name: "s", HTTP: &policy.HTTP{MultipartSSIn: true}}), runtime.Handlers{}, 0)
			tr.Want(t, "CRE POL CNG "+tt.want)
			if tr.Body() != tt.got {
				t.Errorf("%s %v: got %q, want %q", tt.name, p, tr.Body(), tt.got)
			}
		}
	}
}

// TestMultipartRedirected checks that a form is not sent twice, and that a request without
// the form does not have its Content-Type.
func TestMultipartRedirected(t *testing.T) {
	for _, p := range protocols {
		for status, wanted := range map[int]string{
			307: "CRE POL CNG UNR ARF", 308: "CRE POL CNG UNR ARF", 302: "CRE POL CNG CON rx(SOM) rx(EOM) ACK DIS", 303: "CRE POL CNG CON rx(SOM) rx(EOM) ACK DIS",
		} {
			url := serveBoth(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/to" {
					fmt.Fprintf(w, "%s %q %d", r.Method, r.Header.Get("Content-Type"), r.ContentLength)
					return
				}
				io.Copy(io.Discard, r.Body)
				http.Redirect(w, r, "/to", status)
			}))
			st := upload("s", "", policy.HTTP{MultipartName: "a", AllowRedirects: true})
			tr := transact(t, contextOf(t, p, url, st), runtime.Handlers{Tx: sender("x")}, 1)
			tr.Want(t, wanted)
			if status < 307 && tr.Body() != `GET "" 0` {
				t.Errorf("%d: the second request was %s", status, tr.Body())
			}
		}
	}
}
