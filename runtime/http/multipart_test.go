package http_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/runtime"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

var protocols = []policy.Protocol{policy.ProtocolH1, policy.ProtocolH2}

// both returns the URL of a server that speaks h1 and h2 without TLS.
func both(t *testing.T, h http.Handler) string {
	t.Helper()
	sv := httptest.NewUnstartedServer(h)
	sv.Config.Protocols = new(http.Protocols)
	sv.Config.Protocols.SetHTTP1(true)
	sv.Config.Protocols.SetUnencryptedHTTP2(true)
	sv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	sv.Start()
	t.Cleanup(sv.Close)
	return sv.URL
}

// contextOf returns a context of streamtypes that speak to url.
func contextOf(t *testing.T, p policy.Protocol, url string, types ...policy.StreamType) *runtime.Context {
	t.Helper()
	policy := &policy.Policy{}
	for _, st := range types {
		st.Protocol, st.Endpoint, st.Opportunistic = p, url, true
		policy.StreamTypes = append(policy.StreamTypes, &st)
	}
	c, err := runtime.NewContext(policy, runtime.Options{
		Transports: []transport.Transport{sshttp.New()},
		Logger:     slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// upload is a streamtype whose message is a part of a multipart request.
func upload(name, rideshare string, h policy.HTTP) policy.StreamType {
	h.Method = "POST"
	return policy.StreamType{Name: name, Rideshare: rideshare, HTTP: &h}
}

// describe writes the request as the server has it: method, each part with its
// headers, and whether its length was announced.
func describe(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintln(w, r.Method)
	counted := &countedBody{ReadCloser: r.Body}
	r.Body = counted
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
		length = fmt.Sprint("length ", r.ContentLength-counted.n, " off")
	}
	fmt.Fprintf(w, "%d %v, %s", len(rest), err, length)
}

type countedBody struct {
	io.ReadCloser
	n int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	return n, err
}

// inTurn returns a Tx that gives the message of each streamtype in pieces, and
// notes which it was asked for.
func inTurn(messages map[string][]string, asked *[]string) func(*runtime.Stream, uint32, []byte) (int, policy.Flags, policy.Result) {
	at := map[string]int{}
	return func(s *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
		name := s.Rideshare().Name
		*asked = append(*asked, name)
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

// TestMultipart checks what a server gets of multipart requests and of requests
// that streamtypes share.
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
		asked    string
		known    bool // the content-length is
		want     string
	}{
		{"name, filename and type", []policy.StreamType{upload("s", "", full)},
			map[string][]string{"s": {"ab", "c"}}, 0, "s s", false, fullHeader + ` 3 "abc" <nil>`},
		{"with a length", []policy.StreamType{upload("s", "", full)},
			map[string][]string{"s": {"ab", "c"}}, 3, "s s", true, fullHeader + ` 3 "abc" <nil>`},
		{"no_content_length", []policy.StreamType{upload("s", "", policy.HTTP{MultipartName: "n", NoContentLength: true})},
			map[string][]string{"s": {"ab", "c"}}, 3, "s s", false, disposition + `"n"]] 3 "abc" <nil>`},
		{"more than announced is not asked for", []policy.StreamType{upload("s", "", policy.HTTP{MultipartName: "n"})},
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
				c := contextOf(t, p, both(t, http.HandlerFunc(describe)), tt.types...)
				var asked []string
				h := runtime.Handlers{}
				if tt.messages != nil {
					h.Tx = inTurn(tt.messages, &asked)
				}
				tr := transact(t, c, h, tt.length)
				want(t, tr, "CRE POL CNG CON rx(SOM) rx(EOM) ACK DIS")
				if got := strings.Join(asked, " "); got != tt.asked {
					t.Errorf("Tx was for %q, want %q", got, tt.asked)
				}
				length := "length unknown"
				if tt.known {
					length = "length 0 off"
				}
				if got, want := string(tr.body), "POST\n"+tt.want+"\nEOF\n0 <nil>, "+length; got != want {
					t.Errorf("the server got\n%s\nwant\n%s", got, want)
				}
			})
		}
	}
}

// transact makes a stream "s", and waits for the end of its transaction.
func transact(t *testing.T, c *runtime.Context, h runtime.Handlers, length uint64) *trace {
	t.Helper()
	tr := &trace{on: on{"CRE": func(s *runtime.Stream) policy.Result {
		s.SetHandlers(h)
		s.RequestTxLen(length)
		return policy.OK
	}}}
	if _, err := c.NewStream("s", tr.handlers()); err != nil {
		t.Fatal(err)
	}
	tr.AwaitEnd(t, "DIS", "ARF")
	return tr
}

// TestMultipartForm checks that net/http's own reading of a form finds values
// and files.
func TestMultipartForm(t *testing.T) {
	file := strings.Repeat("0123456789abcdef\r\n--", 20_000)
	for _, p := range protocols {
		url := both(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
		want(t, tr, "CRE POL CNG CON ACK DIS")
	}
}

// TestRideshare checks requests that are shared without being multipart.
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
			url := both(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				fmt.Fprintf(w, "%s (%s, %d)", body, r.Method, r.ContentLength)
			}))
			var asked []string
			tr := transact(t, contextOf(t, p, url, types...), runtime.Handlers{Tx: inTurn(tt.messages, &asked)}, tt.length)
			if got, want := string(tr.body), "abc"+tt.want; got != want {
				t.Errorf("%v: the server got %q, want %q: %s", p, got, want, tr)
			}
		}
	}
}

// TestMultipartFails checks requests that can not be made whole.
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
			c := contextOf(t, p, both(t, http.HandlerFunc(describe)), two...)
			var asked []string
			h := runtime.Handlers{}
			if tt.messages != nil {
				h.Tx = inTurn(tt.messages, &asked)
			}
			want(t, transact(t, c, h, tt.length), "CRE POL CNG UNR ARF")
		}
		for header, value := range map[string]string{"content-type:": "a/b", "content-length:": "100"} {
			st := upload("s", "", policy.HTTP{MultipartName: "a"})
			st.Metadata = []policy.Metadata{{Name: "m", Header: header}}
			c := contextOf(t, p, both(t, http.HandlerFunc(describe)), st)
			_, err := c.Fetch(t.Context(), "s", runtime.WithMetadata("m", value))
			if _, ok := errors.AsType[*sshttp.HeaderError](err); !ok {
				t.Errorf("%v %s: %v", p, header, err)
			}
		}
	}
}

// TestMultipartAnswer checks what a stream gets of a multipart response.
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
			url := both(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", tt.contentType)
				w.WriteHeader(tt.status)
				io.WriteString(w, tt.body)
			}))
			tr := transact(t, contextOf(t, p, url, policy.StreamType{Name: "s", HTTP: &policy.HTTP{MultipartSSIn: true}}), runtime.Handlers{}, 0)
			want(t, tr, "CRE POL CNG "+tt.want)
			if string(tr.body) != tt.got {
				t.Errorf("%s %v: got %q, want %q", tt.name, p, tr.body, tt.got)
			}
		}
	}
}

// TestMultipartRedirected checks that a form is not sent twice, and that what
// said it was one does not go with a request that has none.
func TestMultipartRedirected(t *testing.T) {
	for _, p := range protocols {
		for status, wanted := range map[int]string{
			307: "CRE POL CNG UNR ARF", 308: "CRE POL CNG UNR ARF", 302: "CRE POL CNG CON rx(SOM) rx(EOM) ACK DIS", 303: "CRE POL CNG CON rx(SOM) rx(EOM) ACK DIS",
		} {
			url := both(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/to" {
					fmt.Fprintf(w, "%s %q %d", r.Method, r.Header.Get("Content-Type"), r.ContentLength)
					return
				}
				io.Copy(io.Discard, r.Body)
				http.Redirect(w, r, "/to", status)
			}))
			st := upload("s", "", policy.HTTP{MultipartName: "a", AllowRedirects: true})
			tr := transact(t, contextOf(t, p, url, st), runtime.Handlers{Tx: sender("x")}, 1)
			want(t, tr, wanted)
			if status < 307 && string(tr.body) != `GET "" 0` {
				t.Errorf("%d: the second request was %s", status, tr.body)
			}
		}
	}
}
