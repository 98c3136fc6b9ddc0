package http

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/textproto"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// An assembler joins the pieces that split delivers. An event is "start", "end", or a whole
// message in quotes. Inconsistent pieces fail the test.
type assembler struct {
	t      testing.TB
	events []string
	parts  []string
	inside bool
}

func (m *assembler) rx(p []byte, flags policy.Flags) error {
	if flags == policy.FlagRelatedStart {
		if len(m.events) > 0 || len(p) > 0 {
			m.t.Errorf("start with %d bytes after %q", len(p), m.events)
		}
		m.events = append(m.events, "start")
		return nil
	}
	if flags == policy.FlagRelatedEnd {
		if len(p) > 0 || m.inside {
			m.t.Errorf("end with %d bytes after %q", len(p), m.events)
		}
		m.events = append(m.events, "end")
		return nil
	}
	if som := flags&policy.FlagSOM != 0; som == m.inside {
		m.t.Errorf("SOM is %v after %q", som, m.events)
	} else if som {
		m.inside = true
		m.parts = append(m.parts, "")
	}
	m.parts[len(m.parts)-1] += string(p)
	if flags&policy.FlagEOM != 0 {
		m.inside = false
		m.events = append(m.events, fmt.Sprintf("%q", m.parts[len(m.parts)-1]))
	}
	if flags&policy.FlagRelatedEnd != 0 {
		m.events = append(m.events, "end")
	}
	return nil
}

// parts splits the body that r reads.
func parts(t testing.TB, r io.Reader, boundary string) (*assembler, error) {
	m := &assembler{t: t}
	err := split(r, boundary, m.rx)
	if err == nil && (m.inside || len(m.events) == 0 || m.events[len(m.events)-1] != "end") {
		t.Errorf("the events end with %q", m.events)
	}
	return m, err
}

func TestSplit(t *testing.T) {
	long := strings.Repeat("0123456789", 7)
	spaces := strings.Repeat(" ", maxPadding)
	for _, tt := range []struct{ name, boundary, body, want string }{
		{"one part", "b", "--b\r\nA: b\r\n\r\nbody\r\n--b--\r\n", `start "A: b\r\n\r\nbody" end`},
		{"no line break at the end", "b", "--b\r\n\r\nbody\r\n--b--", `start "\r\nbody" end`},
		{"two parts", "b", "--b\r\nA: b\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--", `start "A: b\r\n\r\none" "\r\ntwo" end`},
		{"preamble and epilogue", "b", "for those\r\nwho\r\n--b\r\n\r\nx\r\n--b--\r\n\r\n--b\r\nepilogue\r\n--b--", `start "\r\nx" end`},
		{"a line break before the first", "b", "\r\n--b\r\n\r\nx\r\n--b--", `start "\r\nx" end`},
		{"empty parts", "b", "--b\r\n\r\n--b\r\n--b\r\n\r\n\r\n--b--", `start "" "" "\r\n" end`},
		{"no parts", "b", "--b--\r\n", `start end`},
		{"no parts after a preamble", "b", "x\r\n--b--\r\n", `start end`},
		{"padding", "b", "--b \t \r\n\r\nx\r\n--b\t\r\n\r\ny\r\n--b--  \r\n", `start "\r\nx" "\r\ny" end`},
		{"the most padding", "b", "--b" + spaces + "\r\n\r\nx\r\n--b--", `start "\r\nx" end`},
		{"more padding", "b", "--b\r\n\r\n--b" + spaces + " \r\n\r\n--b--", `start "\r\n--b` + spaces + ` \r\n" end`},
		{"longest boundary", long, "--" + long + "\r\n\r\nx\r\n--" + long[:69] + "\r\n--" + long + "--", `start "\r\nx\r\n--` + long[:69] + `" end`},
		{"dashes in the boundary", "--", "----\r\n\r\nx\r\n---\r\n------", `start "\r\nx\r\n---" end`},
		{"near misses", "bb", "--bb\r\n\r\n\r\n--b\r\r\n--\r\n\r\n--bbb\r\n--bb-\r\n --bb\r\n\n--bb\r\n\r\n--bb--", `start "\r\n\r\n--b\r\r\n--\r\n\r\n--bbb\r\n--bb-\r\n --bb\r\n\n--bb\r\n" end`},
		{"no line break before", "b", "--b\r\n\r\nx--b\r\n--b--", `start "\r\nx--b" end`},
		{"a delimiter of line feeds is none", "b", "--b\r\n\nx\n--b\n\r\n--b--", `start "\nx\n--b\n" end`},
		{"cut short in a part", "b", "--b\r\n\r\nx", `start unexpected EOF`},
		{"cut short before the last delimiter", "b", "--b\r\n\r\nx\r\n--b\r\n\r\ny", `start "\r\nx" unexpected EOF`},
		{"cut short in the last delimiter", "b", "--b\r\n\r\nx\r\n--b-", `start unexpected EOF`},
		{"cut short after a delimiter", "b", "--b\r\n\r\nx\r\n--b\r\n", `start "\r\nx" unexpected EOF`},
		{"empty", "b", "", `start unexpected EOF`},
		{"not multipart at all", "b", "hello", `start unexpected EOF`},
	} {
		for name, reader := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.OneByteReader, "halves": iotest.HalfReader, "with the error": iotest.DataErrReader,
		} {
			m, err := parts(t, reader(strings.NewReader(tt.body)), tt.boundary)
			got := strings.Join(m.events, " ")
			if err != nil {
				got += " " + err.Error()
			}
			if got != tt.want {
				t.Errorf("%s, %s:\n got %s\nwant %s", tt.name, name, got, tt.want)
			}
		}
	}
}

// TestSplitReads checks that the parts do not depend on the boundaries of reads, also
// around the size of the buffer.
func TestSplitReads(t *testing.T) {
	for size := bufferSize - 100; size < bufferSize+100; size++ {
		part := strings.Repeat("x", size)
		body := "--b\r\n" + part + "\r\n--b\r\n" + part + "\r\n--b--"
		m, err := parts(t, strings.NewReader(body), "b")
		if err != nil || !slices.Equal(m.parts, []string{part, part}) {
			t.Fatalf("%d bytes: %d parts, %v", size, len(m.parts), err)
		}
	}
	body := "pre\r\n--bound\r\nA: b\r\n\r\n1\r\n--boun\r\n--bound \r\n\r\n2\r\n--bound--\r\npost"
	for i := range body {
		for j := i; j < len(body); j++ {
			m, err := parts(t, io.MultiReader(strings.NewReader(body[:i]), strings.NewReader(body[i:j]), strings.NewReader(body[j:])), "bound")
			if got := strings.Join(m.events, " "); err != nil || got != `start "A: b\r\n\r\n1\r\n--boun" "\r\n2" end` {
				t.Fatalf("split at %d and %d: %s, %v", i, j, got, err)
			}
		}
	}
}

// TestSplitMemory checks that memory does not grow with the body, its parts, or
// their number.
func TestSplitMemory(t *testing.T) {
	for name, piece := range map[string]string{
		"one part": strings.Repeat("x", 1<<16), "line breaks": strings.Repeat("\r\n-", 1<<14), "empty parts": strings.Repeat("\r\n--b\r\n", 1<<13),
		"padding": "\r\n--b" + strings.Repeat(" ", 1<<16),
	} {
		for _, start := range []string{"", "--b\r\n"} {
			body := &repeater{start: start, piece: piece, n: 1 << 8} // 16 MB
			var before, after goruntime.MemStats
			goruntime.ReadMemStats(&before)
			err := split(body, "b", func(p []byte, _ policy.Flags) error {
				if len(p) > bufferSize {
					t.Errorf("%s: a piece of %d bytes", name, len(p))
				}
				return nil
			})
			goruntime.ReadMemStats(&after)
			want := io.ErrUnexpectedEOF
			if start == "" && name != "empty parts" { // the other texts are a preamble
				want = errOutside
			}
			if grown := after.TotalAlloc - before.TotalAlloc; err != want || grown > 1<<20 {
				t.Errorf("%s: %v, and %d bytes were allocated", name, err, grown)
			}
		}
	}
}

// A repeater reads start, and then n times piece.
type repeater struct {
	start, piece, rest string
	n                  int
}

func (r *repeater) Read(p []byte) (int, error) {
	n := copy(p, r.start)
	r.start = r.start[n:]
	for n < len(p) {
		if r.rest == "" {
			if r.n--; r.n < 0 {
				break
			}
			r.rest = r.piece
		}
		k := copy(p[n:], r.rest)
		r.rest = r.rest[k:]
		n += k
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func TestSplitErrors(t *testing.T) {
	broken := errors.New("broken")
	for body, want := range map[string]string{"": "start", "--b\r\n\r\nx": "start", "--b\r\n\r\nx\r\n--b--": `start "\r\nx" end`} {
		m, err := parts(t, io.MultiReader(strings.NewReader(body), iotest.ErrReader(broken)), "b")
		if got := strings.Join(m.events, " "); err != broken || got != want {
			t.Errorf("%q: %s, %v", body, got, err)
		}
	}
	for _, n := range []int{maxOutside, maxOutside + 1} {
		want := error(nil)
		if n > maxOutside {
			want = errOutside
		}
		junk := strings.Repeat("x", n)
		for _, body := range []string{junk + "\r\n--b\r\n1\r\n--b--", "--b\r\n1\r\n--b--" + junk} {
			for _, r := range []io.Reader{strings.NewReader(body), chunkReader{strings.NewReader(body), 7}} {
				if _, err := parts(t, r, "b"); err != want {
					t.Errorf("%d bytes outside of the parts: %v", n, err)
				}
			}
		}
	}
	for stop := range 5 { // the program ends the stream
		calls := 0
		err := split(strings.NewReader("--b\r\n1\r\n--b\r\n2\r\n--b\r\n3\r\n--b--"), "b", func([]byte, policy.Flags) error {
			if calls++; calls > stop {
				return broken
			}
			return nil
		})
		if stop < 4 && (err != broken || calls != stop+1) || stop == 4 && err != nil {
			t.Errorf("stopped after %d: %d calls, %v", stop, calls, err)
		}
	}
}

func TestBoundaryOf(t *testing.T) {
	long := strings.Repeat("b", 70)
	for _, tt := range []struct{ contentType, want string }{
		{"", ""},
		{"text/plain; boundary=x", ""},
		{"multipart", ""},
		{"multipart/related; boundary=x", "x"},
		{"Multipart/Form-Data; charset=utf-8; BOUNDARY=x", "x"},
		{`multipart/mixed; boundary="a b:c=\"d"`, `a b:c="d`},
		{"multipart/related; boundary=" + long, long},
		{"multipart/related; boundary=" + long + "b", "error"},
		{`multipart/related; boundary=""`, "error"},
		{"multipart/related", "error"},
		{"multipart/related; boundary", "error"},
		{"multipart/related; boundary=a; boundary=b", "error"},
	} {
		got, err := boundaryOf(tt.contentType)
		if err != nil {
			if !errors.Is(err, errBoundary) {
				t.Errorf("%q: %v", tt.contentType, err)
			}
			got = "error"
		}
		if got != tt.want {
			t.Errorf("%q: %q, want %q", tt.contentType, got, tt.want)
		}
	}
}

// A chunkReader reads at most n bytes at a time.
type chunkReader struct {
	r io.Reader
	n int
}

func (c chunkReader) Read(p []byte) (int, error) { return c.r.Read(p[:min(len(p), c.n)]) }

// FuzzMultipart checks that split finds the parts that mime/multipart writes, independently
// of the sizes of reads, and the same parts as mime/multipart in any body that
// mime/multipart reads to its end.
func FuzzMultipart(f *testing.F) {
	f.Add("b", "body", "\r\n--b", "", uint8(3), "--b\r\n\r\nx\r\n--b--")
	f.Add("----", "\r\n------", "--", "\r", uint8(1), "pre\r\n------\r\nA: b\r\n\r\nx\r\n------ \t\r\n\r\n\r\n--------\r\npost")
	f.Add(strings.Repeat("0123456789", 7), "\r\n--0123456789", "\r\n\r\n", "\n", uint8(70), "--x\r\n\r\n")
	f.Add("a b'()+_,-./:=?c", "1", "2", "3", uint8(7), "--a b'()+_,-./:=?c\r\n\r\n--a b'()+_,-./:=?c--")
	f.Fuzz(func(t *testing.T, boundary, one, two, three string, size uint8, raw string) {
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		if w.SetBoundary(boundary) != nil {
			return
		}
		n := max(int(size), 1)
		if delimiter := "\r\n--" + boundary; !strings.Contains("\r\n"+one+"\r\n"+two+"\r\n"+three+"\r\n", delimiter) {
			var want []string
			for i, body := range []string{one, two, three} {
				name := fmt.Sprint(i)
				pw, _ := w.CreatePart(textproto.MIMEHeader{"X": {name}})
				io.WriteString(pw, body)
				want = append(want, "X: "+name+"\r\n\r\n"+body)
			}
			w.Close()
			m, err := parts(t, chunkReader{&b, n}, boundary)
			if err != nil || !slices.Equal(m.parts, want) {
				t.Errorf("got %q, %v, want %q", m.parts, err, want)
			}
		}

		whole, err := parts(t, strings.NewReader(raw), boundary)
		pieces, err2 := parts(t, chunkReader{strings.NewReader(raw), n}, boundary)
		if err != err2 || !slices.Equal(whole.events, pieces.events) {
			t.Errorf("whole: %q, %v; in pieces of %d: %q, %v", whole.events, err, n, pieces.events, err2)
		}
		raw += "\r\n--" + boundary + "--\r\n" // mime/multipart accepts some bodies that are cut short
		whole, err = parts(t, strings.NewReader(raw), boundary)
		if bodies, ok := oracle(raw, boundary); ok {
			if err != nil || len(bodies) != len(whole.parts) {
				t.Fatalf("got %q, %v, want %q", whole.parts, err, bodies)
			}
			for i, part := range whole.parts {
				if !strings.HasSuffix(part, bodies[i]) {
					t.Errorf("part %d is %q, want %q", i, part, bodies[i])
				}
			}
		}
	})
}

// oracle returns the bodies of the parts that mime/multipart finds. ok is false if
// it fails, or if it might differ because it accepts line feeds as line breaks.
func oracle(raw, boundary string) (bodies []string, ok bool) {
	if strings.Count(raw, "\n") != strings.Count(raw, "\r\n") {
		return nil, false
	}
	r := multipart.NewReader(strings.NewReader(raw), boundary)
	for {
		p, err := r.NextRawPart()
		if err != nil {
			return bodies, err == io.EOF
		}
		body, err := io.ReadAll(p)
		if err != nil {
			return nil, false
		}
		bodies = append(bodies, string(body))
	}
}
