package signing

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

const day = 24 * time.Hour

var (
	issued = Epoch.Add(30 * day)
	text   = []byte(`{ "release": "7", "s": [] }`)
	keys   = [4]*PrivateKey{mustKey(), mustKey(), mustKey(), mustKey()}
)

func mustKey() *PrivateKey {
	k, err := GenerateKey()
	if err != nil {
		panic(err)
	}
	return k
}

// public returns the public keys of some of keys.
func public(which ...int) []PublicKey {
	var all []PublicKey
	for _, i := range which {
		all = append(all, keys[i].Public())
	}
	return all
}

// manifest returns a valid manifest of text.
func manifest(version uint64) Manifest {
	m := NewManifest(text)
	m.Product, m.Version, m.IssuedAt, m.NotAfter = "station", version, issued, issued.Add(90*day)
	return m
}

// must returns the line of a signed manifest or rotation.
func must(line string, err error) string {
	if err != nil {
		panic(err)
	}
	return line
}

// bundle returns lines as a bundle.
func bundle(lines ...string) []byte { return []byte(strings.Join(lines, "\n") + "\n") }

// signed returns a bundle with a manifest.
func signed(m Manifest, k *PrivateKey) []byte { return bundle(must(m.Sign(k))) }

// raw signs an arbitrary header and payload.
func raw(k *PrivateKey, header, payload string) string {
	s := encode([]byte(header)) + "." + encode([]byte(payload))
	sum := sha256.Sum256([]byte(s))
	r, t, err := ecdsa.Sign(rand.Reader, k.key, sum[:])
	if err != nil {
		panic(err)
	}
	b := make([]byte, 64)
	r.FillBytes(b[:32])
	t.FillBytes(b[32:])
	return s + "." + encode(b)
}

var config = Config{Product: "station", Keys: public(0, 1), MinVersion: 3}

// device returns the state of a device that has accepted version 5.
func device(t testing.TB) State {
	t.Helper()
	s, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	s, err = s.Accept(signed(manifest(5), keys[0]), issued)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestAccept checks the result of a bundle on a device that has accepted version 5.
func TestAccept(t *testing.T) {
	change := func(f func(*Manifest)) []byte {
		m := manifest(6)
		f(&m)
		return signed(m, keys[0])
	}
	good := must(manifest(6).Sign(keys[0]))
	for _, tt := range []struct {
		name   string
		bundle []byte
		now    time.Time // zero: issued
		want   error
	}{
		{name: "newer", bundle: signed(manifest(6), keys[0])},
		{name: "newer, by the other key", bundle: signed(manifest(6), keys[1])},
		{name: "the same", bundle: signed(manifest(5), keys[0])},
		{name: "the same, valid for longer", bundle: change(func(m *Manifest) { m.Version = 5; m.IssuedAt = issued.Add(day); m.NotAfter = issued.Add(200 * day) })},
		{name: "without the last line end", bundle: []byte(good)},
		{name: "at not_after", bundle: signed(manifest(6), keys[0]), now: issued.Add(90 * day)},
		{name: "as far ahead as allowed", bundle: signed(manifest(5+DefaultMaxStep), keys[0])},

		{name: "rollback", bundle: signed(manifest(4), keys[0]), want: ErrRollback},
		{name: "rollback to an older statement about the same policy", bundle: change(func(m *Manifest) { m.Version = 5; m.IssuedAt = issued.Add(-day) }), want: ErrRollback},
		{name: "a newer version that was issued earlier", bundle: change(func(m *Manifest) { m.IssuedAt = issued.Add(-day) }), want: ErrRollback},
		{name: "another policy with the same version", bundle: change(func(m *Manifest) { m.Version = 5; m.SHA256[0]++ }), want: ErrConflict},
		{name: "fast-forward", bundle: signed(manifest(6+DefaultMaxStep), keys[0]), want: ErrFastForward},
		{name: "fast-forward to the end", bundle: signed(manifest(MaxVersion), keys[0]), want: ErrFastForward},
		{name: "freeze", bundle: signed(manifest(6), keys[0]), now: issued.Add(90*day + time.Second), want: ErrExpired},
		{name: "freeze with a clock that says 1970", bundle: change(func(m *Manifest) { m.IssuedAt = issued.Add(day); m.NotAfter = m.IssuedAt }), now: time.Unix(0, 0)},
		{name: "wrong product", bundle: change(func(m *Manifest) { m.Product = "statio" }), want: ErrProduct},
		{name: "no product", bundle: change(func(m *Manifest) { m.Product = "" }), want: ErrProduct},
		{name: "longer product", bundle: change(func(m *Manifest) { m.Product = "station2" }), want: ErrProduct},
		{name: "arbitrary: another key", bundle: signed(manifest(6), keys[2]), want: ErrUnknownKey},
		{name: "arbitrary: another key by the name of ours", bundle: bundle(raw(keys[2], header(keys[0].Public().ID(), typeManifest), string(manifest(6).payload()))), want: ErrSignature},
		{name: "arbitrary: another payload", bundle: bundle(splice(good, must(manifest(7).Sign(keys[0])))), want: ErrSignature},
		{name: "a signature of zeros", bundle: bundle(good[:strings.LastIndexByte(good, '.')+1] + encode(make([]byte, 64))), want: ErrSignature},
		{name: "empty", want: ErrMalformed},
		{name: "empty lines", bundle: []byte("\n\n"), want: ErrMalformed},
		{name: "two manifests", bundle: bundle(good, good), want: ErrMalformed},
		{name: "more behind the manifest", bundle: []byte(good + "\n\n"), want: ErrMalformed},
		{name: "line ends of Windows", bundle: []byte(good + "\r\n"), want: ErrMalformed},
		{name: "endless", bundle: bytes.Repeat([]byte("a"), MaxBundle+1), want: ErrMalformed},
		{name: "a bundle of lines", bundle: bytes.Repeat([]byte("\n"), MaxBundle), want: ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := device(t)
			if tt.now.IsZero() {
				tt.now = issued
			}
			next, err := s.Accept(tt.bundle, tt.now)
			if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
				t.Fatalf("%v, want %v", err, tt.want)
			}
			if err != nil {
				if _, ok := errors.AsType[Refusal](err); !ok {
					t.Errorf("%v is not a Refusal", err)
				}
				if _, ok := next.Manifest(); ok {
					t.Error("a state beside the error")
				}
				return
			}
			checkRestored(t, next)
		})
	}
}

// splice returns a line with the payload of another one.
func splice(line, other string) string {
	a, b := strings.Split(line, "."), strings.Split(other, ".")
	return a[0] + "." + b[1] + "." + a[2]
}

// checkRestored checks that the bundle of a state leads to it.
func checkRestored(t *testing.T, s State) {
	t.Helper()
	fresh, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	again, err := fresh.Restore(s.Bundle())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*State{&s, &again} {
		s.keys = slices.Clone(s.keys)
		for i := range s.keys {
			s.keys[i].key = nil // a pointer
		}
	}
	if got, want := fmt.Sprint(again), fmt.Sprint(s); got != want {
		t.Errorf("restored %.1000s\nfrom %.1000s", got, want)
	}
}

// TestFreezeAt1970 checks that a device without a clock rejects manifests that expired
// before its build or before Epoch.
func TestFreezeAt1970(t *testing.T) {
	clock := time.Unix(0, 0)
	for _, tt := range []struct {
		notBefore, notAfter time.Time
		want                error
	}{
		{issued.Add(2 * day), issued.Add(2 * day), nil},
		{issued.Add(2 * day), issued.Add(day), ErrExpired},
		{time.Time{}, Epoch, nil},
		{time.Time{}, Epoch.Add(-time.Second), ErrExpired},
	} {
		c := config
		c.NotBefore = tt.notBefore
		s, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		m := manifest(6)
		m.IssuedAt, m.NotAfter = Epoch.Add(-day), tt.notAfter
		if _, err := s.Accept(signed(m, keys[0]), clock); err != tt.want && !errors.Is(err, tt.want) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
	if now := device(t).Time(clock); !now.Equal(issued) {
		t.Errorf("after a manifest of %s it is %s", issued, now)
	}
}

// TestOneSpelling checks that only one spelling of a valid statement is accepted, even if a
// trusted key has signed others.
func TestOneSpelling(t *testing.T) {
	good := raw(keys[0], header(keys[0].Public().ID(), typeManifest), string(manifest(6).payload()))
	if _, err := device(t).Accept(bundle(good), issued); err != nil {
		t.Fatal(err)
	}
	for _, line := range spellings(t) {
		if _, err := device(t).Accept(bundle(line), issued); err == nil {
			t.Errorf("accepted: %s", line)
		} else if _, ok := errors.AsType[Refusal](err); !ok {
			t.Errorf("%v is not a Refusal", err)
		}
	}
}

// spellings returns lines that express a valid statement, or nearly the same, differently.
func spellings(t *testing.T) []string {
	kid := keys[0].Public().ID()
	goodHeader, goodPayload := header(kid, typeManifest), string(manifest(6).payload())
	alg := func(alg string) string { return strings.Replace(goodHeader, `"ES256"`, alg, 1) }
	var lines []string
	for _, h := range []string{
		"", "{}", "null", alg(`"none"`), alg(`"HS256"`), alg(`"ES512"`), alg(`"ES384"`), alg(`"EdDSA"`), alg(`"es256"`),
		// lws_ota of lws 5.0.0 compares as many bytes of the name as the manifest has.
		alg(`""`), alg(`"E"`), alg(`"ES"`), alg(`"ES25"`), alg(`"ES2567"`), alg(`"ES256\u0000"`), alg(`null`), alg(`["ES256"]`),
		alg(`"ES256","alg":"none"`), alg(`"none","alg":"ES256"`), alg(`"ES256","ALG":"none"`),
		alg(`"ES256","crit":["b64"],"b64":false`), alg(`"ES256","crit":[]`), alg(`"ES256","jwk":{}`), alg(`"ES256","x5u":"http://x"`),
		" " + goodHeader, goodHeader + " ", goodHeader + "\n", goodHeader + "\x00", strings.Replace(goodHeader, ":", ": ", 1),
		strings.Replace(goodHeader, `,"typ":"sspolicy-manifest"`, "", 1), header(kid, "JWT"), header(kid, typeRotation),
		fmt.Sprintf(`{"kid":%q,"alg":"ES256","typ":"sspolicy-manifest"}`, kid),
		header(strings.Replace(kid, kid[:1], fmt.Sprintf(`\u%04x`, kid[0]), 1), typeManifest), header("", typeManifest),
	} {
		lines = append(lines, raw(keys[0], h, goodPayload))
	}
	replace := func(old, new string) string {
		t.Helper()
		s := strings.Replace(goodPayload, old, new, 1)
		if s == goodPayload {
			t.Errorf("%s is not in %s", old, goodPayload)
		}
		return s
	}
	for _, p := range []string{
		"", "{}", "null", "[]", "7", goodPayload + " ", " " + goodPayload, goodPayload + goodPayload, goodPayload + "\x00", strings.TrimSuffix(goodPayload, "}"),
		replace(`"version":6`, `"version":6,"version":6`), replace(`"version":6`, `"version":6,"version":9`), replace(`"version":6`, `"Version":6`),
		replace(`"version":6`, `"version":9,"VERSION":6`), replace(`"version":6`, `"version":6.0`), replace(`"version":6`, `"version":6e0`),
		replace(`"version":6`, `"version":"6"`), replace(`"version":6`, `"version":06`), replace(`"version":6`, `"version":-6`), replace(`"version":6`, `"version":0`),
		replace(`"version":6`, `"version":null`), replace(`"version":6`, `"version":9007199254740992`), replace(`"version":6`, `"version":18446744073709551622`),
		replace(`"version":6,`, ``), replace(`"version":6`, `"new":1,"version":6`), replace(`"product":"station",`, ``),
		replace(`station`, `st\u0061tion`), replace(`station`, "station\\u0000"), replace(`station`, strings.Repeat("x", MaxProduct+1)),
		replace(`"not_after":`, `"not_after":-`), replace(`"not_after":1`, `"not_after":9999999999999991`), replace(`"issued_at":1`, `"issued_at":9`),
		replace(`"size":27`, `"size":-1`), replace(`"size":27`, `"size":4294967323`), replace(`"sha256":"`, `"sha256":"00`),
		strings.ToUpper(goodPayload), replace(`"sha256"`, `"sha512"`),
	} {
		lines = append(lines, raw(keys[0], goodHeader, p))
	}
	line := raw(keys[0], goodHeader, goodPayload)
	return append(lines,
		line+"=", line+".", "."+line, line[1:], line+"A", line[:len(line)-1], strings.Replace(line, ".", "..", 1), line+"."+line, " "+line,
		line[:len(line)-1]+string(line[len(line)-1]+1), // unused bits, or another signature
		strings.Replace(line, ".", "=.", 1), strings.Replace(line, ".", "\r.", 1), strings.Replace(line, ".", "\n.", 1),
		`{"payload":"","signatures":[]}`,
	)
}

// rotation returns the rotation with serial 1, to some keys.
func rotation(which ...int) Rotation {
	return Rotation{Product: "station", Serial: 1, Version: 5, IssuedAt: issued, Threshold: 2, Keys: public(which...)}
}

// lines returns the lines of a rotation.
func (r Rotation) lines(signers ...int) []string {
	var lines []string
	for _, i := range signers {
		lines = append(lines, must(r.Sign(keys[i])))
	}
	return lines
}

// TestRotation replaces keys 0 and 1 with others.
func TestRotation(t *testing.T) {
	with := func(lines []string, last []byte) []byte { return append(bundle(lines...), last...) }
	byNew := signed(manifest(6), keys[2])
	change := func(f func(*Rotation)) []string {
		r := rotation(2, 3)
		f(&r)
		return r.lines(0, 1, 2, 3)
	}
	for _, tt := range []struct {
		name   string
		bundle []byte
		want   error
	}{
		{"all keys", with(rotation(2, 3).lines(0, 1, 2, 3), byNew), nil},
		{"one key stays", with(rotation(1, 2).lines(0, 1, 2), byNew), nil},
		{"by the other new key", with(rotation(2, 3).lines(3, 2, 1, 0), signed(manifest(6), keys[3])), nil},
		{"the version goes back", with(change(func(r *Rotation) { r.Version = 4 }), signed(manifest(4), keys[2])), nil},
		{"the version jumps", with(change(func(r *Rotation) { r.Version = 1e6 }), signed(manifest(1e6), keys[2])), nil},
		{"key compromise: one of two old keys", with(rotation(2, 3).lines(0, 2, 3), byNew), ErrRotation},
		{"key compromise: no old key", with(rotation(2, 3).lines(2, 3), byNew), ErrRotation},
		{"not by enough new keys", with(rotation(2, 3).lines(0, 1, 2), byNew), ErrRotation},
		{"one key twice", with(rotation(2, 3).lines(0, 0, 2, 3), byNew), ErrMalformed},
		{"a stranger signs too", with(rotation(1, 2).lines(0, 1, 2, 3), byNew), ErrUnknownKey},
		{"a lower threshold does not count before", with(change(func(r *Rotation) { r.Threshold = 1 })[1:], byNew), ErrRotation},
		{"the policy by an old key", with(rotation(2, 3).lines(0, 1, 2, 3), signed(manifest(6), keys[0])), ErrUnknownKey},
		{"the policy by a new key alone", byNew, ErrUnknownKey},
		{"another product", with(change(func(r *Rotation) { r.Product = "other" }), byNew), ErrProduct},
		{"a gap", with(change(func(r *Rotation) { r.Serial = 2 }), byNew), ErrRotation},
		{"older than the program's policy", with(change(func(r *Rotation) { r.Version = 1 }), signed(manifest(2), keys[2])), ErrRollback},
		{"behind the manifest", append(signed(manifest(6), keys[0]), bundle(rotation(2, 3).lines(0, 1, 2, 3)...)...), ErrMalformed},
		{"alone", bundle(rotation(2, 3).lines(0, 1, 2, 3)...), ErrMalformed},
		{"payloads that differ", with(append(rotation(2, 3).lines(0, 1), rotation(3, 2).lines(2, 3)...), byNew), ErrRotation},
		{"a manifest between", with(rotation(2, 3).lines(0, 1), with([]string{must(manifest(6).Sign(keys[0]))}, with(rotation(2, 3).lines(2, 3), byNew))), ErrRotation},
		{"a manifest signed as a rotation", with([]string{raw(keys[0], header(keys[0].Public().ID(), typeRotation), string(manifest(6).payload()))}, byNew), ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			next, err := device(t).Accept(tt.bundle, issued)
			if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
				t.Fatalf("%v, want %v", err, tt.want)
			}
			if err != nil {
				return
			}
			if next.Serial() != 1 {
				t.Errorf("serial %d", next.Serial())
			}
			checkRestored(t, next)
			// The bundle may be repeated, with all rotations of the device.
			if again, err := next.Accept(tt.bundle, issued); err != nil || !bytes.Equal(again.Bundle(), next.Bundle()) {
				t.Errorf("again: %v", err)
			}
			// Earlier keys are rejected.
			if _, err := next.Accept(signed(manifest(next.version), keys[0]), issued); !errors.Is(err, ErrUnknownKey) {
				t.Errorf("an old key: %v", err)
			}
		})
	}
	var zero State
	if _, err := zero.Accept(with(rotation(2, 3).lines(2, 3), byNew), issued); err == nil {
		t.Error("the zero State accepts a rotation")
	}
}

// TestRotations goes through three sets of keys at once, and prunes a chain.
func TestRotations(t *testing.T) {
	first, second := rotation(1, 2), rotation(2, 3)
	second.Serial = 2
	m := must(manifest(6).Sign(keys[3]))
	all := append(append(first.lines(0, 1, 2), second.lines(1, 2, 3)...), m)
	s, err := device(t).Accept(bundle(all...), issued)
	if err != nil || s.Serial() != 2 {
		t.Fatal(err)
	}
	checkRestored(t, s)
	// A server may drop the rotations of every device; the device keeps them.
	pruned, err := s.Accept(signed(manifest(7), keys[2]), issued)
	if err != nil {
		t.Fatal(err)
	}
	checkRestored(t, pruned)
	// A program that is built with the newest keys needs no chain.
	c := config
	c.Keys, c.Serial, c.Threshold = second.Keys, 2, second.Threshold
	built, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if built, err = built.Accept(bundle(all...), issued); err != nil || !bytes.Equal(built.Bundle(), bundle(m)) {
		t.Errorf("%v, %s", err, built.Bundle())
	}
}

// TestManyRotations checks that a state never exceeds what Restore reads.
func TestManyRotations(t *testing.T) {
	s := device(t)
	for i := 0; ; i++ {
		r := rotation(0, 1)
		r.Serial = s.Serial() + 1
		next, err := s.Accept(append(bundle(r.lines(0, 1)...), signed(manifest(6), keys[0])...), issued)
		if errors.Is(err, ErrRotation) && i > 20 {
			break
		} else if err != nil {
			t.Fatalf("rotation %d: %v", i, err)
		}
		s = next
	}
	checkRestored(t, s)
}

// TestFutureUndone checks that a rotation undoes a manifest from the future, which a
// stolen key has signed.
func TestFutureUndone(t *testing.T) {
	m := manifest(6)
	m.IssuedAt, m.NotAfter = issued.AddDate(5000, 0, 0), issued.AddDate(5000, 0, 1)
	s, err := device(t).Accept(signed(m, keys[0]), issued)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Accept(signed(manifest(7), keys[1]), issued); !errors.Is(err, ErrRollback) {
		t.Errorf("before the rotation: %v", err)
	}
	s, err = s.Accept(append(bundle(rotation(1, 2).lines(0, 1, 2)...), signed(manifest(7), keys[1])...), issued)
	if err != nil || !s.Time(issued).Equal(issued) {
		t.Errorf("%v, it is %s", err, s.Time(issued))
	}
}

// TestCheck checks the policy of a manifest.
func TestCheck(t *testing.T) {
	m := manifest(6)
	for _, tt := range []struct {
		name, text string
		want       error
	}{
		{"good", string(text), nil},
		{"endless", string(text) + " ", ErrSize},
		{"cut off", string(text[:len(text)-1]), ErrSize},
		{"another one", strings.Replace(string(text), "7", "8", 1), ErrHash},
		{"empty", "", ErrSize},
	} {
		if err := m.Check([]byte(tt.text)); err != tt.want && !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// TestNewErrors checks the configurations that New refuses.
func TestNewErrors(t *testing.T) {
	for name, c := range map[string]Config{
		"no keys":     {},
		"zero key":    {Keys: []PublicKey{{}}},
		"a key twice": {Keys: public(0, 0)},
		"threshold":   {Keys: public(0, 1), Threshold: 3},
		"negative":    {Keys: public(0, 1), Threshold: -1},
		"product":     {Keys: public(0), Product: "a\nb"},
		"version":     {Keys: public(0), MinVersion: MaxVersion + 1},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// FuzzAccept checks that only signed bundles are accepted.
func FuzzAccept(f *testing.F) {
	rotated := append(rotation(1, 2).lines(0, 1, 2), must(manifest(6).Sign(keys[2])))
	good := map[string]bool{}
	for _, b := range [][]byte{signed(manifest(5), keys[0]), signed(manifest(6), keys[1]), bundle(rotated...)} {
		good[strings.TrimSuffix(string(b), "\n")] = true
		f.Add(b)
	}
	f.Add([]byte("..\n"))
	old := device(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := old.Accept(b, issued); err == nil && !good[strings.TrimSuffix(string(s.Bundle()), "\n")] {
			t.Errorf("accepted: %s", b)
		}
	})
}

// FuzzStatement checks that an accepted signed header and payload are those that this
// package writes for the same values.
func FuzzStatement(f *testing.F) {
	kid := keys[0].Public().ID()
	f.Add(header("", typeManifest), string(manifest(6).payload()))
	f.Add(header("", typeRotation), string(rotation(1, 2).payload()))
	f.Add(`{"alg":"ES256","kid":"","typ":"sspolicy-manifest","crit":[]}`, `{"product":"station","version":6}`)
	f.Fuzz(func(t *testing.T, head, payload string) {
		head = strings.Replace(head, `"kid":""`, fmt.Sprintf(`"kid":"%s"`, kid), 1) // the keys are new in each run
		s, err := parse(raw(keys[0], head, payload))
		if err != nil {
			return
		}
		if err := s.verify(public(0)); err != nil || head != header(kid, s.typ) {
			t.Errorf("%s: %v", head, err)
		}
		if m, err := parseManifest(s.payload); err == nil && (string(m.payload()) != payload || m.check() != nil) {
			t.Errorf("%s became %s", payload, m.payload())
		}
		if r, err := parseRotation(s.payload); err == nil && (string(r.payload()) != payload || r.check() != nil) {
			t.Errorf("%s became %s", payload, r.payload())
		}
	})
}
