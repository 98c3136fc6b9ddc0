package tlssession_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/secure-streams/sspolicy/runtime/tlssession"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// keyData returns n random keys.
func keyData(n int) []byte {
	b := make([]byte, n*tlssession.KeySize)
	rand.Read(b)
	return b
}

// join returns keys as one piece of data, the first the newest.
func join(keys ...[]byte) []byte { return bytes.Join(keys, nil) }

// ticketServer starts a server that uses tickets with these keys.
func ticketServer(t testing.TB, keys *tlssession.Keys) string {
	config := serverConfig()
	(&tlssession.Sessions{Keys: keys}).Server(transport.Scope{}, config)
	return listen(t, config.Clone()) // as net/http makes a copy
}

func update(t testing.TB, k *tlssession.Keys, keys ...[]byte) {
	t.Helper()
	if err := k.Update(join(keys...)); err != nil {
		t.Fatal(err)
	}
}

// TestA11TicketKeyUpdate checks that the newest key encrypts, the older ones
// decrypt, and a session whose key is gone is not resumed.
func TestA11TicketKeyUpdate(t *testing.T) {
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			var keys tlssession.Keys
			a, b, c := keyData(1), keyData(1), keyData(1)
			addr := ticketServer(t, &keys)
			client := clientConfig(version)
			update(t, &keys, a)
			dial(t, addr, client)
			for _, tt := range []struct {
				keys    [][]byte
				resumed bool
			}{
				{[][]byte{a}, true},
				{[][]byte{b, a}, true},  // a ticket of a; a new one of b
				{[][]byte{c, b}, true},  // of b, then c
				{[][]byte{a}, false},    // of c, then a
				{[][]byte{b, c}, false}, // of a
			} {
				update(t, &keys, tt.keys...)
				if got := dial(t, addr, client); got != tt.resumed {
					t.Errorf("resumed %v, want %v", got, tt.resumed)
				}
			}
		})
	}
}

// TestA11InvalidKeys checks that invalid data changes nothing.
func TestA11InvalidKeys(t *testing.T) {
	var keys tlssession.Keys
	good := keyData(2)
	update(t, &keys, good)
	for _, data := range [][]byte{nil, {}, good[:31], append(keyData(2), 0), make([]byte, 32), append(keyData(1), make([]byte, 32)...), keyData(tlssession.MaxKeys + 1)} {
		if err := keys.Update(data); !errors.Is(err, tlssession.ErrKeys) {
			t.Errorf("%d bytes: %v", len(data), err)
		}
	}
	if !bytes.Equal(keys.Bytes(), good) {
		t.Error("the keys have changed")
	}
}

// TestA11Rotate checks that members with the same keys resume each other's
// sessions. A rotation keeps them if the other members know the new key before it
// encrypts.
func TestA11Rotate(t *testing.T) {
	var one, two tlssession.Keys
	one.Rotate(3)
	update(t, &two, one.Bytes())
	addr, other := ticketServer(t, &one), ticketServer(t, &two)
	client := clientConfig(0)
	dial(t, addr, client)
	if !dial(t, other, client) {
		t.Error("the other member did not resume")
	}
	for range 5 {
		one.Rotate(2)
	}
	if n := len(one.Bytes()) / tlssession.KeySize; n != 3 {
		t.Errorf("%d keys after Rotate(2)", n)
	}
	update(t, &two, one.Bytes())
	if dial(t, other, client) {
		t.Error("resumed a session whose key has been dropped")
	}
	one.Rotate(-1)
	if n := len(one.Bytes()) / tlssession.KeySize; n != 1 {
		t.Errorf("%d keys after Rotate(-1)", n)
	}
}

// TestA11AtomicForHandshakes checks that each handshake succeeds while keys change, and
// resumes if all sets have a common key.
func TestA11AtomicForHandshakes(t *testing.T) {
	var keys tlssession.Keys
	common, a, b := keyData(1), keyData(3), keyData(1)
	update(t, &keys, common)
	addr := ticketServer(t, &keys)
	var clients sync.WaitGroup
	stop := make(chan struct{})
	var updates sync.WaitGroup
	updates.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			update(t, &keys, common, a)
			update(t, &keys, common, b)
			runtime.Gosched()
		}
	})
	for range 4 {
		clients.Go(func() {
			client := clientConfig(0)
			for i := range 20 {
				resumed, err := tryDial(addr, client)
				if err != nil || resumed != (i > 0) {
					t.Errorf("handshake %d: resumed %v, %v", i, resumed, err)
				}
			}
		})
	}
	clients.Wait()
	close(stop)
	updates.Wait()
}

// TestA12FileAndAPI checks that the later of the file and the API wins.
func TestA12FileAndAPI(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "keys")
	f1, f2, api := keyData(2), keyData(1), keyData(1)
	write := func(data []byte) {
		t.Helper()
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var keys tlssession.Keys
	is := func(what string, want []byte) {
		t.Helper()
		if !bytes.Equal(keys.Bytes(), want) {
			t.Errorf("%s: other keys", what)
		}
	}
	load := func() {
		t.Helper()
		if err := keys.Load(file); err != nil {
			t.Fatal(err)
		}
	}
	write(f1)
	load()
	is("file", f1)
	update(t, &keys, api)
	is("API after file", api)
	load()
	is("reload of the same file after API", f1)
	update(t, &keys, api)
	write(f2)
	is("a changed file that is not reloaded", api)
	load()
	is("reload", f2)
	for _, data := range [][]byte{nil, f1[:40], keyData(tlssession.MaxKeys + 1), make([]byte, 1<<20)} {
		write(data)
		if err := keys.Load(file); !errors.Is(err, tlssession.ErrKeys) || !bytes.Contains([]byte(err.Error()), []byte(file)) {
			t.Errorf("%d bytes: %v", len(data), err)
		}
		is("a bad file", f2)
	}
	if err := keys.Load(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// TestA11Save checks that only Save writes a file.
func TestA11Save(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	var keys, other tlssession.Keys
	if err := keys.Save(file); !errors.Is(err, tlssession.ErrKeys) {
		t.Error(err)
	}
	keys.Rotate(1)
	keys.Rotate(1)
	if err := keys.Save(file); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	if err := other.Load(file); err != nil || !bytes.Equal(other.Bytes(), keys.Bytes()) {
		t.Error(err)
	}
}
