package raw_test

import (
	"net"
	"syscall"
	"testing"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A recorder is a listener that keeps the connections it accepts.
type recorder struct {
	net.Listener
	conns chan *net.TCPConn
}

func (r *recorder) Accept() (net.Conn, error) {
	c, err := r.Listener.Accept()
	if err == nil {
		r.conns <- c.(*net.TCPConn)
	}
	return c, err
}

// TestRawServerAttributes checks the effect of the attr_ keys on an accepted socket.
func TestRawServerAttributes(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", ":0"} {
		ln, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		r := &recorder{ln, make(chan *net.TCPConn, 1)}
		client := newTrace()
		c := newContext(t, runtime.Options{}, rawServer(func(st *policy.StreamType) { st.Priority, st.AttrLowLatency = 3, true }))
		_, err = c.NewStream("s", runtime.Handlers{}, runtime.WithListener(r), runtime.WithClients(func(*runtime.Stream) runtime.Handlers { return client.handlers() }))
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		conn, err := net.Dial("tcp4", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		accepted := <-r.conns
		client.awaitEvent(t, "CON")
		socket, err := accepted.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = socket.Control(func(fd uintptr) {
			if n, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_PRIORITY); n != 3 || err != nil {
				t.Errorf("%s: priority %d, %v", address, n, err)
			}
			if n, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_TOS); n != 0x10 || err != nil {
				t.Errorf("%s: type of service %#x, %v", address, n, err)
			}
		})
		conn.Close()
	}
}
