package system_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/atomicfile"
	"github.com/secure-streams/sspolicy/runtime/signing"
	"github.com/secure-streams/sspolicy/runtime/system"
)

// Environment variables of the process that TestKill kills: its folder, and the step of
// writing a file at which it kills itself.
const (
	killDir = "SYSTEM_TEST_KILL_DIR"
	killAt  = "SYSTEM_TEST_KILL_AT"
)

// TestKill kills four devices KILLS (100) times in all while they update their policies: at
// each step of a write, and at random times. The file must always contain a valid, signed
// policy, and a device must never return to a version older than one it has kept.
func TestKill(t *testing.T) {
	kills := 100
	if v := os.Getenv("KILLS"); v != "" {
		var err error
		if kills, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	for range 4 {
		t.Run("device", func(t *testing.T) {
			t.Parallel()
			kill(t, kills/4)
		})
	}
}

// kill kills a device.
func kill(t *testing.T, kills int) {
	dir := t.TempDir()
	for i, k := range keys {
		text, err := k.JWK()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("key", i)), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	v := victim{t: t, dir: dir, kept: 3, tried: 3}
	for i := 1; i <= kills; i++ {
		if i%2 == 0 {
			v.run(i / 2 % 60) // ten writes of six steps
		} else {
			v.run(-1)
		}
		if t.Failed() {
			t.Fatalf("after %d kills", i)
		}
		if i%250 == 0 || i == kills {
			t.Logf("%d kills, %d starts with a kept policy, version %d, %d updates kept, %d in a write", i, v.restored, v.kept, v.updates, v.inWrite)
		}
	}
	left, err := os.ReadDir(filepath.Join(dir, "state"))
	if err != nil || len(left) > 2 { // the file, and one that was being written
		t.Errorf("left: %v, %v", left, err)
	}
}

// A victim is a device that is killed repeatedly.
type victim struct {
	t           *testing.T
	dir         string
	kept, tried uint64 // newest version kept, and newest version tried
	updates     int    // that were kept
	restored    int    // starts with a policy from the file
	inWrite     int    // kills that left a temporary file
}

// run starts the device and kills it: at a step of a write, or at a random time.
func (v *victim) run(step int) {
	v.t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKillVictim$")
	cmd.Env = append(os.Environ(), killDir+"="+v.dir, killAt+"="+strconv.Itoa(step))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		v.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		v.t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if step < 0 && rand.N(8) == 0 { // while it starts
		defer time.AfterFunc(rand.N(30*time.Millisecond), func() { cmd.Process.Kill() }).Stop()
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		what, number, _ := strings.Cut(lines.Text(), " ")
		version, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			v.t.Errorf("the device says: %s %s", lines.Text(), &stderr)
			return
		}
		switch what {
		case "restored":
			if version < v.kept || version > v.tried {
				v.t.Errorf("restored version %d: %d was kept, %d tried", version, v.kept, v.tried)
			}
			if version > 3 {
				v.restored++
			}
			v.kept = version
			if step < 0 {
				defer time.AfterFunc(rand.N(40*time.Millisecond), func() { cmd.Process.Kill() }).Stop()
			}
		case "try":
			v.tried = version
		case "kept":
			v.kept = version
			v.updates++
		}
	}
	v.check()
}

// check checks the file without a Fetcher.
func (v *victim) check() {
	v.t.Helper()
	state := filepath.Join(v.dir, "state")
	if temps, _ := filepath.Glob(filepath.Join(state, atomicfile.Prefix+"*")); len(temps) > 0 {
		v.inWrite++
	}
	raw, err := os.ReadFile(filepath.Join(state, "policy"))
	if errors.Is(err, os.ErrNotExist) && v.kept == 3 {
		return
	}
	bundle, text, ok := bytes.Cut(raw, []byte("\n\n"))
	if err != nil || !ok {
		v.t.Errorf("%v, %.100q", err, raw)
		return
	}
	s, err := signing.New(signing.Config{Product: "station", Keys: trusted, MinVersion: 3})
	if err == nil {
		s, err = s.Restore(bundle)
	}
	m, _ := s.Manifest()
	if err == nil {
		err = m.Check(text)
	}
	if err != nil || m.Version < v.kept || m.Version > v.tried {
		v.t.Errorf("version %d in the file, %d was kept, %d tried: %v", m.Version, v.kept, v.tried, err)
	}
	if p, err := loadPolicy(text); err != nil || p.Release != fmt.Sprint(m.Version) {
		v.t.Errorf("version %d in the file: %v", m.Version, err)
	}
}

// TestKillVictim is the process that TestKill kills: a device whose server offers valid
// policies, and between them policies that must be rejected.
func TestKillVictim(t *testing.T) {
	dir := os.Getenv(killDir)
	if dir == "" {
		t.Skip("TestKill runs it")
	}
	for i := range keys {
		text, err := os.ReadFile(filepath.Join(dir, fmt.Sprint("key", i)))
		if err != nil {
			t.Fatal(err)
		}
		if keys[i], err = signing.ParsePrivateKey(text); err != nil {
			t.Fatal(err)
		}
	}
	trusted = publicKeys(0, 1)
	if err := os.MkdirAll(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	if at, err := strconv.Atoi(os.Getenv(killAt)); err == nil && at >= 0 {
		steps := 0
		atomicfile.Hook = func(string) {
			if steps == at {
				self, err := os.FindProcess(os.Getpid())
				if err != nil {
					panic(err)
				}
				self.Kill()
				select {}
			}
			steps++
		}
	}
	say := func(what string, version uint64) { fmt.Printf("%s %d\n", what, version) }

	d := newDevice(t, filepath.Join(dir, "state", "policy"), system.FetcherOptions{Probes: []string{"probe"}})
	if err := d.Restore(); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	version, serial := uint64(3), uint64(0)
	if m, ok := d.Manifest(); ok {
		version = m.Version
		bundle, _, _ := strings.Cut(read(t, d.file), "\n\n")
		s, err := signing.New(signing.Config{Product: "station", Keys: trusted})
		if err == nil {
			s, err = s.Restore([]byte(bundle))
		}
		if err != nil {
			t.Fatal(err)
		}
		serial = s.Serial()
	}
	if d.Policy().Release != fmt.Sprint(version) {
		t.Fatalf("release %s, version %d", d.Policy().Release, version)
	}
	say("restored", version)
	probe := func(endpoint string) string {
		return fmt.Sprintf(`{ "probe": { "endpoint": %q, "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "x", "retry": "r" } }`, endpoint)
	}
	for {
		next := signedPolicy(version+1, probe("live"))
		dead := signedPolicy(version+1, probe("dead"))
		refuse := func(bundle, policy string, want error) {
			d.server.serve(bundle, policy)
			if err := d.Fetcher.Fetch(t.Context()); !errors.Is(err, want) {
				t.Fatalf("%v, want %v", err, want)
			}
		}
		key := int(serial%2) * 2 // the sets are the keys 0 and 1, and 2 and 3
		refuse(next, next, signing.ErrMalformed)
		refuse(sign(manifest(next, version+1), 2-key), next, signing.ErrUnknownKey)
		refuse(sign(manifest(next, version+1), key), strings.Replace(next, "same", "sama", 1), signing.ErrHash)
		refuse(sign(manifest(dead, version+1), key), dead, system.ErrRolledBack)
		var rotations []string
		if version%5 == 0 && serial < 6 {
			serial++
			key = 2 - key
			rotations = rotation(func(r *signing.Rotation) {
				r.Serial, r.Version, r.Keys = serial, version, publicKeys(key, key+1)
			}, 0, 1, 2, 3)
		}
		say("try", version+1)
		d.accept(t, sign(manifest(next, version+1), key, rotations...), next)
		version++
		say("kept", version)
		older := signedPolicy(version-1, probe("live"))
		refuse(sign(manifest(older, version-1), key), older, signing.ErrRollback)
	}
}
