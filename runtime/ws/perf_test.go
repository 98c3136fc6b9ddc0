package ws_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// TestPerf checks the figures of handshakes and when they are delivered.
func TestPerf(t *testing.T) {
	own := testcert.New("own")
	good := serveWS(t, nil, echo)
	secured := serveWS(t, own.Server(nil, "127.0.0.1"), echo)
	busy := serve(t, nil, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/moved" {
			http.Redirect(w, r, "http://"+good.String()+"/", http.StatusFound)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	refused := testserver.Refused(t)
	for _, tt := range []struct {
		name   string
		addr   string
		st     policy.StreamType
		want   string
		status int // 0 means no response
	}{
		{name: "101", addr: good.String(), want: "CRE POL CNG perf CON", status: 101},
		{name: "TLS", addr: secured.String(), st: policy.StreamType{TLS: true}, want: "CRE POL CNG perf CON", status: 101},
		{name: "redirected", addr: busy.String(), st: policy.StreamType{HTTP: &policy.HTTP{URL: "/moved", AllowRedirects: true}},
			want: "CRE POL CNG perf CON", status: 101},
		{name: "503", addr: busy.String(), want: "CRE POL CNG perf UNR ARF", status: 503},
		{name: "refused", addr: refused.String(), want: "CRE POL CNG perf UNR ARF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st := tt.st
			st.Perf, st.Opportunistic, st.TrustStore = true, true, own.Store()
			st.Endpoint = map[bool]string{true: "wss://", false: "ws://"}[st.TLS] + tt.addr
			if st.HTTP != nil {
				st.Endpoint += st.HTTP.URL
			}
			tr := newTrace(nil)
			_, s := newStream(t, st, good, tr, runtime.Options{})
			got := make(chan string, 1)
			h := tr.handlers()
			h.Rx = func(s *runtime.Stream, buf []byte, flags policy.Flags) policy.Result {
				if flags != policy.FlagPerfJSON|policy.FlagSOM|policy.FlagEOM {
					t.Errorf("flags %d", flags)
				}
				got <- string(buf)
				return tr.Note(s, "perf")
			}
			s.SetHandlers(h)
			s.RequestTx()
			tr.AwaitEnd(t, "CON", "ARF")
			tr.Want(t, tt.want)
			text := <-got
			var f struct {
				Peer     string
				Sockconn int `json:"sockconn_us"`
				TLS      int `json:"tls_us"`
				TxnResp  int `json:"txn_resp_us"`
				Specific struct {
					Protocol string
					Resp     int
				} `json:"prot_specific"`
			}
			if err := json.NewDecoder(strings.NewReader(text)).Decode(&f); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			if (f.Peer == "127.0.0.1") != (tt.status != 0) || f.Specific.Resp != tt.status || (f.Sockconn > 0) != (tt.status != 0) ||
				(f.TxnResp > 0) != (tt.status != 0) || (f.TLS > 0) != st.TLS {
				t.Error(text)
			}
		})
	}
}
