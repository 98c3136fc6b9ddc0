package proxy

import (
	"encoding/binary"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/sspcwire"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A cutter reads a link like the client of lws, 2048 bytes at a time, and counts the frames
// whose payload that client would deliver incorrectly.
type cutter struct {
	testing.TB
	conn  net.Conn
	rest  []byte // incomplete frame
	empty bool   // an empty payload frame has arrived
	cut   int    // frames that were cut
	total int    // bytes of payload
	last  policy.State
	ends  int // frames with EOM
}

// step reads once.
func (c *cutter) step() {
	c.Helper()
	buf := make([]byte, clientRead)
	n, err := c.conn.Read(buf)
	if err != nil {
		c.Fatal(err)
	}
	old := len(c.rest)
	c.rest = append(c.rest, buf[:n]...)
	for len(c.rest) >= 3 {
		size := 3 + int(binary.BigEndian.Uint16(c.rest[1:]))
		payload := sspcwire.Type(c.rest[0]) == sspcwire.TypeRx
		if payload && len(c.rest) >= 7 {
			flags := policy.Flags(c.rest[6])
			if size-sspcwire.PayloadOverhead > sspcwire.MaxLWSPayload {
				c.Fatalf("a frame of %d bytes", size)
			}
			if old > 0 && (flags != 0 || c.empty) {
				c.cut++
			}
		}
		if len(c.rest) < size {
			break
		}
		switch f := c.rest[:size]; sspcwire.Type(f[0]) {
		case sspcwire.TypeRx:
			c.total += size - sspcwire.PayloadOverhead
			c.empty = c.empty || size == sspcwire.PayloadOverhead
			if f[6]&byte(policy.FlagEOM) != 0 {
				c.ends++
			}
		case sspcwire.TypeConnState:
			c.last = policy.State(f[3])
		}
		c.rest = c.rest[size:]
		old = 0
	}
}

// TestCut checks that the client of lws can deliver all payload unchanged: the end of one
// of its reads splits no frame with flags, and no frame at all after an empty one.
func TestCut(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the system does not tell what the client has read")
	}
	f := newFixture(t, newOrigin(t).streamtypes()...)
	get := f.open(t, "get", 0)
	c := &cutter{TB: t, conn: get.Conn}
	get.set("uptag", "x")
	for _, path := range []string{"chunked?n=20000", "body?n=100000", "body?n=1", "body?n=0", "body?n=1381", "chunked?n=50000"} {
		get.set("path", path)
		get.connect()
		for c.last = 0; c.last != policy.StateDisconnected; {
			c.step()
		}
	}
	if want := 20000 + 100000 + 1 + 1381 + 50000; c.total != want || c.cut > 0 {
		t.Errorf("over HTTP: %d bytes, want %d; %d frames cut", c.total, want, c.cut)
	}

	spam := f.open(t, "spam", 0)
	c = &cutter{TB: t, conn: spam.Conn}
	spam.connect()
	for c.last != policy.StateConnected {
		c.step()
	}
	sizes := []int{1, 0, 500, 1380, 1381, 40, 2048, 5000, 1, 1300, 12345, 0, 700, 700, 700, 700}
	want := 0
	for range 5 {
		for _, n := range sizes {
			spam.tx(string(make([]byte, n)), policy.FlagSOM|policy.FlagEOM)
			want += n
		}
	}
	for c.ends < 5*len(sizes) {
		c.step()
		if c.ends%7 == 0 {
			time.Sleep(time.Millisecond) // a busy client
		}
	}
	if c.total != want || c.cut > 0 {
		t.Errorf("over ws: %d bytes, want %d; %d frames cut", c.total, want, c.cut)
	}
}
