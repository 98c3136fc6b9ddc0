// Package link simulates a misbehaving network link: its proxies forward
// connections to a server, and delay, throttle, break or drop them.
package link

import (
	"fmt"
	"time"
)

// A Kind is a way to break a connection.
type Kind int

const (
	None      Kind = iota
	Reset          // both sides are reset
	FIN            // the client sees an orderly end, and may still send
	BlackHole      // nothing is forwarded for the duration of Stall, and then both sides are reset
)

var kinds = [...]string{None: "none", Reset: "reset", FIN: "fin", BlackHole: "black hole"}

func (k Kind) String() string { return kinds[k] }

// A Fault describes the misbehaviour of a connection. The zero value forwards it
// unchanged.
type Fault struct {
	Kind  Kind
	Reply bool          // After counts the bytes from the server, not from the client
	After int           // bytes to forward before the connection breaks
	Stall time.Duration // of a BlackHole

	Latency time.Duration // added to each piece, in both directions
	Jitter  time.Duration // maximum random addition to Latency
	Rate    int           // bytes per second in each direction; 0 means no limit
	Slice   int           // maximum size of a forwarded piece in bytes; 0 means no limit

	// Strike, if not nil, is called when the fault first acts on the connection.
	Strike func(what string)
}

// shapes reports whether the fault changes how bytes are forwarded.
func (f *Fault) shapes() bool {
	return f.Latency > 0 || f.Jitter > 0 || f.Rate > 0 || f.Slice > 0
}

// describe describes the fault.
func (f *Fault) describe() string {
	from := "client"
	if f.Reply {
		from = "server"
	}
	if f.Kind != None {
		return fmt.Sprintf("%v after %d bytes of the %s", f.Kind, f.After, from)
	}
	return "bytes are delayed"
}
