package http_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// figures are the JSON of "perf" in lws 5.0.0.
type figures struct {
	Peer         string
	DNS          int      `json:"dns_us"`
	DNSDisp      int      `json:"dns_disp"`
	Sockconn     int      `json:"sockconn_us"`
	TLS          int      `json:"tls_us"`
	TxnResp      int      `json:"txn_resp_us"`
	Addrs        []string `json:"dns"`
	ProtSpecific *struct {
		Protocol string
		Resp     int
	} `json:"prot_specific"`
}

// dialNameless connects by names of the hosts file alone: its name server knows none.
var dialNameless = (&net.Dialer{Resolver: &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		for size := make([]byte, 2); ; {
			if _, err := io.ReadFull(theirs, size); err != nil {
				return
			}
			message := make([]byte, binary.BigEndian.Uint16(size))
			if _, err := io.ReadFull(theirs, message); err != nil {
				return
			}
			message[2], message[3] = 0x81, 0x83 // NXDOMAIN (RFC 1035, section 4.1.1)
			theirs.Write(slices.Concat(size, message))
		}
	}()
	return ours, nil
}}}).DialContext

// TestPerf checks the figures of attempts and the time of their delivery.
func TestPerf(t *testing.T) {
	own := testcert.New("own")
	good := status(200, "x")
	for _, tt := range []struct {
		name     string
		st       policy.StreamType
		sv       server
		again    bool // check the second request, on the connection of the first
		events   string
		dns      int // dns_disp
		status   int // 0 means no response
		tls, new bool
	}{
		{name: "h1", sv: server{handler: good}, events: "CRE POL CNG perf CON rx(SOM) rx(EOM) ACK DIS", status: 200, new: true},
		{name: "h1 by name", st: policy.StreamType{Endpoint: "localhost"}, sv: server{handler: good}, events: "CRE POL CNG perf CON rx(SOM) rx(EOM) ACK DIS", status: 200, new: true, dns: 1},
		{name: "h1 again", sv: server{handler: good}, again: true, events: "CRE POL CNG perf CON rx(SOM) rx(EOM) ACK DIS", status: 200},
		{name: "h1 with TLS", st: policy.StreamType{TLS: true}, sv: server{handler: good, tls: own.Server(nil, "127.0.0.1")},
			events: "CRE POL CNG perf CON rx(SOM) rx(EOM) ACK DIS", status: 200, new: true, tls: true},
		{name: "h2", st: policy.StreamType{TLS: true, Protocol: policy.ProtocolH2}, sv: server{handler: good, tls: own.Server([]string{"h2"}, "127.0.0.1")},
			events: "CRE POL CNG perf CON rx(SOM) rx(EOM) ACK DIS", status: 200, new: true, tls: true},
		{name: "h2 again", st: policy.StreamType{TLS: true, Protocol: policy.ProtocolH2}, sv: server{handler: good, tls: own.Server([]string{"h2"}, "127.0.0.1")},
			again: true, events: "CRE POL CNG perf CON rx(SOM) rx(EOM) ACK DIS", status: 200},
		{name: "refused", sv: server{refused: true}, events: "CRE POL CNG perf UNR ARF"},
		{name: "no such name", st: policy.StreamType{Endpoint: "nowhere.invalid"}, sv: server{refused: true},
			events: "CRE POL CNG perf UNR ARF", dns: 3},
		{name: "503", sv: server{handler: status(503, "")}, events: "CRE POL CNG perf UNR ARF", status: 503, new: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr := tt.sv.start(t)
			st := tt.st
			st.Name, st.Perf, st.Opportunistic, st.TrustStore = "s", true, true, own.Store()
			if st.Endpoint == "" {
				st.Endpoint = addr.Addr().String()
			}
			var mu sync.Mutex
			var got []string
			tr := &teststream.Trace{}
			_, s := newStream(t, st, addr, tr, runtime.Options{DialContext: dialNameless})
			h := handlers(tr)
			rx := h.Rx
			h.Rx = func(s *runtime.Stream, buf []byte, flags policy.Flags) policy.Result {
				if flags&policy.FlagPerfJSON == 0 {
					return rx(s, buf, flags)
				}
				if flags != policy.FlagPerfJSON|policy.FlagSOM|policy.FlagEOM {
					t.Errorf("flags %d", flags)
				}
				mu.Lock()
				got = append(got, string(buf))
				mu.Unlock()
				return tr.Note(s, "perf")
			}
			s.SetHandlers(h)
			s.RequestTx()
			tr.AwaitEnd(t, "DIS", "ARF")
			tr.Want(t, tt.events)
			if tt.again {
				n := len(tr.Events())
				s.RequestTx()
				awaitEvents(t, tr, 2*n-1) // all except CRE
			}
			mu.Lock()
			defer mu.Unlock()
			var f figures
			d := json.NewDecoder(strings.NewReader(got[len(got)-1]))
			d.DisallowUnknownFields()
			if err := d.Decode(&f); err != nil {
				t.Fatalf("%s: %v", got, err)
			}
			peer := ""
			if tt.new || tt.again {
				peer = "127.0.0.1"
			}
			if f.Peer != peer || f.DNSDisp != tt.dns || (f.Sockconn > 0) != tt.new || (f.TLS > 0) != tt.tls {
				t.Errorf("%s", got)
			}
			if (tt.status == 0) != (f.ProtSpecific == nil) || tt.status != 0 && (f.ProtSpecific.Protocol != "http" || f.ProtSpecific.Resp != tt.status || f.TxnResp <= 0) {
				t.Errorf("%s", got)
			}
			if (tt.dns == 1) != (len(f.Addrs) > 0) {
				t.Errorf("%s", got)
			}
			for _, a := range f.Addrs {
				if ip, err := netip.ParseAddr(a); err != nil || !ip.IsLoopback() {
					t.Errorf("%s", got)
				}
			}
		})
	}
}
