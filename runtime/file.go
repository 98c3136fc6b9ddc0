package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
)

// fileScheme is how an endpoint begins that is a local file.
const fileScheme = "file://"

// A fileConnector executes streamtypes of any protocol whose endpoint is a
// local file: its contents are received as one message. What is sent goes
// nowhere.
type fileConnector struct{}

// fileBufferSize is the most that one Rx gets.
const fileBufferSize = 16 << 10

var fileBuffers = sync.Pool{New: func() any { return new([2][fileBufferSize]byte) }}

// Run delivers the file: CONNECTED when it is open, the pieces, the last one
// with FlagEOM, and that the message is good. An empty file is an empty piece.
func (fileConnector) Run(ctx context.Context, l *Link) error {
	path := l.Target().Host
	// Opening a named pipe would wait for someone to write to it.
	if info, err := os.Stat(path); err != nil {
		return err
	} else if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: %s is not a regular file", ErrEndpoint, path)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := l.Connected(); err != nil {
		return err
	}
	bufs := fileBuffers.Get().(*[2][fileBufferSize]byte)
	defer fileBuffers.Put(bufs)
	// One piece is read ahead, to know which one is the last.
	piece, err := readPiece(f, bufs[0][:])
	flags := FlagSOM
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
	if err := l.Rx(piece, flags|FlagEOM); err != nil {
		return err
	}
	return l.Complete(true)
}

// readPiece fills buf as far as the file goes. At the end of it the piece is
// empty and the error is io.EOF.
func readPiece(f *os.File, buf []byte) ([]byte, error) {
	n, err := io.ReadFull(f, buf)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return buf[:n], err
}

// Close does nothing.
func (fileConnector) Close() error { return nil }

// filePath returns the file that an endpoint names. Metadata in it must not
// lead out of the folder that the policy names.
func filePath(endpoint string, metadata bool) (string, error) {
	path := strings.TrimPrefix(endpoint, fileScheme)
	switch {
	case path == "" || strings.ContainsRune(path, 0):
		return "", fmt.Errorf("%w: %q: no name of a file", ErrEndpoint, endpoint)
	case metadata:
		for _, element := range strings.FieldsFunc(path, func(r rune) bool { return r == '/' || r == '\\' }) {
			if element == ".." {
				return "", fmt.Errorf("%w: %q: \"..\" together with metadata", ErrEndpoint, endpoint)
			}
		}
	}
	return path, nil
}
