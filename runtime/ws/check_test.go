package ws

import (
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

// frames is a stream of valid frames.
var frames = "\x81\x05hello" + "\x01\x02\xce\xba" + "\x89\x00" + "\x00\x01\xcf" + "\x80\x01\x8c" + "\x82\x7e\x00\x7e" + strings.Repeat("\xff", 126) +
	"\x8a\x01x" + "\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00" + strings.Repeat("x", 1<<16) + "\x81\x00" + "\x88\x05\x03\xe8bye"

// TestCheckPieces checks that the position of a violation does not depend on how the bytes
// arrive.
func TestCheckPieces(t *testing.T) {
	for _, tt := range []struct {
		name, data string
		good       int // bytes before the violation
		code       int // 0 if there is none
	}{
		{"valid", frames, len(frames), 0},
		{"reserved bit", frames + "\xc1\x00", len(frames), 1002},
		{"opcode", "\x82\x01x\x83\x00", 3, 1002},
		{"masked", "\x82\x81", 1, 1002},
		{"long form", "\x82\x7e\x00\x05hello", 3, 1002},
		{"bad rune", "\x81\x05ab\xed\xa0\x80", 5, 1007},
		{"bad rune across fragments", "\x01\x03a\xf4\x90\x80\x01\x80", 4, 1007},
		{"half a rune at the end", "\x01\x02a\xce\x80\x00", 5, 1007},
		{"close code", "\x88\x03\x03\xecx", 3, 1002},
		{"half a close code", "\x88\x01\x03", 2, 1002},
		{"close reason", "\x88\x04\x03\xe8a\xff", 5, 1007},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for size := range 12 {
				var k checker
				good, code := 0, 0
				for rest := tt.data; rest != "" && code == 0; {
					n := size
					if size == 0 {
						n = 1 + rand.IntN(len(rest))
					}
					n = min(n, len(rest))
					m, err := k.check([]byte(rest[:n]))
					if err != nil {
						code = err.Code
					}
					good += m
					rest = rest[m:]
				}
				if good != tt.good || code != tt.code {
					t.Errorf("in pieces of %d: %d good bytes and %d, want %d and %d", size, good, code, tt.good, tt.code)
				}
			}
		})
	}
}

// FuzzUTF8 checks that a text is valid in pieces if it is as a whole, and that an
// invalid one is rejected as soon as it cannot be completed.
func FuzzUTF8(f *testing.F) {
	for _, text := range []string{"", "hello", "κόσμε", "\xed\xa0\x80", "\xf4\x90", "\xf0\x9f\x98\x80", "a\xc0b"} {
		f.Add([]byte(text), uint64(1))
	}
	f.Fuzz(func(t *testing.T, text []byte, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 0))
		var u utf8Check
		good := 0
		for rest := text; len(rest) > 0; {
			n := 1 + r.IntN(len(rest))
			m := u.add(rest[:n])
			if good += m; m < n {
				break
			}
			rest = rest[n:]
		}
		whole := good == len(text) && u.complete()
		if whole != utf8.Valid(text) {
			t.Fatalf("%x: %v", text, whole)
		}
		completable := func(p []byte) bool {
			for len(p) > 0 {
				r, size := utf8.DecodeRune(p)
				if r == utf8.RuneError && size == 1 {
					return !utf8.FullRune(p)
				}
				p = p[size:]
			}
			return true
		}
		if !completable(text[:good]) || good < len(text) && completable(text[:good+1]) {
			t.Fatalf("%x: rejected after %d bytes", text, good)
		}
	})
}

// TestBudget checks the limit of frames without content for the program.
func TestBudget(t *testing.T) {
	ping, fragment := "\x89\x00", "\x00\x00"
	for name, tt := range map[string]struct {
		start, frame string
	}{"pings": {"", ping}, "pongs": {"", "\x8a\x00"}, "empty fragments": {"\x01\x00", fragment}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var k checker
				k.check([]byte(tt.start))
				for range 3 { // a slow peer never exceeds the limit
					for i := range idleFrames - 1 {
						if _, err := k.check([]byte(tt.frame)); err != nil {
							t.Fatal(i, err)
						}
					}
					time.Sleep(idleWindow)
				}
				if _, err := k.check([]byte(strings.Repeat(tt.frame, 2*idleFrames))); err == nil || err.Code != 1008 {
					t.Error(err)
				}
			})
		})
	}
	var k checker
	k.pings.Store(2 * idleFrames)
	if _, err := k.check([]byte(strings.Repeat("\x8a\x00", 2*idleFrames))); err != nil {
		t.Error("the answers to PINGs are charged:", err)
	}
}

// BenchmarkCheck checks frames of 64 B and of 1 MB.
func BenchmarkCheck(b *testing.B) {
	small := "\x81\x40" + strings.Repeat("x", 64)
	large := "\x81\x7f" + string(binary.BigEndian.AppendUint64(nil, 1<<20)) + strings.Repeat("x", 1<<20)
	for name, frame := range map[string]string{"64": small, "1M": large} {
		b.Run(name, func(b *testing.B) {
			p := []byte(frame)
			b.SetBytes(int64(len(p)))
			var k checker
			for b.Loop() {
				for rest := p; len(rest) > 0; {
					n := min(4096, len(rest))
					n, err := k.check(rest[:n])
					if err != nil {
						b.Fatal(err)
					}
					rest = rest[n:]
				}
			}
		})
	}
}
