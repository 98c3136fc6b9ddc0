package sspcwire

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/secure-streams/sspolicy/internal/sspctrace"
)

// reencode encodes the decoded contents of f.
func reencode(f Frame, d Direction) ([]byte, error) {
	switch f.Type {
	case TypeStreamType:
		s, err := f.StreamType()
		if err != nil {
			return nil, err
		}
		return AppendStreamType(nil, s)
	case TypeCreateResult:
		r, err := f.CreateResult()
		return AppendCreateResult(nil, r), err
	case TypeConnState:
		s, arg, err := f.ConnState()
		return AppendConnState(nil, s, arg), err
	case TypeRxCredit, TypeTxCredit:
		return AppendCredit(nil, d, f.Credit()), nil
	case TypeTimeout:
		return AppendTimeout(nil, f.Timeout()), nil
	case TypeLengthHint:
		return AppendLengthHint(nil, f.LengthHint()), nil
	case TypeConnect:
		return AppendConnect(nil), nil
	case TypeRxMetadata, TypeTxMetadata:
		name, value, err := f.Metadata()
		if err != nil || len(value) == 0 {
			return nil, err
		}
		return AppendMetadata(nil, d, name, string(value))
	case TypeRx, TypeTx:
		p, err := f.Payload()
		if err != nil {
			return nil, err
		}
		return AppendPayload(nil, d, p)
	case TypeReport:
		return AppendReport(nil, ReportKind(f.Body[0]), string(f.Body[1:])), nil
	case TypePerf:
		if len(f.Body) == 0 {
			return nil, nil
		}
		return AppendPerf(nil, f.Body)
	}
	return nil, errors.New("no case for " + f.Type.String())
}

// readAll decodes all frames of r, and returns them encoded again.
func readAll(r io.Reader, d Direction) (out [][]byte, err error) {
	in := NewReader(r, d, 100)
	for {
		f, err := in.Next()
		if err != nil {
			return out, err
		}
		b, err := reencode(f, d)
		if err != nil {
			return out, err
		}
		out = append(out, b)
	}
}

func links(t testing.TB) []*sspctrace.Link {
	t.Helper()
	links, err := sspctrace.Links()
	if err != nil {
		t.Fatal(err)
	}
	return links
}

// TestTracesOfLWS checks that the frames of lws decode and encode to the same bytes.
func TestTracesOfLWS(t *testing.T) {
	// The client of lws sends names that its proxy refuses, and metadata without a value.
	refused := map[string]Rule{
		"i-handmade-proxy-vs-real-client/streamtype of 51 chars":                          ErrLength,
		"i-handmade-proxy-vs-real-client/streamtype of 60 chars (client tx buffer is 64)": ErrLength,
		"i-handmade-proxy-vs-real-client/METADATA with empty value from client API":       "",
	}
	for _, l := range links(t) {
		for _, d := range []Direction{ToProxy, FromProxy} {
			if d == ToProxy && strings.HasPrefix(l.File, "h") || d == FromProxy && strings.HasPrefix(l.File, "i") {
				continue // hand-made
			}
			b := l.Bytes(d == FromProxy)
			out, err := readAll(bytes.NewReader(b), d)
			if rule, ok := refused[l.Name()]; ok {
				if rule != "" && !errors.Is(err, rule) {
					t.Errorf("%s: %v, want %v", l.Name(), err, rule)
				}
				continue
			}
			if err != io.EOF {
				t.Errorf("%s %s: %v", l.Name(), d, err)
			}
			if !bytes.Equal(bytes.Join(out, nil), b) {
				t.Errorf("%s %s: encoded\n% x\nwant\n% x", l.Name(), d, bytes.Join(out, nil), b)
			}
			split, err := readAll(iotest.OneByteReader(bytes.NewReader(b)), d)
			if err != io.EOF || !slices.EqualFunc(out, split, bytes.Equal) {
				t.Errorf("%s %s: byte by byte: %v", l.Name(), d, err)
			}
		}
	}
}

// TestTracesOfHandmadePeers checks that a Reader rejects what lws rejects.
func TestTracesOfHandmadePeers(t *testing.T) {
	want := map[string]error{
		// lws closes the link. A Reader cannot detect some of its reasons: a missing
		// STREAMTYPE, a server and an unknown streamtype, and metadata that the policy does
		// not declare. Frames after STREAMTYPE are rejected only by a slower reader.
		"protocol version 2":    ErrVersion,
		"protocol version 0":    ErrVersion,
		"STREAMTYPE rem=5 (<6)": ErrLength,
		"STREAMTYPE rem=6 (passes the <6 check, too short for txcr)": ErrLength,
		"STREAMTYPE rem=9: empty name, nothing follows":              ErrLength,
		"STREAMTYPE name of 32 chars":                                ErrLength,
		"second STREAMTYPE":                                          ErrUnexpected,
		"first frame METADATA":                                       ErrUnexpected,
		"first frame ONWARD_CONNECT":                                 ErrUnexpected,
		"first frame TX_PAYLOAD":                                     ErrUnexpected,
		"unknown type 0x01":                                          ErrUnknownType,
		"LINK_VALIDITY_PROBE 0xb3":                                   ErrUnknownType,
		"TLSNEG_ENCLAVE_SIGNED 0xb2":                                 ErrUnknownType,
		"DESTROYING 0xac":                                            ErrUnknownType,
		"RXPRE_TXCR 0x58 sent by client":                             ErrUnknownType,
		"RX_PAYLOAD 0x55 sent by client":                             ErrUnknownType,
		"METADATA name 31 chars":                                     ErrName,
		"METADATA empty name (namelen 0), 8 byte value":              ErrName,
		"TXCR_UPDATE rem=3":                                          ErrLength,
		"TXCR_UPDATE rem=5":                                          ErrLength,
		"TIMEOUT_UPDATE rem=3":                                       ErrLength,
		"TX_PAYLOAD rem=15 (<16)":                                    ErrLength, // lws waits for another byte
		"ONWARD_CONNECT with rem=1: the extra byte is taken as next frame type": ErrUnknownType,

		"CREATE_RESULT len 1 result 0 (short success)": ErrLength,
		"CREATE_RESULT with 128 byte list":             ErrLength,
		"CREATE_RESULT sent twice":                     ErrUnexpected,
		"CONNSTATE len 9":                              ErrLength,
		"CONNSTATE len 4":                              ErrLength,
		"CONNSTATE before CREATE_RESULT":               ErrUnexpected,
		"RX_PAYLOAD before CREATE_RESULT":              ErrUnexpected,
		"RX_PAYLOAD rem=0":                             ErrLength,
		"RIDESHARE name 31 / 32 bytes":                 ErrName,
		"METADATA p2c 30-char name ok / 31 not":        ErrName,
		"TXCR_UPDATE 0x58 len 3":                       ErrLength,
		"TXCR_UPDATE 0x58 len 6":                       ErrLength,
		"PERF len 0":                                   ErrLength,
		"TLSNEG_ENCLAVE_SIGN 0x5a":                     ErrUnknownType,
		"unknown type 0x60":                            ErrUnknownType,
	}
	for _, l := range links(t) {
		d := FromProxy
		switch {
		case strings.HasPrefix(l.File, "h"):
			d = ToProxy
		case !strings.HasPrefix(l.File, "i"):
			continue
		}
		_, err := readAll(bytes.NewReader(l.Bytes(d == FromProxy)), d)
		expected, ok := want[l.Title]
		if !ok {
			expected = io.EOF
		}
		delete(want, l.Title)
		if !errors.Is(err, expected) {
			t.Errorf("%s: %v, want %v (lws: closed by %q)", l.Name(), err, expected, l.Closed)
		}
	}
	for title := range maps.Keys(want) {
		t.Errorf("no trace %q", title)
	}
}

// TestTruncated truncates each trace at every byte.
func TestTruncated(t *testing.T) {
	for _, l := range links(t) {
		for _, d := range []Direction{ToProxy, FromProxy} {
			b := l.Bytes(d == FromProxy)
			if len(b) > 600 {
				b = b[:600]
			}
			whole, _ := readAll(bytes.NewReader(b), d)
			for n := range b {
				part, err := readAll(bytes.NewReader(b[:n]), d)
				if len(part) > len(whole) || !slices.EqualFunc(part, whole[:len(part)], bytes.Equal) {
					t.Fatalf("%s %s: the first %d bytes have other frames", l.Name(), d, n)
				}
				if err == nil {
					t.Fatalf("%s %s: the first %d bytes: no error", l.Name(), d, n)
				}
			}
		}
	}
}
