package sspc_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/sspcwire"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

const (
	creating     = policy.StateCreating
	connecting   = policy.StateConnecting
	connected    = policy.StateConnected
	disconnected = policy.StateDisconnected
	unreachable  = policy.StateUnreachable
	poll         = policy.StatePoll
)

// TestRequest is an HTTP request.
func TestRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c := newProxied(t, runtime.Options{})
		tr := &program{}
		s, err := c.NewStream("get", tr.handlers(), runtime.WithMetadata("city", "Paris"), runtime.WithMetadata("units", "si"))
		if err != nil {
			t.Fatal(err)
		}
		l := p.link(1)
		hello := teststream.Must(sspcwire.AppendStreamType(nil, sspcwire.StreamType{
			PID: uint32(os.Getpid()), Credit: sspcwire.DefaultCredit, Name: "get"}))
		if got := l.take(); !bytes.Equal(got, hello) {
			t.Fatalf("% x, want % x", got, hello)
		}
		s.RequestTx() // before the proxy has answered
		l.send(created("get"), states(creating))
		var want []byte
		want = teststream.Must(sspcwire.AppendMetadata(want, sspcwire.ToProxy, "units", "si"))
		want = teststream.Must(sspcwire.AppendMetadata(want, sspcwire.ToProxy, "city", "Paris"))
		want = sspcwire.AppendConnect(want)
		if got := l.take(); !bytes.Equal(got, want) {
			t.Fatalf("% x, want % x", got, want)
		}
		tr.Want(t, "CRE")
		l.send(states(connecting, connected),
			teststream.Must(sspcwire.AppendMetadata(nil, sspcwire.FromProxy, "ctype", "text/plain")),
			rx("21", runtime.FlagSOM), rx(" C", 0), rx("", runtime.FlagEOM),
			states(policy.StateQoSAckRemote, disconnected))
		tr.Want(t, "CRE CNG CON rxS rx rxE ACK DIS")
		if got := tr.Body(); got != "21 C" {
			t.Errorf("body %q", got)
		}
		if got, err := s.Metadata("ctype"); got != "text/plain" || err != nil {
			t.Errorf("metadata %q, %v", got, err)
		}
		if err := s.Err(); err != nil {
			t.Errorf("error %v", err)
		}
		if got := l.take(); len(got) > 0 {
			t.Errorf("the client sends % x", got)
		}
		s.RequestTx() // a new transaction on the same link
		if got := l.frames(t); !slices.Equal(got, []sspcwire.Type{sspcwire.TypeConnect}) {
			t.Errorf("second transaction: %v", got)
		}
		s.Destroy()
		if !l.gone() {
			t.Error("the link is open after Destroy")
		}
		tr.Want(t, "CRE CNG CON rxS rx rxE ACK DIS DES")
	})
}

// TestRetries checks that requests to send do not hasten the retries of the proxy, and that
// Connect does.
func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c := newProxied(t, runtime.Options{})
		tr := &program{}
		s := teststream.Must(c.NewStream("get", tr.handlers()))
		l := p.link(1)
		l.send(created("get"))
		s.RequestTx()
		l.take()
		l.send(states(poll, connecting, unreachable))
		s.RequestTx()
		if got := l.frames(t); len(got) > 0 {
			t.Errorf("a request to send is sent during a wait: %v", got)
		}
		s.Connect()
		s.Connect()
		if got := l.frames(t); !slices.Equal(got, []sspcwire.Type{sspcwire.TypeConnect}) {
			t.Errorf("Connect during a wait: %v", got)
		}
		l.send(states(connecting, unreachable, policy.StateAllRetriesFailed))
		if err := s.Err(); err == nil {
			t.Error("no error")
		}
		s.RequestTx()
		if got := l.frames(t); !slices.Equal(got, []sspcwire.Type{sspcwire.TypeConnect}) {
			t.Errorf("RequestTx after all retries: %v", got)
		}
		tr.Want(t, "CRE POL CNG UNR CNG UNR ARF")
	})
}

// TestLinkLost restarts the proxy under streams in each phase.
func TestLinkLost(t *testing.T) {
	opportunistic := &policy.StreamType{Name: "opportunistic", Protocol: policy.ProtocolWS, Opportunistic: true,
		HTTP: &policy.HTTP{}, Metadata: []policy.Metadata{{Name: "m"}}}
	for _, tt := range []struct {
		name       string
		streamtype string
		before     []policy.State
		lost       string // the states that follow the loss
		again      []sspcwire.Type
	}{
		{"idle", "s", nil, "LNK", nil},
		{"poll", "s", []policy.State{poll}, "LNK", []sspcwire.Type{sspcwire.TypeConnect}},
		{"connecting", "s", []policy.State{connecting}, "LNK", []sspcwire.Type{sspcwire.TypeConnect}},
		{"waiting", "s", []policy.State{connecting, unreachable}, "LNK", []sspcwire.Type{sspcwire.TypeConnect}},
		{"given up", "s", []policy.State{connecting, unreachable, policy.StateAllRetriesFailed}, "LNK", nil},
		{"connected", "s", []policy.State{connecting, connected}, "DIS LNK", []sspcwire.Type{sspcwire.TypeConnect}},
		{"acknowledged", "s", []policy.State{connecting, connected, policy.StateQoSAckRemote}, "DIS LNK", []sspcwire.Type{sspcwire.TypeConnect}},
		{"disconnected", "s", []policy.State{connecting, connected, disconnected}, "LNK", nil},
		{"opportunistic", "opportunistic", []policy.State{connecting, connected}, "DIS LNK", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, c := newProxied(t, runtime.Options{}, opportunistic)
				tr := &program{}
				s := teststream.Must(c.NewStream(tt.streamtype, tr.handlers(), runtime.WithMetadata("m", "v")))
				l := p.link(1)
				l.send(created("s"), states(creating), states(tt.before...))
				tr.Reset()
				p.mu.Lock()
				p.accept = func(net.Conn) error { return errors.New("no such socket") }
				p.mu.Unlock()
				l.Close()
				synctest.Wait()
				if got := rename(tr.String()); got != tt.lost {
					t.Errorf("after the loss: %s, want %s", got, tt.lost)
				}
				if err := s.Err(); !errors.Is(err, runtime.ErrLink) {
					t.Errorf("error %v", err)
				}
				tr.Reset()
				time.Sleep(5*time.Second + time.Millisecond)
				if got := rename(tr.String()); got != "LNK LNK LNK LNK LNK" {
					t.Errorf("without a proxy, in 5 s: %s", got)
				}
				p.mu.Lock()
				p.accept = nil
				p.mu.Unlock()
				time.Sleep(time.Second)
				l = p.link(2)
				l.send(created("s"), states(creating))
				got := l.frames(t)
				if want := append([]sspcwire.Type{sspcwire.TypeStreamType, sspcwire.TypeTxMetadata}, tt.again...); !slices.Equal(got, want) {
					t.Errorf("on the new link %v, want %v", got, want)
				}
				tr.Reset()
				l.send(states(poll, connecting, connected), rx("x", both))
				tr.Want(t, "POL CNG CON rxSE")
			})
		})
	}
}

// rename shortens the name of UPSTREAM_LINK_RETRY.
func rename(events string) string { return strings.ReplaceAll(events, "UPSTREAM_LINK_RETRY", "LNK") }

// TestLinkRetryArg checks the argument of UPSTREAM_LINK_RETRY.
func TestLinkRetryArg(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c := newProxied(t, runtime.Options{})
		p.accept = func(net.Conn) error { return errors.New("no such socket") }
		var args []uint32
		teststream.Must(c.NewStream("s", runtime.Handlers{State: func(_ *runtime.Stream, state runtime.State, arg uint32) runtime.Result {
			if state == runtime.StateUpstreamLinkRetry {
				args = append(args, arg)
			}
			return runtime.OK
		}}))
		time.Sleep(2*time.Second + time.Millisecond)
		synctest.Wait()
		if want := []uint32{0, 1000, 2000}; !slices.Equal(args, want) {
			t.Errorf("%v, want %v", args, want)
		}
	})
}

// TestNoAnswer checks the time limit of the answer to STREAMTYPE.
func TestNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c := newProxied(t, runtime.Options{})
		tr := &program{}
		s := teststream.Must(c.NewStream("s", tr.handlers()))
		p.link(1)
		time.Sleep(3*time.Second + time.Millisecond)
		if got := rename(tr.String()); got != "CRE LNK" {
			t.Errorf("after 3 s: %s", got)
		}
		if err := s.Err(); !errors.Is(err, runtime.ErrLink) || !strings.Contains(err.Error(), "does not answer") {
			t.Errorf("error %v", err)
		}
		time.Sleep(time.Second)
		p.link(2)
	})
}

// TestRefused has a proxy that does not know the streamtype, and knows it later.
func TestRefused(t *testing.T) {
	failure := sspcwire.AppendCreateResult(nil, sspcwire.CreateResult{Failure: 1})
	synctest.Test(t, func(t *testing.T) {
		p, c := newProxied(t, runtime.Options{})
		tr := &program{}
		s := teststream.Must(c.NewStream("s", tr.handlers()))
		p.link(1).send(failure)
		if got := rename(tr.String()); got != "CRE LNK" {
			t.Errorf("without a request: %s", got)
		}
		tr.Reset()
		s.RequestTx()
		time.Sleep(time.Second)
		p.link(2).send(failure)
		if got := rename(tr.String()); got != "CNG UNR ARF LNK" {
			t.Errorf("with a request: %s", got)
		}
		if err := s.Err(); !errors.Is(err, runtime.ErrUnknownStreamType) || !errors.Is(err, runtime.ErrLink) {
			t.Errorf("error %v", err)
		}
		tr.Reset()
		time.Sleep(time.Second)
		p.link(3).send(failure)
		if got := rename(tr.String()); got != "LNK" {
			t.Errorf("refused again: %s", got)
		}
		tr.Reset()
		time.Sleep(time.Second)
		s.Connect()
		l := p.link(4)
		l.send(created("s"), states(creating))
		if got := l.frames(t); !slices.Equal(got, []sspcwire.Type{sspcwire.TypeStreamType, sspcwire.TypeConnect}) {
			t.Errorf("accepted at last: %v", got)
		}
	})
}

// TestTimeout checks that the timer of a stream runs in the proxy, and in the client
// without a link.
func TestTimeout(t *testing.T) {
	value := func(b []byte) uint32 {
		if len(b) != 7 || b[0] != byte(sspcwire.TypeTimeout) {
			t.Errorf("not one TIMEOUT_UPDATE: % x", b)
			return 0
		}
		return binary.BigEndian.Uint32(b[3:])
	}
	synctest.Test(t, func(t *testing.T) {
		p, c := newProxied(t, runtime.Options{})
		tr := &program{}
		s := teststream.Must(c.NewStream("s", tr.handlers()))
		l := p.link(1)
		l.send(created("s"))
		l.take()
		s.StartTimeout(1500 * time.Microsecond)
		if got := value(l.take()); got != 2 {
			t.Errorf("1.5 ms are %d", got)
		}
		l.send(states(policy.StateTimeout), states(policy.StateTimeout))
		tr.Want(t, "CRE TMO") // once
		s.StartTimeout(0)
		if got := value(l.take()); got != sspcwire.TimeoutPolicy {
			t.Errorf("the policy's is %d", got)
		}
		s.CancelTimeout()
		if got := value(l.take()); got != sspcwire.TimeoutCancel {
			t.Errorf("none is %d", got)
		}
		l.send(states(policy.StateTimeout))
		tr.Want(t, "CRE TMO")
		s.CancelTimeout()
		if got := l.take(); len(got) > 0 {
			t.Errorf("cancelled again: % x", got)
		}
		tr.Reset()
		s.StartTimeout(10 * time.Second)
		if got := value(l.take()); got != 10_000 {
			t.Errorf("10 s are %d", got)
		}
		time.Sleep(4 * time.Second)
		l.Close()
		time.Sleep(time.Second)
		l = p.link(2)
		l.take()
		l.send(created("s"))
		if got := value(l.take()); got != 5000 {
			t.Errorf("what is left of 10 s after 5 s is %d", got)
		}
		p.mu.Lock()
		p.accept = func(net.Conn) error { return errors.New("no such socket") }
		p.mu.Unlock()
		l.Close()
		time.Sleep(5*time.Second + time.Millisecond)
		if n := tr.Count("TMO"); n != 1 {
			t.Errorf("%d times TIMEOUT without a link: %s", n, tr.String())
		}
	})
}

// TestSend sends a message in pieces, with its length.
func TestSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c := newProxied(t, runtime.Options{})
		tr := &program{}
		s := teststream.Must(c.NewStream("post", tr.handlers(), runtime.WithPeerTxCredit(4096)))
		l := p.link(1)
		hello := l.take()
		if credit := binary.BigEndian.Uint32(hello[8:]); credit != 4096 {
			t.Errorf("credit %d", credit)
		}
		l.send(created("post"))
		tr.queue(piece{strings.Repeat("x", 40_000), both})
		s.RequestTxLen(40_000)
		want := sspcwire.AppendConnect(sspcwire.AppendLengthHint(nil, 40_000))
		if got := l.take(); !bytes.Equal(got, want) {
			t.Errorf("% x, want % x", got, want)
		}
		l.send(states(poll, connecting))
		if got := l.take(); len(got) > 0 {
			t.Errorf("payload before CONNECTED: % x", got)
		}
		l.send(states(connected))
		r := sspcwire.NewReader(io.MultiReader(bytes.NewReader(hello), bytes.NewReader(l.take())), sspcwire.ToProxy, 100)
		var flags []policy.Flags
		n := 0
		for {
			f, err := r.Next()
			if err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if f.Type == sspcwire.TypeTx {
				payload := teststream.Must(f.Payload())
				flags = append(flags, payload.Flags)
				n += len(payload.Data)
			}
		}
		if want := []policy.Flags{policy.FlagSOM, 0, policy.FlagEOM}; !slices.Equal(flags, want) || n != 40_000 {
			t.Errorf("%d bytes with flags %v, want %v", n, flags, want)
		}
		s.AddPeerTxCredit(100)
		if got, want := l.take(), sspcwire.AppendCredit(nil, sspcwire.ToProxy, 100); !bytes.Equal(got, want) {
			t.Errorf("% x, want % x", got, want)
		}
	})
}

// TestPause checks that a paused stream makes the proxy wait, without loss.
func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c := newProxied(t, runtime.Options{})
		tr := &program{}
		s := teststream.Must(c.NewStream("s", tr.handlers()))
		l := p.link(1)
		l.send(created("s"), states(connecting, connected))
		s.PauseRx()
		done := make(chan int)
		go func() {
			frame := rx(strings.Repeat("x", 1000), both)
			n := 0
			l.SetWriteDeadline(time.Now().Add(time.Second))
			for ; n < 1000; n++ {
				if _, err := l.Write(frame); err != nil {
					break
				}
			}
			done <- n
		}()
		if n := <-done; n > 10 {
			t.Errorf("a paused stream takes %d frames", n)
		}
		if n := s.PendingRx(); n != 1000 {
			t.Errorf("%d bytes are pending", n)
		}
		tr.Want(t, "CRE CNG CON")
		s.ResumeRx()
		synctest.Wait()
		if n := tr.Count("rxSE"); n == 0 {
			t.Error("nothing is delivered after ResumeRx")
		}
	})
}

// TestDisconnectMe checks that the program can end a connection, which ends the link
// and begins another one.
func TestDisconnectMe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c := newProxied(t, runtime.Options{})
		tr := &program{}
		tr.On = teststream.Actions{"rxSE": teststream.Disconnect}
		s := teststream.Must(c.NewStream("s", tr.handlers()))
		l := p.link(1)
		l.send(created("s"), states(connecting, connected))
		time.Sleep(time.Minute)
		l.send(rx("x", both))
		if !l.gone() {
			t.Error("the link is open")
		}
		tr.Want(t, "CRE CNG CON rxSE DIS")
		if err := s.Err(); !errors.Is(err, runtime.ErrDisconnected) {
			t.Errorf("error %v", err)
		}
		l = p.link(2)
		l.send(created("s"), states(creating))
		if got := l.frames(t); !slices.Equal(got, []sspcwire.Type{sspcwire.TypeStreamType}) {
			t.Errorf("on the new link: %v", got)
		}
	})
}
