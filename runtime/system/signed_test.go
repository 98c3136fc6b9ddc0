package system_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/signing"
	"github.com/secure-streams/sspolicy/runtime/smd"
	"github.com/secure-streams/sspolicy/runtime/system"
)

const day = 24 * time.Hour

var (
	issued  = signing.Epoch.Add(30 * day)
	keys    = [4]*signing.PrivateKey{newKey(), newKey(), newKey(), newKey()}
	trusted = publicKeys(0, 1)
)

func newKey() *signing.PrivateKey {
	k, err := signing.GenerateKey()
	if err != nil {
		panic(err)
	}
	return k
}

func publicKeys(which ...int) (all []signing.PublicKey) {
	for _, i := range which {
		all = append(all, keys[i].Public())
	}
	return all
}

// signedPolicy returns a policy whose release is its version.
func signedPolicy(version uint64, more ...string) string {
	return fetchPolicy(fmt.Sprint(version), append(more,
		`{ "fetch_policy_manifest": { "endpoint": "live", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "policy.jws", "opportunistic": true, "retry": "r" } }`)...)
}

// manifest returns the manifest of a policy.
func manifest(text string, version uint64) signing.Manifest {
	m := signing.NewManifest([]byte(text))
	m.Product, m.Version, m.IssuedAt, m.NotAfter = "station", version, issued, issued.Add(90*day)
	return m
}

// sign returns a bundle with a manifest.
func sign(m signing.Manifest, key int, rotations ...string) string {
	line, err := m.Sign(keys[key])
	if err != nil {
		panic(err)
	}
	return strings.Join(append(rotations, line), "\n") + "\n"
}

// rotation returns the lines of a rotation from the keys 0 and 1 to 2 and 3.
func rotation(change func(*signing.Rotation), signers ...int) (lines []string) {
	r := signing.Rotation{Product: "station", Serial: 1, Version: 5, IssuedAt: issued, Threshold: 2, Keys: publicKeys(2, 3)}
	if change != nil {
		change(&r)
	}
	for _, i := range signers {
		line, err := r.Sign(keys[i])
		if err != nil {
			panic(err)
		}
		lines = append(lines, line)
	}
	return lines
}

// A signedServer serves a bundle and a policy.
type signedServer struct {
	policyServer
	bundle   http.HandlerFunc
	requests []string
}

func (s *signedServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/policy.") {
		s.requests = append(s.requests, r.URL.Path)
	}
	if r.URL.Path == "/policy.jws" {
		s.bundle(w, r)
		return
	}
	s.policyServer.ServeHTTP(w, r)
}

// serve serves texts.
func (s *signedServer) serve(bundle, policy string) {
	s.requests = nil
	s.bundle = func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, bundle) }
	s.policyServer.serve(policy)
}

// A device is a program that has accepted version 5.
type device struct {
	bench
	*system.Fetcher
	server   *signedServer
	file     string
	messages <-chan string
	refused  []error
	now      time.Time
}

// newDevice returns a device with the policy of a program, version 3.
func newDevice(t *testing.T, file string, o system.FetcherOptions) *device {
	t.Helper()
	d := &device{server: &signedServer{}, file: file, now: issued}
	d.bench = newBench(t, compile(t, signedPolicy(3)), d.server.ServeHTTP)
	d.messages = d.listen(smd.ClassSystemState)
	o.File, o.SMD = file, d.smd
	o.Now = func() time.Time { return d.now }
	o.Refused = func(err error) { d.refused = append(d.refused, err) }
	if o.Signing == nil {
		o.Signing = &signing.Config{Product: "station", Keys: trusted, MinVersion: 3}
	}
	d.Fetcher = d.newFetcher(t, o)
	return d
}

// accept makes the device accept a policy.
func (d *device) accept(t *testing.T, bundle, policy string) {
	t.Helper()
	d.server.serve(bundle, policy)
	if err := d.Fetcher.Fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestAttacks checks that a device that has accepted version 5 rejects what an attacker
// serves. The first word of a name is the attack, in the terms of TUF and Uptane.
func TestAttacks(t *testing.T) {
	five, six := signedPolicy(5), signedPolicy(6)
	good := manifest(six, 6)
	change := func(f func(*signing.Manifest)) string {
		m := good
		f(&m)
		return sign(m, 0)
	}
	endless := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(bytes.Repeat([]byte(" "), 1<<16)); err != nil {
				return
			}
		}
	}
	trickle := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			io.WriteString(w, " ")
			w.(http.Flusher).Flush()
			time.Sleep(time.Second)
		}
	}
	for _, tt := range []struct {
		name     string
		bundle   string
		policy   string // "" is version 6
		serve    func(*signedServer)
		now      time.Time
		requests int // 1 if the policy must not be requested
		want     error
	}{
		{name: "none", bundle: sign(good, 0), requests: 2},
		{name: "none, by the other key", bundle: sign(good, 1), requests: 2},
		{name: "arbitrary software: a key of the attacker", bundle: sign(good, 2), requests: 1, want: signing.ErrUnknownKey},
		{name: "arbitrary software: another policy", bundle: sign(good, 0), policy: strings.Replace(six, "use/6", "use/7", 1), requests: 2, want: signing.ErrHash},
		{name: "arbitrary software: unsigned", bundle: six, requests: 1, want: signing.ErrMalformed},
		{name: "arbitrary software: an empty bundle", bundle: "", requests: 1, want: signing.ErrMalformed},
		{name: "rollback", bundle: sign(manifest(signedPolicy(4), 4), 0), policy: signedPolicy(4), requests: 1, want: signing.ErrRollback},
		{name: "rollback to the policy of the program", bundle: sign(manifest(signedPolicy(3), 3), 0), policy: signedPolicy(3), requests: 1, want: signing.ErrRollback},
		{name: "fast-forward", bundle: change(func(m *signing.Manifest) { m.Version = 6 + signing.DefaultMaxStep }), requests: 1, want: signing.ErrFastForward},
		{name: "indefinite freeze", bundle: sign(good, 0), now: issued.Add(91 * day), requests: 1, want: signing.ErrExpired},
		{name: "indefinite freeze, in 1970", bundle: change(func(m *signing.Manifest) { m.IssuedAt = issued.Add(-2 * day); m.NotAfter = issued.Add(-day) }), now: time.Unix(0, 0), requests: 1, want: signing.ErrRollback},
		{name: "endless data: the bundle", serve: func(s *signedServer) { s.bundle = endless }, requests: 1, want: signing.ErrSize},
		{name: "endless data: the policy", bundle: sign(good, 0), serve: func(s *signedServer) { s.handle(endless) }, requests: 2, want: signing.ErrSize},
		{name: "endless data: a size beyond the limit", bundle: change(func(m *signing.Manifest) { m.Size = system.DefaultMaxSize + 1 }), requests: 1, want: signing.ErrSize},
		{name: "endless data: a byte too much", bundle: sign(good, 0), policy: six + "\n", requests: 2, want: signing.ErrSize},
		{name: "endless data: a byte too few", bundle: sign(good, 0), policy: six[:len(six)-1], requests: 2, want: signing.ErrSize},
		{name: "slow retrieval: the bundle", serve: func(s *signedServer) { s.bundle = trickle }, requests: 1, want: signing.ErrSlow},
		{name: "slow retrieval: the policy", bundle: sign(good, 0), serve: func(s *signedServer) { s.handle(trickle) }, requests: 2, want: signing.ErrSlow},
		{name: "mix-and-match: an old policy, a new manifest", bundle: sign(good, 0), policy: five, requests: 2, want: signing.ErrHash},
		{name: "mix-and-match: another policy of the same version", bundle: change(func(m *signing.Manifest) { m.Version = 5 }), requests: 1, want: signing.ErrConflict},
		{name: "wrong product", bundle: change(func(m *signing.Manifest) { m.Product = "gateway" }), requests: 1, want: signing.ErrProduct},
		{name: "wrong product: a prefix", bundle: change(func(m *signing.Manifest) { m.Product = "st" }), requests: 1, want: signing.ErrProduct},
		{name: "key compromise: one old key rotates", bundle: sign(good, 2, rotation(nil, 0, 2, 3)...), requests: 1, want: signing.ErrRotation},
		{name: "key compromise: the new keys rotate", bundle: sign(good, 2, rotation(nil, 2, 3)...), requests: 1, want: signing.ErrRotation},
		{name: "key compromise: a key that was replaced", bundle: sign(good, 0, rotation(nil, 0, 1, 2, 3)...), requests: 1, want: signing.ErrUnknownKey},
		{name: "key compromise: rotations out of order", bundle: sign(good, 2, rotation(func(r *signing.Rotation) { r.Serial = 2 }, 0, 1, 2, 3)...), requests: 1, want: signing.ErrRotation},
		{name: "key compromise: a rotation of another product", bundle: sign(good, 2, rotation(func(r *signing.Rotation) { r.Product = "gateway" }, 0, 1, 2, 3)...), requests: 1, want: signing.ErrProduct},
		{name: "signed, but broken", bundle: sign(manifest("<html>", 6), 0), policy: "<html>", requests: 2, want: errLoad},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if tt.policy == "" {
					tt.policy = six
				}
				d := newDevice(t, filepath.Join(t.TempDir(), "policy"), system.FetcherOptions{Timeout: 5 * time.Second})
				d.accept(t, sign(manifest(five, 5), 0), five)
				<-d.messages
				old, kept := d.Policy(), read(t, d.file)
				d.server.serve(tt.bundle, tt.policy)
				if tt.serve != nil {
					tt.serve(d.server)
				}
				if !tt.now.IsZero() {
					d.now = tt.now
				}
				err := d.Fetcher.Fetch(t.Context())
				if len(d.server.requests) != tt.requests {
					t.Errorf("requests: %v", d.server.requests)
				}
				if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
					t.Fatalf("%v, want %v", err, tt.want)
				}
				if tt.want == nil {
					if m, ok := d.Manifest(); !ok || m.Version != 6 || d.Policy().Release != "6" || len(d.refused) > 0 {
						t.Errorf("%+v, release %s, %v", m, d.Policy().Release, d.refused)
					}
					return
				}
				if !errors.Is(err, system.ErrRefused) || d.Policy() != old || read(t, d.file) != kept {
					t.Errorf("%v, release %s", err, d.Policy().Release)
				}
				if len(d.refused) != 1 || !errors.Is(d.refused[0], tt.want) {
					t.Errorf("reported: %v", d.refused)
				}
				reason := "load"
				if r, ok := tt.want.(signing.Refusal); ok {
					reason = string(r)
				}
				if m := <-d.messages; !strings.HasPrefix(m, fmt.Sprintf(`{"policy":"refused","reason":%q,"ts":`, reason)) {
					t.Error(m)
				}
				// The next start of the program is as if nothing had happened.
				next := newDevice(t, d.file, system.FetcherOptions{})
				if err := next.Restore(); err != nil || next.Policy().Release != "5" {
					t.Errorf("%v, release %s", err, next.Policy().Release)
				}
			})
		})
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestSignedFile checks the state that a device keeps across restarts.
func TestSignedFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy")
	five, six := signedPolicy(5), signedPolicy(6)
	d := newDevice(t, file, system.FetcherOptions{})
	if err := d.Restore(); !errors.Is(err, fs.ErrNotExist) || len(d.refused) > 0 {
		t.Error(err)
	}
	d.accept(t, sign(manifest(five, 5), 0), five)
	if len(d.server.requests) != 2 {
		t.Errorf("requests: %v", d.server.requests)
	}
	d.accept(t, sign(manifest(five, 5), 0), five) // another signature of the same policy
	again := sign(manifest(five, 5), 0)
	d.accept(t, again, five)
	d.accept(t, again, five)
	if len(d.server.requests) != 1 {
		t.Errorf("requests for the policy in force: %v", d.server.requests)
	}
	// The high-water mark applies even without Restore, and even if the policy is for
	// another program.
	for _, o := range []system.FetcherOptions{{}, {Load: func([]byte) (*policy.Policy, error) { return nil, io.ErrNoProgress }}} {
		d = newDevice(t, file, o)
		if o.Load != nil {
			if err := d.Restore(); !errors.Is(err, io.ErrNoProgress) || d.Policy().Release != "3" {
				t.Errorf("%v, release %s", err, d.Policy().Release)
			}
		}
		d.server.serve(sign(manifest(signedPolicy(4), 4), 0), signedPolicy(4))
		if err := d.Fetcher.Fetch(t.Context()); !errors.Is(err, signing.ErrRollback) {
			t.Error(err)
		}
	}
	// not_after counts when a policy is accepted, not afterwards.
	d = newDevice(t, file, system.FetcherOptions{})
	d.now = issued.Add(1000 * day)
	if err := d.Restore(); err != nil || d.Policy().Release != "5" {
		t.Errorf("%v, release %s", err, d.Policy().Release)
	}
	if m, ok := d.Manifest(); !ok || !m.NotAfter.Before(d.now) {
		t.Errorf("%+v", m)
	}
	// Rotated keys last.
	d.now = issued
	bundle := sign(manifest(six, 6), 2, rotation(nil, 0, 1, 2, 3)...)
	d.accept(t, bundle, six)
	d = newDevice(t, file, system.FetcherOptions{})
	if err := d.Restore(); err != nil || d.Policy().Release != "6" {
		t.Errorf("%v, release %s", err, d.Policy().Release)
	}
	d.server.serve(sign(manifest(signedPolicy(7), 7), 0), signedPolicy(7))
	if err := d.Fetcher.Fetch(t.Context()); !errors.Is(err, signing.ErrUnknownKey) {
		t.Error(err)
	}
	// A program with a newer own policy does not return to an older one.
	d = newDevice(t, file, system.FetcherOptions{Signing: &signing.Config{Product: "station", Keys: trusted, MinVersion: 7}})
	if err := d.Restore(); !errors.Is(err, signing.ErrRollback) || d.Policy().Release != "3" {
		t.Errorf("%v, release %s", err, d.Policy().Release)
	}
	// Nor does it trust replaced keys.
	good := read(t, file)
	seven := signedPolicy(7)
	d.server.serve(sign(manifest(seven, 7), 0), seven)
	if err := d.Fetcher.Fetch(t.Context()); !errors.Is(err, signing.ErrUnknownKey) {
		t.Error(err)
	}
	d.accept(t, sign(manifest(seven, 7), 2), seven)
	// A damaged policy does not remove the high-water mark and the keys.
	if err := os.WriteFile(file, []byte(good[:len(good)-1]), 0o600); err != nil {
		t.Fatal(err)
	}
	d = newDevice(t, file, system.FetcherOptions{})
	for _, key := range []int{0, 2} {
		d.server.serve(sign(manifest(five, 5), key), five)
		if err := d.Fetcher.Fetch(t.Context()); !errors.Is(err, []error{signing.ErrUnknownKey, nil, signing.ErrRollback}[key]) {
			t.Error(err)
		}
	}
	if len(d.refused) != 3 || !errors.Is(d.refused[0], signing.ErrSize) {
		t.Errorf("reported: %v", d.refused)
	}
	// An untrusted file counts as missing, and is reported.
	for name, text := range map[string]string{
		"empty": "", "unsigned": six, "cut off": good[:len(good)-1], "longer": good + "\n", "another policy": strings.Replace(good, "use/6", "use/7", 1),
		"no policy": bundle + "\n", "without rotations": sign(manifest(six, 6), 2) + "\n" + six, "too long": good + strings.Repeat(" ", system.DefaultMaxSize+signing.MaxBundle),
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		d = newDevice(t, file, system.FetcherOptions{})
		if err := d.Restore(); !errors.Is(err, system.ErrRefused) || d.Policy().Release != "3" || len(d.refused) != 1 {
			t.Errorf("%s: %v, release %s", name, err, d.Policy().Release)
		}
		d.accept(t, bundle, six)
		if read(t, file) != good {
			t.Errorf("%s: %q was kept", name, read(t, file))
		}
	}
	if left, err := os.ReadDir(filepath.Dir(file)); len(left) != 1 || err != nil {
		t.Errorf("left: %v", left)
	}
}

// TestSignedUnreadable checks that a device does not treat an unreadable file as missing.
func TestSignedUnreadable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy")
	if err := os.Symlink("policy", file); err != nil { // to itself
		t.Fatal(err)
	}
	d := newDevice(t, file, system.FetcherOptions{})
	five := signedPolicy(5)
	d.server.serve(sign(manifest(five, 5), 0), five)
	for _, f := range []func() error{func() error { return d.Fetcher.Fetch(t.Context()) }, d.Restore} {
		if err := f(); err == nil || errors.Is(err, system.ErrRefused) || errors.Is(err, fs.ErrNotExist) || len(d.server.requests) > 0 || d.Policy().Release != "3" {
			t.Errorf("%v, requests %v", err, d.server.requests)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	d.accept(t, sign(manifest(five, 5), 0), five)
}

// TestFreezeAt1970 checks that a device without a clock uses the time of its build.
func TestFreezeAt1970(t *testing.T) {
	c := signing.Config{Product: "station", Keys: trusted, NotBefore: issued.Add(100 * day)}
	d := newDevice(t, filepath.Join(t.TempDir(), "policy"), system.FetcherOptions{Signing: &c})
	d.now = time.Unix(0, 0)
	five := signedPolicy(5)
	m := manifest(five, 5)
	d.server.serve(sign(m, 0), five)
	if err := d.Fetcher.Fetch(t.Context()); !errors.Is(err, signing.ErrExpired) || d.Policy().Release != "3" {
		t.Error(err)
	}
	m.NotAfter = issued.Add(101 * day)
	d.accept(t, sign(m, 0), five)
}

// TestSignedNotKept checks that a policy that could not be written is in force, and is
// written later.
func TestSignedNotKept(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "none", "policy")
	five := signedPolicy(5)
	d := newDevice(t, file, system.FetcherOptions{})
	d.server.serve(sign(manifest(five, 5), 0), five)
	if err := d.Fetcher.Fetch(t.Context()); !errors.Is(err, system.ErrNotKept) || d.Policy().Release != "5" {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.Fetcher.Fetch(t.Context()); err != nil || !strings.HasSuffix(read(t, file), five) {
		t.Errorf("%v, kept %q", err, read(t, file))
	}
}

// TestSignedTrial checks that a signed policy under which a peer is unreachable is neither
// in force, nor in the file, nor accepted.
func TestSignedTrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "policy")
		stream := func(name, endpoint string) string {
			return fmt.Sprintf(`{ %q: { "endpoint": %q, "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "x", "retry": "r" } }`, name, endpoint)
		}
		o := system.FetcherOptions{Probes: []string{"a", "b"}, ProbeTimeout: time.Minute}
		five, bad, six := signedPolicy(5, stream("a", "live"), stream("b", "live")), signedPolicy(6, stream("a", "live"), stream("b", "dead")), signedPolicy(6, stream("a", "live"), stream("b", "live"))
		d := newDevice(t, file, o)
		d.accept(t, sign(manifest(five, 5), 0), five)
		kept := read(t, file)
		d.server.serve(sign(manifest(bad, 6), 0), bad)
		err := d.Fetcher.Fetch(t.Context())
		if !errors.Is(err, system.ErrRolledBack) || !strings.Contains(err.Error(), `"b"`) || d.Policy().Release != "5" || read(t, file) != kept || len(d.refused) != 1 {
			t.Errorf("%v, release %s, %v", err, d.Policy().Release, d.refused)
		}
		if m, _ := d.Manifest(); m.Version != 5 {
			t.Errorf("version %d counts", m.Version)
		}
		d.accept(t, sign(manifest(six, 6), 0), six)
		if d.Policy().Release != "6" || read(t, file) == kept {
			t.Errorf("release %s", d.Policy().Release)
		}
	})
}

// TestNewFetcherSigning checks that a configuration without keys is refused.
func TestNewFetcherSigning(t *testing.T) {
	c := newBench(t, &policy.Policy{}, nil)
	if _, err := system.NewFetcher(c.Context, system.FetcherOptions{Load: loadPolicy, Signing: &signing.Config{}}); err == nil {
		t.Error("a Fetcher without keys")
	}
	f := teststream.Must(system.NewFetcher(c.Context, system.FetcherOptions{Load: loadPolicy, Signing: &signing.Config{Keys: trusted}}))
	if err := f.Fetch(t.Context()); !errors.Is(err, runtime.ErrUnknownStreamType) {
		t.Error(err)
	}
}

// TestRefusedCalls checks that Refused may call the Fetcher.
func TestRefusedCalls(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy")
	if err := os.WriteFile(file, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newBench(t, &policy.Policy{}, nil)
	var f *system.Fetcher
	calls := 0
	f = c.newFetcher(t, system.FetcherOptions{File: file, Signing: &signing.Config{Keys: trusted}, Refused: func(error) {
		if calls++; calls == 1 {
			if err := f.Restore(); !errors.Is(err, signing.ErrMalformed) {
				t.Error(err)
			}
		}
	}})
	if err := f.Fetch(t.Context()); !errors.Is(err, runtime.ErrUnknownStreamType) || calls != 2 {
		t.Errorf("%v after %d calls", err, calls)
	}
}
