// Package file executes streamtypes whose endpoint is a local file ("file://"),
// whatever their protocol: the contents of the file are received as one message.
// Payload that is sent is dropped.
package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A Transport executes streamtypes whose endpoint is a local file. It may serve
// any number of contexts.
type Transport struct{}

// New returns a transport.
func New() *Transport { return &Transport{} }

// Protocols returns the carrier of local files.
func (*Transport) Protocols() []policy.Protocol { return []policy.Protocol{policy.ProtocolFile} }

// Prepare returns the connector of a streamtype.
func (*Transport) Prepare(*transport.Setup) (transport.Connector, error) { return connector{}, nil }

type connector struct{}

// bufferSize is the most that one Rx gets, in bytes.
const bufferSize = 16 << 10

var buffers = sync.Pool{New: func() any { return new([2][bufferSize]byte) }}

// Run delivers the file: CONNECTED when it is open, the pieces, the last one with
// FlagEOM, and ACK. An empty file is an empty piece.
func (connector) Run(ctx context.Context, l transport.Link) error {
	path := l.Target().Host
	// Opening a named pipe would wait for a writer.
	if info, err := os.Stat(path); err != nil {
		return err
	} else if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: %s is not a regular file", transport.ErrEndpoint, path)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := l.Connected(); err != nil {
		return err
	}
	bufs := buffers.Get().(*[2][bufferSize]byte)
	defer buffers.Put(bufs)
	// One piece is read ahead, to know which one is the last.
	piece, err := readPiece(f, bufs[0][:])
	flags := policy.FlagSOM
	for i := 1; err == nil; i ^= 1 {
		var next []byte
		if next, err = readPiece(f, bufs[i][:]); err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		if err := l.Rx(piece, flags); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		piece, flags = next, 0
	}
	if err != io.EOF {
		return err
	}
	if err := l.Rx(piece, flags|policy.FlagEOM); err != nil {
		return err
	}
	return l.Done(true)
}

// readPiece fills buf as far as the file goes. At the end of the file the piece is
// empty and the error is io.EOF.
func readPiece(f *os.File, buf []byte) ([]byte, error) {
	n, err := io.ReadFull(f, buf)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return buf[:n], err
}

// Close does nothing.
func (connector) Close() error { return nil }
