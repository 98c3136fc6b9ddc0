package sspcwire

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"
)

func FuzzToProxy(f *testing.F)   { fuzz(f, ToProxy) }
func FuzzFromProxy(f *testing.F) { fuzz(f, FromProxy) }

// fuzz checks that a Reader does not panic and terminates, that the size of reads does not
// change the frames, and that encoding the frames again gives the same frames.
func fuzz(f *testing.F, d Direction) {
	for _, l := range links(f) {
		if b := l.Bytes(d == FromProxy); len(b) < 4000 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		frames, err := readAll(bytes.NewReader(b), d)
		var wire *Error
		if !errors.As(err, &wire) && err != io.EOF && err != ErrTruncated {
			t.Fatalf("error %v", err)
		}
		split, err2 := readAll(iotest.OneByteReader(bytes.NewReader(b)), d)
		if err2.Error() != err.Error() || !slices.EqualFunc(frames, split, bytes.Equal) {
			t.Fatalf("byte by byte: %v and other frames; in large reads %v", err2, err)
		}
		again, err := readAll(bytes.NewReader(bytes.Join(frames, nil)), d)
		if err != io.EOF {
			t.Fatalf("encoded again: %v", err)
		}
		// Frames that are not encoded again are empty.
		frames = slices.DeleteFunc(frames, func(b []byte) bool { return len(b) == 0 })
		if !slices.EqualFunc(frames, again, bytes.Equal) {
			t.Fatalf("encoded again: % x\nwant % x", again, frames)
		}
	})
}
