//go:build linux

package conformance

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/credentials"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// TestSoakServers runs random clients of all kinds against servers of all protocols for the
// time in SOAK (5s), while certificates are renewed, policies replaced and listeners
// drained or destroyed. Clients may fail meanwhile, but must not receive wrong data. At the
// end nothing may be left. SOAKSEED is as for TestSoak.
func TestSoakServers(t *testing.T) {
	duration, seed := soakOptions(t, 5*time.Second)
	mark := setMark()
	k := &serverSoak{t: t, own: testcert.New("own"), creds: new(credentials.Memory), ports: map[string]*atomic.Pointer[runtime.Stream]{}}
	k.run(rand.New(rand.NewPCG(seed, 0)), time.Now().Add(duration))
	if left := mark.leaked(); left != "" {
		t.Errorf("left: %s", left)
	}
	t.Logf("%d requests, %d WebSockets, %d raw, %d rude; %d failed; %d renewed, %d policies, %d drained, %d destroyed",
		k.requests.Load(), k.sockets.Load(), k.raw.Load(), k.rude.Load(), k.failed.Load(), k.renewed, k.policies, k.drained, k.destroyed)
	if k.requests.Load() == 0 || k.sockets.Load() == 0 || k.raw.Load() == 0 || k.policies == 0 || k.drained == 0 || k.destroyed == 0 {
		t.Error("some events did not occur")
	}
}

// A serverSoak is one run of TestSoakServers.
type serverSoak struct {
	t     *testing.T
	own   *testcert.Authority
	creds *credentials.Memory
	c     *runtime.Context
	ports map[string]*atomic.Pointer[runtime.Stream] // listeners by streamtype

	requests, sockets, raw, rude, failed  atomic.Int64
	renewed, policies, drained, destroyed int // used by the goroutine of run
}

// policy returns the policy. generation changes the streamtype named changed.
func (k *serverSoak) policy(changed string, generation int) *policy.Policy {
	p := &policy.Policy{}
	for _, st := range []*policy.StreamType{
		{Name: "h1", Protocol: policy.ProtocolH1, HTTP: &policy.HTTP{WSSubprotocol: "echo"}},
		{Name: "h1-tls", Protocol: policy.ProtocolH1, TLS: true, HTTP: &policy.HTTP{WSSubprotocol: "echo"}},
		{Name: "h2", Protocol: policy.ProtocolH2, HTTP: &policy.HTTP{}},
		{Name: "h2-tls", Protocol: policy.ProtocolH2, TLS: true, HTTP: &policy.HTTP{}},
		{Name: "ws-tls", Protocol: policy.ProtocolWS, TLS: true, HTTP: &policy.HTTP{WSSubprotocol: "echo"}},
		{Name: "raw", Protocol: policy.ProtocolRaw},
		{Name: "raw-tls", Protocol: policy.ProtocolRaw, TLS: true},
	} {
		st.Server, st.Endpoint = true, "127.0.0.1"
		st.Metadata = []policy.Metadata{{Name: "method"}, {Name: "path"}}
		if st.Name == changed {
			st.Metadata = append(st.Metadata, policy.Metadata{Name: fmt.Sprint("g", generation)})
		}
		p.StreamTypes = append(p.StreamTypes, st)
	}
	return p
}

// renew issues a certificate for the servers.
func (k *serverSoak) renew() {
	cert := k.own.Certify(testcert.Key(), time.Now().Add(-time.Hour), "127.0.0.1")
	for _, name := range []string{"h1-tls", "h2-tls", "ws-tls", "raw-tls"} {
		k.creds.SetServerCertificate(name, &cert)
	}
	k.renewed++
}

// listen creates the listener of a streamtype.
func (k *serverSoak) listen(st *policy.StreamType) {
	s, err := k.c.NewStream(st.Name, runtime.Handlers{}, runtime.WithClients(func(*runtime.Stream) runtime.Handlers { return answering(st.Protocol) }),
		runtime.WithLimits(runtime.Limits{IdleTimeout: time.Second, HeaderTimeout: time.Second}))
	if err != nil {
		k.t.Error(err)
		return
	}
	k.ports[st.Name].Store(s)
}

func (k *serverSoak) run(rnd *rand.Rand, end time.Time) {
	k.renew()
	p := k.policy("", 0)
	var err error
	k.c, err = runtime.NewContext(p, runtime.Options{Transports: serverTransports(), Credentials: k.creds, Logger: teststream.Logger(k.t)})
	if err != nil {
		k.t.Fatal(err)
	}
	for _, st := range p.StreamTypes {
		k.ports[st.Name] = new(atomic.Pointer[runtime.Stream])
		k.listen(st)
	}
	names := slices.Sorted(maps.Keys(k.ports))
	var clients sync.WaitGroup
	for range 8 {
		seed := rnd.Uint64()
		clients.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, 1))
			for time.Now().Before(end) && !k.t.Failed() {
				k.client(rnd, names[rnd.IntN(len(names))])
			}
		})
	}
	for generation := 1; time.Now().Before(end) && !k.t.Failed(); generation++ {
		time.Sleep(time.Duration(20+rnd.IntN(100)) * time.Millisecond)
		st := p.StreamTypes[rnd.IntN(len(p.StreamTypes))]
		s := k.ports[st.Name].Load()
		switch rnd.IntN(4) {
		case 0:
			k.renew()
		case 1:
			p = k.policy(st.Name, generation)
			if err := k.c.SetPolicy(p); err != nil {
				k.t.Error(err)
			}
			k.policies++
			for i := range p.StreamTypes { // including the changed one
				if s := k.ports[p.StreamTypes[i].Name].Load(); s.Err() != nil {
					k.listen(p.StreamTypes[i])
				}
			}
		case 2:
			ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
			_ = s.Shutdown(ctx)
			cancel()
			k.listen(st)
			k.drained++
		case 3:
			s.Destroy()
			k.listen(st)
			k.destroyed++
		}
	}
	clients.Wait()
	teststream.Shutdown(k.t, k.c)
}

// client runs a client of a listener, which does one thing.
func (k *serverSoak) client(rnd *rand.Rand, name string) {
	s := k.ports[name].Load()
	st, addr := s.StreamType(), s.Addr().String()
	config := &tls.Config{RootCAs: k.own.Pool(), ServerName: "127.0.0.1"}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	body := large[:rnd.IntN(60_000)]
	var got []byte
	var err error
	count := &k.requests
	switch kind := rnd.IntN(4); {
	case kind == 0:
		k.beRude(rnd, addr)
		return
	case st.Protocol == policy.ProtocolRaw:
		count = &k.raw
		got, err = echoRaw(ctx, addr, st.TLS, config, body)
	case st.Protocol == policy.ProtocolWS, kind == 1 && st.HTTP.WSSubprotocol != "":
		count = &k.sockets
		body = body[:min(len(body), 4000)]
		got, err = echoSocket(ctx, addr, st.TLS, config, body)
	default:
		got, err = echoRequest(ctx, addr, st.TLS, st.Protocol == policy.ProtocolH2 && kind == 2, st.Protocol == policy.ProtocolH2, config, body)
	}
	if err != nil {
		k.failed.Add(1)
		return
	}
	count.Add(1)
	if !bytes.Equal(got, body) {
		k.t.Errorf("%s: %d bytes of %d came back", name, len(got), len(body))
	}
}

// beRude connects and sends garbage or nothing. It may disconnect immediately.
func (k *serverSoak) beRude(rnd *rand.Rand, addr string) {
	k.rude.Add(1)
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return
	}
	defer c.Close()
	text := []string{"", "GET / HTTP/1.1\r\nHost: h\r\n", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf", "\x16\x03\x01\x02", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x81\x05hello"}[rnd.IntN(6)]
	io.WriteString(c, text)
	if rnd.IntN(2) == 0 {
		c.SetReadDeadline(time.Now().Add(time.Duration(rnd.IntN(50)) * time.Millisecond))
		io.Copy(io.Discard, c)
	}
}

func echoRaw(ctx context.Context, addr string, secure bool, config *tls.Config, body []byte) ([]byte, error) {
	var c net.Conn
	var err error
	if secure {
		c, err = (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", addr)
	} else {
		c, err = new(net.Dialer).DialContext(ctx, "tcp", addr)
	}
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	go c.Write(body)
	got := make([]byte, len(body))
	_, err = io.ReadFull(c, got)
	return got, err
}

func echoSocket(ctx context.Context, addr string, secure bool, config *tls.Config, body []byte) ([]byte, error) {
	tr := &http.Transport{TLSClientConfig: config}
	defer tr.CloseIdleConnections()
	url := "ws://" + addr
	if secure {
		url = "wss://" + addr
	}
	c, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: &http.Client{Transport: tr}, Subprotocols: []string{"echo"}})
	if err != nil {
		return nil, err
	}
	defer c.Close(websocket.StatusNormalClosure, "")
	if err := c.Write(ctx, websocket.MessageText, body); err != nil {
		return nil, err
	}
	_, got, err := c.Read(ctx)
	return got, err
}

func echoRequest(ctx context.Context, addr string, secure, h1, h2 bool, config *tls.Config, body []byte) ([]byte, error) {
	tr := &http.Transport{TLSClientConfig: config, Protocols: new(http.Protocols)}
	defer tr.CloseIdleConnections()
	url := "http://" + addr
	tr.Protocols.SetHTTP1(h1 || !h2)
	switch {
	case secure:
		url = "https://" + addr
		tr.Protocols.SetHTTP2(h2 && !h1)
	case h2 && !h1:
		tr.Protocols.SetUnencryptedHTTP2(true)
	}
	var all []byte
	for part := range slices.Chunk(body, len(body)/2+1) { // on one connection
		q, err := http.NewRequestWithContext(ctx, "POST", url, bytes.NewReader(part))
		if err != nil {
			return nil, err
		}
		resp, err := (&http.Client{Transport: tr}).Do(q)
		if err != nil {
			return nil, err
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != 200 {
			return nil, fmt.Errorf("status %s", resp.Status)
		}
		all = append(all, got...)
	}
	return all, nil
}
