//go:build !unix

package raw

import "net"

// A direct is what there is on unix alone.
type direct struct{}

func newDirect(net.Conn) *direct { return nil }

func (*direct) read() ([]byte, error)           { panic("unreachable") }
func (*direct) write([]byte, bool) (int, error) { panic("unreachable") }
func (*direct) take() *[largeBuffer]byte        { panic("unreachable") }
func (*direct) release()                        {}
