// Package file executes streamtypes whose endpoint is a local file ("file://"),
// with any protocol: a stream receives the contents of the file as one message. It
// sends nothing.
package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/secure-streams/sspolicy/internal/readfile"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A Transport executes streamtypes whose endpoint is a local file. Any number of
// contexts may use it.
type Transport struct{}

// New returns a transport.
func New() *Transport { return &Transport{} }

// Protocols returns policy.ProtocolFile.
func (*Transport) Protocols() []policy.Protocol { return []policy.Protocol{policy.ProtocolFile} }

// Prepare implements transport.Transport.
func (*Transport) Prepare(*transport.Setup) (transport.Connector, error) { return connector{}, nil }

// A connector executes any streamtype whose endpoint is a file.
type connector struct{}

// bufferSize is the largest size of a piece, in bytes.
const bufferSize = 16 << 10

// buffers holds pairs of buffers, of which one is delivered while the other is read.
var buffers = sync.Pool{New: func() any { return new([2][bufferSize]byte) }}

// Run delivers CONNECTED when the file is open, then its pieces, the first with
// FlagSOM and the last with FlagEOM, and QOS_ACK_REMOTE. An empty file is an empty
// piece.
func (connector) Run(ctx context.Context, l transport.Link) error {
	path := l.Target().Host
	f, err := readfile.Open(path)
	if errors.Is(err, readfile.ErrNotRegular) {
		return fmt.Errorf("%w: %w", transport.ErrEndpoint, err)
	} else if err != nil {
		return err
	}
	defer f.Close()
	if err := l.Connected(); err != nil {
		return err
	}
	bufs := buffers.Get().(*[2][bufferSize]byte)
	defer buffers.Put(bufs)
	// One piece is read ahead, to find the last one.
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

// readPiece reads up to len(buf) bytes. At the end of the file the piece is empty and
// the error is io.EOF.
func readPiece(f *os.File, buf []byte) ([]byte, error) {
	n, err := io.ReadFull(f, buf)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return buf[:n], err
}

// Close does nothing.
func (connector) Close() error { return nil }
