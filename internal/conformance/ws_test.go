//go:build linux

package conformance

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

// serveWS is what stands behind the proxies.
func serveWS(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/ws/not" {
		http.Error(w, "no such room", http.StatusNotFound)
		return
	}
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(-1)
	switch r.URL.Path {
	case "/ws/close":
		c.Close(4000, "enough")
	case "/ws/drop":
		c.Write(context.Background(), websocket.MessageText, []byte("hello"))
	case "/ws/silent":
		c.Read(context.Background())
	default:
		for {
			kind, msg, err := c.Read(context.Background())
			if err != nil || c.Write(context.Background(), kind, msg) != nil {
				return
			}
		}
	}
}

// TestWS runs ws streams through nginx and haproxy.
func TestWS(t *testing.T) {
	m := setMark()
	own, other := testcert.New("own"), testcert.New("other")
	closed := func(code int, reason string) func(error) bool {
		return func(err error) bool {
			e, ok := errors.AsType[*ws.CloseError](err)
			return ok && e.Code == code && e.Reason == reason
		}
	}
	notFound := func(err error) bool {
		e, ok := errors.AsType[*ws.StatusError](err)
		return ok && e.Code == http.StatusNotFound
	}
	rows := []struct {
		name, at, url string
		st            func(*runtime.StreamType)
		tls           bool
		tx            string
		want          string // how the sequence begins
		cause         func(error) bool
	}{
		{name: "echo", url: "/ws/echo", tx: "hello", want: "CRE POL CNG CON rx(whole) DIS"},
		{name: "large echo", url: "/ws/echo", tx: string(large[:1<<20]), want: "CRE POL CNG CON rx"},
		{name: "the peer closes", url: "/ws/close", want: "CRE POL CNG CON DIS", cause: closed(4000, "enough")},
		{name: "the peer closes, not opportunistic", url: "/ws/close", st: func(st *runtime.StreamType) { st.Opportunistic = false },
			want: "CRE POL CNG CON DIS POL CNG CON DIS"},
		{name: "the peer is gone", url: "/ws/drop", want: "CRE POL CNG CON rx(whole) DIS", cause: is(io.ErrUnexpectedEOF)},
		{name: "the proxy hangs up on silence", url: "/ws/silent", want: "CRE POL CNG CON DIS", cause: is(io.ErrUnexpectedEOF)},
		{name: "PINGs keep it", url: "/ws/echo", st: func(st *runtime.StreamType) {
			st.Retry = &runtime.Retry{ValidPing: 300 * time.Millisecond, ValidHangup: 10 * time.Second}
			st.Timeout = 3 * time.Second
		}, want: "CRE POL CNG CON TMO DIS"},
		{name: "not 101", url: "/ws/not", want: unreachable, cause: notFound},
		{name: "503", url: "/503", want: unreachable},
		{name: "TLS", tls: true, url: "/ws/echo", tx: "hello", want: "CRE POL CNG CON rx(whole) DIS"},
		{name: "expired", at: "expired", tls: true, url: "/ws/echo", want: unreachable, cause: isTLS},
		{name: "wrong host", at: "wrong host", tls: true, url: "/ws/echo", want: unreachable, cause: isTLS},
		{name: "wrong store", tls: true, url: "/ws/echo", st: secure(other.Store()), want: unreachable, cause: isTLS},
		{name: "TLS to a plain port", at: "plain", tls: true, url: "/ws/echo", want: unreachable},
	}
	t.Run("all", func(t *testing.T) {
		for _, p := range []*program{&nginx, &haproxy} {
			site := p.start(t, own)
			t.Run(p.name, func(t *testing.T) {
				for _, r := range rows {
					t.Run(r.name, func(t *testing.T) {
						t.Parallel()
						at := r.at
						if at == "" {
							at = map[bool]string{true: "TLS", false: "plain"}[r.tls]
						}
						st := streamType(site.addrs[at])
						st.Protocol, st.HTTP.URL, st.Retry = runtime.ProtocolWS, r.url, teststream.Retry(2)
						if r.tls {
							secure(own.Store())(st)
						}
						if r.st != nil {
							r.st(st)
						}
						c, err := runtime.NewContext(&runtime.Policy{StreamTypes: []*runtime.StreamType{st}},
							runtime.Options{Transports: []runtime.Transport{ws.New()}})
						if err != nil {
							t.Fatal(err)
						}
						defer c.Close()
						tr := &trace{on: map[string]func(*runtime.Stream) runtime.Result{}}
						tr.on["TMO"] = func(*runtime.Stream) runtime.Result { return runtime.DisconnectMe }
						h := tr.handlers()
						if r.tx != "" {
							sent := 0
							h.Tx = func(_ *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
								var flags runtime.Flags
								if sent == 0 {
									flags = runtime.FlagSOM
								}
								n := copy(buf, r.tx[sent:])
								if sent += n; sent == len(r.tx) {
									flags |= runtime.FlagEOM
								}
								return n, flags, runtime.OK
							}
						}
						var got strings.Builder
						var whole atomic.Bool
						h.Rx = func(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
							got.Write(buf)
							name := "rx"
							if flags == runtime.FlagSOM|runtime.FlagEOM {
								name = "rx(whole)"
							}
							tr.Note(s, name)
							if flags&runtime.FlagEOM != 0 && r.tx != "" {
								whole.Store(got.String() == r.tx)
								return runtime.DisconnectMe
							}
							return runtime.OK
						}
						s, err := c.NewStream(st.Name, h)
						if err != nil {
							t.Fatal(err)
						}
						s.StartTimeout(0)
						s.RequestTx()
						if !tr.Await(func() bool {
							text := tr.String()
							return strings.HasPrefix(text, r.want) && (strings.Contains(text, "DIS") || strings.Contains(text, "ARF"))
						}) {
							t.Errorf("\n got %s\nwant %s", tr, r.want)
						}
						if r.cause != nil && !r.cause(s.Err()) {
							t.Errorf("the cause is %v", s.Err())
						}
						if r.tx != "" && !whole.Load() {
							t.Errorf("what came back is not what was sent")
						}
					})
				}
			})
		}
	})
	m.check(t)
}
