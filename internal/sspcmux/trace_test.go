package sspcmux

import (
	"encoding/hex"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/secure-streams/sspolicy/internal/sspcwire"
)

// trace returns the bytes that one peer sent in testdata/lws-5.0.0.txt, in pieces.
func trace(t *testing.T, direction string) (pieces [][]byte) {
	text, err := os.ReadFile("testdata/lws-5.0.0.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if digits, ok := strings.CutPrefix(strings.TrimSpace(line), direction+" "); ok {
			b, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			pieces = append(pieces, b)
		}
	}
	return pieces
}

// frames returns the types of the frames that arrive on a channel.
func frames(c net.Conn, d sspcwire.Direction, result chan<- string) {
	defer c.Close()
	var names []string
	r := sspcwire.NewReader(c, d, 2048)
	for {
		f, err := r.Next()
		if err != nil {
			names = append(names, err.Error())
			result <- strings.Join(names, " ")
			return
		}
		name := f.Type.String()
		if f.Type == sspcwire.TypeStreamType {
			st, _ := f.StreamType()
			name += ":" + st.Name
		}
		names = append(names, name)
	}
}

// TestTraceOfClient replays the bytes of a client of lws to a Session.
func TestTraceOfClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		s := NewSession(near, Options{Server: true})
		peer := &lwsEnd{far, t}
		answers := make(chan [][]byte)
		go func() {
			answers <- [][]byte{peer.until(cmdPong)[:8], peer.until(cmdAck), peer.until(cmdAck)}
			io.Copy(io.Discard, far)
		}()
		got := make(chan string)
		go func() {
			for {
				c, err := s.Accept()
				if err != nil {
					return
				}
				go frames(c, sspcwire.ToProxy, got)
			}
		}()
		for i, b := range trace(t, ">") {
			far.Write(b)
			synctest.Wait()
			if i == 1 && !s.isUp() {
				t.Error("the line is not up after PONGACK")
			}
		}
		a := <-answers
		if ping := trace(t, ">")[0][2:]; string(a[0]) != string(ping) {
			t.Errorf("PONG has % x, want % x", a[0], ping)
		}
		if int(a[1][0])+int(a[2][0]) != 255+254 {
			t.Errorf("channels %d and %d", a[1][0], a[2][0])
		}
		closeAll(s, far)
		want := "STREAMTYPE:get ONWARD_CONNECT EOF, STREAMTYPE:ws ONWARD_CONNECT TX_PAYLOAD TX_PAYLOAD TX_PAYLOAD EOF"
		one, two := <-got, <-got
		if g := min(one, two) + ", " + max(one, two); g != want {
			t.Errorf("channels have %s, want %s", g, want)
		}
	})
}

// TestTraceOfProxy replays the bytes of a proxy of lws to a Session, with an adapted PONG.
func TestTraceOfProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		s := NewSession(near, Options{})
		peer := &lwsEnd{far, t}
		pieces := trace(t, "<")
		ping := peer.until(cmdPing)
		go func() {
			far.Write(pieces[0])
			copy(pieces[1][1:], ping)
			far.Write(pieces[1])
		}()
		peer.until(cmdPongAck)
		go io.Copy(io.Discard, far)
		got := make(chan string)
		for range 2 {
			go func() {
				c, err := s.Open(t.Context())
				if err != nil {
					got <- err.Error()
					return
				}
				frames(c, sspcwire.FromProxy, got)
			}()
			synctest.Wait()
		}
		for _, b := range pieces[2:] {
			far.Write(b)
			synctest.Wait()
		}
		closeAll(s, far)
		want := "CREATE_RESULT CONNSTATE CONNSTATE CONNSTATE EOF, CREATE_RESULT CONNSTATE CONNSTATE CONNSTATE RX_PAYLOAD RX_PAYLOAD CONNSTATE CONNSTATE EOF"
		one, two := <-got, <-got
		if g := min(one, two) + ", " + max(one, two); g != want {
			t.Errorf("channels have %s, want %s", g, want)
		}
	})
}
