package sspcwire

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

func TestCreateResult(t *testing.T) {
	long := strings.Repeat("r", 31)
	for _, test := range []struct {
		in   []string
		want []string
	}{
		{nil, nil},
		{[]string{"a", "b", "c"}, []string{"a", "b", "c"}},
		{[]string{"a", "b", "c", "d"}, []string{"a", "b", "c"}},
		{[]string{long, long, long}, []string{long, long, long}},
		{[]string{"a", strings.Repeat("r", 126), "b"}, []string{"a"}},
	} {
		var d = NewDecoder(FromProxy)
		f, _, err := d.Next(AppendCreateResult(nil, CreateResult{Buffer: 40000, Rideshares: test.in}))
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.CreateResult()
		if want := (CreateResult{Buffer: 40000, Rideshares: test.want}); err != nil || !cmp.Equal(got, want) {
			t.Errorf("%q: %v, %v", test.in, got, err)
		}
	}
}

func TestRefused(t *testing.T) {
	long := strings.Repeat("x", 0xffff)
	for _, test := range []struct {
		name   string
		append func(b []byte) ([]byte, error)
		want   Rule
	}{
		{"no streamtype", func(b []byte) ([]byte, error) { return AppendStreamType(b, StreamType{}) }, ErrName},
		{"long streamtype", func(b []byte) ([]byte, error) { return AppendStreamType(b, StreamType{Name: long[:32]}) }, ErrName},
		{"metadata without a name", func(b []byte) ([]byte, error) { return AppendMetadata(b, ToProxy, "", "v") }, ErrName},
		{"long name", func(b []byte) ([]byte, error) { return AppendMetadata(b, ToProxy, long[:31], "v") }, ErrName},
		{"metadata without a value", func(b []byte) ([]byte, error) { return AppendMetadata(b, FromProxy, "n", "") }, ErrValue},
		{"long value", func(b []byte) ([]byte, error) { return AppendMetadata(b, FromProxy, "n", long[:0xffff-1]) }, ErrValue},
		{"no perf", func(b []byte) ([]byte, error) { return AppendPerf(b, nil) }, ErrValue},
		{"long payload", func(b []byte) ([]byte, error) {
			return AppendPayload(b, ToProxy, Payload{Data: []byte(long[:MaxPayload+1])})
		}, ErrLength},
		{"long rideshare", func(b []byte) ([]byte, error) {
			return AppendPayload(b, ToProxy, Payload{Rideshare: long[:32]})
		}, ErrName},
	} {
		b, err := test.append([]byte("before"))
		if !errors.Is(err, test.want) || string(b) != "before" {
			t.Errorf("%s: %q, %v; want %v", test.name, b, err, test.want)
		}
	}
}

func TestPayload(t *testing.T) {
	for _, p := range []Payload{
		{},
		{Flags: policy.FlagSOM | policy.FlagEOM, Waited: 1, Time: 2, Data: []byte("data")},
		{Flags: policy.FlagSOM | policy.FlagRideshare, Rideshare: "ride2", Data: []byte("data")},
		{Data: make([]byte, MaxPayload)},
	} {
		b, err := AppendPayload(nil, FromProxy, p)
		if err != nil {
			t.Fatal(err)
		}
		d := Decoder{direction: FromProxy, opened: true}
		f, n, err := d.Next(b)
		if err != nil || n != len(b) {
			t.Fatal(n, err)
		}
		got, err := f.Payload()
		if err != nil || !bytes.Equal(got.Data, p.Data) {
			t.Errorf("%d bytes, want %d; %v", len(got.Data), len(p.Data), err)
		}
		got.Data = p.Data
		if diff := cmp.Diff(p, got); diff != "" {
			t.Error(diff)
		}
	}
	// FlagEnd has no bit on the wire.
	b, err := AppendPayload(nil, FromProxy, Payload{Flags: policy.FlagEnd | policy.FlagEOM})
	if err != nil || !bytes.Equal(b[3:7], []byte{0, 0, 0, 2}) {
		t.Errorf("% x, %v", b, err)
	}
}

func TestConnState(t *testing.T) {
	for _, test := range []struct {
		body []byte
		want policy.State
		arg  uint32
	}{
		{[]byte{6, 0, 0, 0, 1}, policy.StateConnecting, 1},
		{[]byte{0, 6, 0, 0, 0, 1}, policy.StateConnecting, 1},
		{[]byte{0, 0, 6, 0, 0, 0, 1}, policy.StateConnecting, 1},
		{[]byte{0, 0, 5, 0xfa, 1, 2, 3, 4}, 1530, 0x01020304},
		{[]byte{0, 1, 0, 0, 0, 0, 0, 0}, 0, 0},
		{[]byte{0, 0, 0, 0, 0}, 0, 0},
	} {
		s, arg, err := Frame{TypeConnState, test.body}.ConnState()
		if s != test.want || arg != test.arg || (err != nil) != (s == 0) {
			t.Errorf("% x: %v %d, %v", test.body, s, arg, err)
		}
	}
}

// TestAccepts checks that every accepted transition is in lws's table of states.
func TestAccepts(t *testing.T) {
	for s := policy.State(1); s < 21; s++ {
		for next := policy.State(1); next < 21; next++ {
			if Accepts(s, next) && !s.MayBecome(next) {
				t.Errorf("%v to %v", s, next)
			}
		}
		if !Accepts(s, policy.StateUserBase) {
			t.Errorf("%v to a user state", s)
		}
		if end := s.MayBecome(policy.StateDestroying); Accepts(s, policy.StateDestroying) != end || Accepts(s, policy.StateTimeout) != end {
			t.Errorf("%v to TIMEOUT and DESTROYING", s)
		}
	}
}

// TestPath checks that every transition that the runtime may report, except POLL, can be
// reported to a client of lws.
func TestPath(t *testing.T) {
	for s := policy.StateCreating; s <= policy.StateTimeout; s++ {
		for next := policy.StateDisconnected; next <= policy.StateTimeout; next++ {
			if !s.MayBecome(next) || next == policy.StatePoll {
				continue
			}
			at := s
			for _, between := range Path(s, next) {
				if !Accepts(at, between) {
					t.Errorf("%v to %v: %v to %v", s, next, at, between)
				}
				at = between
			}
			if !Accepts(at, next) {
				t.Errorf("%v to %v: no path", s, next)
			}
		}
	}
	for _, test := range []struct {
		from, to policy.State
		want     []policy.State
	}{
		{policy.StateConnected, policy.StateUnreachable, []policy.State{policy.StateDisconnected, policy.StateConnecting}},
		{policy.StateDisconnected, policy.StateUnreachable, []policy.State{policy.StateConnecting}},
		{policy.StateConnecting, policy.StateConnected, nil},
		{policy.StateAllRetriesFailed, policy.StatePoll, nil},
	} {
		if got := Path(test.from, test.to); !cmp.Equal(got, test.want) {
			t.Errorf("%v to %v: %v, want %v", test.from, test.to, got, test.want)
		}
	}
}

func TestReader(t *testing.T) {
	fail := errors.New("reset")
	opening, err := AppendStreamType(nil, StreamType{Name: "get"})
	if err != nil {
		t.Fatal(err)
	}
	long, err := AppendMetadata(opening, ToProxy, "a", strings.Repeat("v", 60000))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		r    io.Reader
		want error
	}{
		{"end", bytes.NewReader(long), io.EOF},
		{"end within a frame", bytes.NewReader(long[:len(long)-1]), ErrTruncated},
		{"end within a header", bytes.NewReader(opening[:2]), ErrTruncated},
		{"error within a frame", io.MultiReader(bytes.NewReader(opening[:2]), iotest.ErrReader(fail)), fail},
		{"error with the last bytes", iotest.DataErrReader(bytes.NewReader(long)), io.EOF},
	} {
		if _, err := readAll(test.r, ToProxy); err != test.want {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}

	r := NewReader(io.MultiReader(bytes.NewReader(long), bytes.NewReader(AppendConnect(nil))), ToProxy, 64)
	for range 3 {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if cap(r.buf) > 64 {
		t.Errorf("a buffer of %d bytes after the long frame", cap(r.buf))
	}
}
