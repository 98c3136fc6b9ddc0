package signing

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestLWS compiles the example in docs/signing.md against lws, and checks that it decides
// like this package. Debian's lws lacks JOSE; LWS_JOSE lists build folders of lws with
// JOSE, for the other half of the example.
func TestLWS(t *testing.T) {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/signing.md")
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile("(?s)\n```c\n(.*?)```\n").FindSubmatch(page)
	program, err := os.ReadFile("testdata/main.c")
	if example == nil || err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	source := write(t, filepath.Join(dir, "device.c"), append(example[1], program...))
	for _, build := range append([]string{""}, filepath.SplitList(os.Getenv("LWS_JOSE"))...) {
		args := []string{"-O1", "-Wall", "-Wextra", "-Werror", "-o", filepath.Join(dir, "device"), source}
		if build == "" {
			args = append(args, "-lwebsockets", "-lcrypto")
		} else {
			args = append(args, "-I"+build, "-I"+filepath.Join(build, "include"), filepath.Join(build, "lib", "libwebsockets.a"), "-lssl", "-lcrypto", "-lz", "-lcap")
		}
		if out, err := exec.Command(gcc, args...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Run(build, func(t *testing.T) { agree(t, dir) })
	}
}

// agree checks that the device in a folder agrees with Accept about manifests.
func agree(t *testing.T, dir string) {
	type row struct {
		now  time.Time
		line string
	}
	good := must(manifest(6).Sign(keys[0]))
	rows := []row{{issued, good}, {issued, must(manifest(6).Sign(keys[1]))}, {issued.Add(90 * day), good}, {issued.Add(90*day + time.Second), good},
		{time.Unix(0, 0), good}, {issued, must(manifest(6).Sign(keys[2]))}, {issued, must(manifest(4).Sign(keys[0]))},
		{issued, must(manifest(5 + DefaultMaxStep).Sign(keys[0]))}, {issued, must(manifest(6 + DefaultMaxStep).Sign(keys[0]))}, {issued, must(manifest(MaxVersion).Sign(keys[0]))},
		{issued, splice(good, must(manifest(7).Sign(keys[0])))},
		{issued, raw(keys[2], header(keys[0].Public().ID(), typeManifest), string(manifest(6).payload()))},
		{issued, good[:len(good)-86] + strings.Repeat("A", 86)}, {issued, good[:len(good)-86]}, {issued, good[:len(good)-43]}, {issued, ""}, {issued, "."}, {issued, ".."}, {issued, "..."},
		{issued, strings.Repeat("A", 40000)}, {issued, strings.Repeat("A", 500) + "." + strings.Repeat("A", 500) + "."}}
	for _, change := range []func(*Manifest){
		func(m *Manifest) { m.Product = "statio" },
		func(m *Manifest) { m.Product = "stations" },
		func(m *Manifest) { m.Product = "" },
		func(m *Manifest) { m.IssuedAt = issued.Add(-day) },
		func(m *Manifest) { m.NotAfter = m.IssuedAt },
		func(m *Manifest) { m.NotAfter = time.Unix(maxTime, 0) },
	} {
		m := manifest(6)
		change(&m)
		rows = append(rows, row{issued, must(m.Sign(keys[0]))})
	}
	for _, line := range spellings(t) {
		if !strings.ContainsAny(line, "\n\x00") && !sameSignature(line) {
			rows = append(rows, row{issued, line})
		}
	}
	var in bytes.Buffer
	for _, r := range rows {
		fmt.Fprintf(&in, "%d %s\n", r.now.Unix(), r.line)
	}
	args := []string{"5", fmt.Sprint(issued.Unix()), write(t, filepath.Join(dir, "policy"), text)}
	for i := range 2 {
		args = append(args, write(t, filepath.Join(dir, fmt.Sprint("key", i)), keys[i].Public().JWK()))
	}
	cmd := exec.Command(filepath.Join(dir, "device"), args...)
	cmd.Stdin = &in
	out, err := cmd.Output()
	verdicts := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if err != nil || len(verdicts) != len(rows) {
		t.Fatalf("%v, %d verdicts on %d manifests", err, len(verdicts), len(rows))
	}
	accepted := 0
	for i, r := range rows {
		_, err := device(t).Accept(bundle(r.line), r.now)
		if (err == nil) != (verdicts[i] == "good") {
			t.Errorf("manifest %d: %v, but in C %s\n%.500s", i, err, verdicts[i], r.line)
		}
		if err == nil {
			accepted++
		}
	}
	if accepted < 5 {
		t.Errorf("only %d manifests are good", accepted)
	}
	t.Logf("%d manifests, %d good", len(rows), accepted)
	// Another policy.
	write(t, args[2], bytes.Replace(text, []byte("7"), []byte("8"), 1))
	cmd = exec.Command(cmd.Path, args...)
	cmd.Stdin = strings.NewReader(fmt.Sprintf("%d %s\n", issued.Unix(), good))
	if out, err := cmd.Output(); string(out) != "not the policy that was signed\n" {
		t.Errorf("%s, %v", out, err)
	}
}

// sameSignature reports whether a line has a valid signature in another base64url spelling,
// which C decoders accept. The spelling carries no meaning.
func sameSignature(line string) bool {
	dot := strings.LastIndexByte(line, '.')
	b, err := base64.RawURLEncoding.DecodeString(line[dot+1:])
	if err != nil {
		return false
	}
	s, err := parse(line[:dot+1] + encode(b))
	return err == nil && s.verify(public(0, 1)) == nil
}

func write(t *testing.T, file string, text []byte) string {
	t.Helper()
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
