//go:build unix

package file_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/file"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// newContext returns a context for streamtypes whose endpoint is a file.
func newContext(t *testing.T, types ...*policy.StreamType) *runtime.Context {
	return teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{file.New()}}, types...)
}

// TestFile checks the events, payload and flags of files, and which paths are rejected.
func TestFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, size int) []byte {
		data := bytes.Repeat([]byte("0123456789"), size/10+1)[:size]
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
		return data
	}
	write("small", 5)
	write("empty", 0)
	write("exact", 16<<10)
	write("more", 16<<10+1)
	write("large", 100_000)
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	const good = " CON rx ACK DIS"
	for _, tt := range []struct {
		endpoint, m string
		want        string
		size        int
		err         error
	}{
		{"file://" + dir + "/small", "", good, 5, nil},
		{"file://" + dir + "/empty", "", good, 0, nil},
		{"file://" + dir + "/exact", "", good, 16 << 10, nil},
		{"file://" + dir + "/more", "", " CON rx rx ACK DIS", 16<<10 + 1, nil},
		{"file://" + dir + "/large", "", " CON rx rx rx rx rx rx rx ACK DIS", 100_000, nil},
		{"file://" + dir + "/${m}", "small", good, 5, nil},
		{"file://" + dir + "/${m}", "none", " UNR ARF", 0, fs.ErrNotExist},
		{"file://" + dir + "/sub/${m}/small", "..", " UNR ARF", 0, runtime.ErrEndpoint},
		{"file://" + dir + "/x/.${m}/small", ".", " UNR ARF", 0, runtime.ErrEndpoint},
		{"file://" + dir, "", " UNR ARF", 0, runtime.ErrEndpoint},
		{"file://" + dir + "/pipe", "", " UNR ARF", 0, runtime.ErrEndpoint},
	} {
		c := newContext(t, &policy.StreamType{Name: "s", Endpoint: tt.endpoint, Opportunistic: true,
			ClientCert: 1, HTTP: &policy.HTTP{AuthHeader: "authorization:"}, Metadata: []policy.Metadata{{Name: "m"}}})
		tr := new(teststream.Trace)
		h := runtime.Handlers{State: tr.State}
		var mu sync.Mutex
		var got []byte
		var all []runtime.Flags
		h.Rx = func(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
			mu.Lock()
			got = append(got, buf...)
			all = append(all, flags)
			mu.Unlock()
			return tr.Note(s, "rx")
		}
		s, err := c.NewStream("s", h)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.SetMetadata("m", tt.m); err != nil {
			t.Error(err)
		}
		s.RequestTx()
		tr.AwaitEnd(t, "DIS", "ARF")
		if tr.String() != "CRE POL CNG"+tt.want || !errors.Is(s.Err(), tt.err) {
			t.Errorf("%s with %q: %s, %v; want CRE POL CNG%s, %v", tt.endpoint, tt.m, tr, s.Err(), tt.want, tt.err)
		}
		mu.Lock()
		if want := bytes.Repeat([]byte("0123456789"), 10_000)[:tt.size]; !bytes.Equal(got, want) {
			t.Errorf("%s: got %d bytes, want %d, or the bytes differ", tt.endpoint, len(got), tt.size)
		}
		for i, flags := range all {
			var want runtime.Flags
			if i == 0 {
				want |= runtime.FlagSOM
			}
			if i == len(all)-1 {
				want |= runtime.FlagEOM
			}
			if flags != want {
				t.Errorf("%s: piece %d of %d has the flags %d", tt.endpoint, i, len(all), flags)
			}
		}
		mu.Unlock()
	}
}

// TestFileNames checks which metadata may be part of a path.
func TestFileNames(t *testing.T) {
	c := newContext(t, &policy.StreamType{Name: "s", Protocol: policy.ProtocolRaw, Endpoint: "file:///tmp/${m}", Metadata: []policy.Metadata{{Name: "m"}}},
		&policy.StreamType{Name: "none", Protocol: policy.ProtocolRaw, Endpoint: "file://"})
	s, err := c.NewStream("s", runtime.Handlers{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"a/b", "../x", "a\x00", "a\n"} {
		if err := s.SetMetadata("m", v); !errors.Is(err, runtime.ErrMetadataValue) {
			t.Errorf("%q is accepted: %v", v, err)
		}
	}
	if _, err := c.NewStream("none", runtime.Handlers{}); !errors.Is(err, runtime.ErrEndpoint) {
		t.Errorf("an empty path: %v", err)
	}
}
