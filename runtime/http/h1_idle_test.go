package http

import (
	"net"
	"syscall"
	"testing"
)

// opaqueConn prevents a pool from watching a connection.
type opaqueConn struct{ syscall.RawConn }

// TestIdleEntries checks that the pool forgets an address with its last idle connection.
func TestIdleEntries(t *testing.T) {
	p := newH1Pool(poolKey{})
	defer p.Close()
	for range 2 {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		c := &h1Conn{conn: conn{ours, ours}, p: p, address: "a:80"}
		c.raw, c.timer.call = opaqueConn{}, func() {}
		p.put(c)
		defer c.abort()
	}
	for want := 1; want >= 0; want-- {
		if p.takeIdle("a:80") == nil || len(p.idle["a:80"]) != want || len(p.idle) != want {
			t.Errorf("%d idle connections of %d addresses", len(p.idle["a:80"]), len(p.idle))
		}
	}
	if p.takeIdle("a:80") != nil || len(p.idle) != 0 {
		t.Error("an idle connection that is not there")
	}
}
