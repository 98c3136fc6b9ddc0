package release

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// fakeProgram is the sspolicy in the archive of the fake release.
const fakeProgram = "#!/bin/sh\necho \"fake sspolicy $*\"\n"

// newArchive returns an archive in the form of a release, with a program.
func newArchive(t *testing.T, folder, program string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: folder + "/sspolicy", Mode: 0o755, Size: int64(len(program))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(program)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// script runs a script of the action and returns its output and whether it succeeded.
func script(t *testing.T, name string, env ...string) (out string, ok bool) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "bash", "../../action/"+name)
	c.Env = append(os.Environ(), env...)
	text, err := c.CombinedOutput()
	return string(text), err == nil
}

// withoutGo returns a folder with the programs that the script needs before go.
func withoutGo(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"dirname", "mkdir"} {
		file, err := exec.LookPath(name)
		if err == nil {
			err = os.Symlink(file, filepath.Join(dir, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestActionInstall checks that the action installs a release only if its checksums
// are right.
func TestActionInstall(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the fake release has a shell script as its program")
	}
	archive := newArchive(t, "sspolicy-1.2.3", fakeProgram)
	sum := sha256.Sum256(archive)
	hash := hex.EncodeToString(sum[:])
	other := strings.Repeat("0", 64)
	for _, c := range []struct {
		name      string
		env       []string
		checksums string
		refused   string // part of the message
	}{
		{name: "release", checksums: hash + "  sspolicy_1.2.3_linux_amd64.tar.gz\n"},
		{name: "pinned", checksums: hash + "  sspolicy_1.2.3_linux_amd64.tar.gz\n", env: []string{"SHA256=" + hash}},
		{name: "other checksum", checksums: other + "  sspolicy_1.2.3_linux_amd64.tar.gz\n", refused: "and the list of checksums " + other},
		{name: "checksum of another file", checksums: hash + "  sspolicy_1.2.3_linux_amd64.tar.gz.old\n", refused: "and the list of checksums nothing"},
		{name: "no checksums", refused: "checksums.txt"},
		{name: "pinned to another", checksums: hash + "  sspolicy_1.2.3_linux_amd64.tar.gz\n", env: []string{"SHA256=" + other}, refused: "not " + other},
		{name: "no such release", env: []string{"VERSION=v1.2.4"}, refused: "cannot download"},
		{name: "no tag", env: []string{"VERSION=../../v1"}, refused: "version must be a tag"},
		{name: "no such machine", env: []string{"RUNNER_ARCH=X86"}, refused: "there is no release for X86"},
		{name: "no such system", env: []string{"RUNNER_OS=Plan9"}, refused: "there is no release for Plan9"},
		{name: "source without go", env: []string{"VERSION=", "PATH=" + withoutGo(t)}, refused: "go is missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			requests := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests++
				switch {
				case r.URL.Path == "/v1.2.3/sspolicy_1.2.3_linux_amd64.tar.gz":
					_, _ = w.Write(archive)
				case r.URL.Path == "/v1.2.3/sspolicy_1.2.3_checksums.txt" && c.checksums != "":
					_, _ = w.Write([]byte(c.checksums))
				default:
					http.NotFound(w, r)
				}
			}))
			defer server.Close()
			dir := filepath.Join(t.TempDir(), "tools")
			env := append([]string{"DIR=" + dir, "VERSION=v1.2.3", "SHA256=", "RELEASES=" + server.URL, "RUNNER_OS=Linux", "RUNNER_ARCH=X64"}, c.env...)
			out, ok := script(t, "install.sh", env...)
			if ok != (c.refused == "") || !strings.Contains(out, c.refused) {
				t.Fatalf("success %t, with the output:\n%s\nwant %q", ok, out, c.refused)
			}
			if _, err := os.Stat(dir + "/sspolicy"); (err == nil) != ok {
				t.Fatalf("installed: %v", err)
			}
			if !ok {
				return
			}
			before := requests
			if out, ok := script(t, "install.sh", env...); !ok || requests != before {
				t.Errorf("with a cached program, %d requests:\n%s", requests-before, out)
			}
			out, ok = script(t, "lint.sh", "DIR="+dir, "ARGS=--lws 4.3", "FILES=*.go")
			if !ok || !strings.Contains(out, "fake sspolicy lint --lws 4.3 action_test.go") || !strings.Contains(out, "::add-matcher::") {
				t.Errorf("lint.sh prints:\n%s", out)
			}
		})
	}
}

// TestActionVersion checks that a version that is not a tag is rejected before a program is
// searched for, and does not form a command of the runner.
func TestActionVersion(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/sspolicy", []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"../x", "v1.2", "v1.2.3\n::stop-commands::x", "v1.2.3\r::debug::x\n"} {
		out, ok := script(t, "install.sh", "DIR="+dir, "VERSION="+version, "RUNNER_OS=Linux", "RUNNER_ARCH=X64")
		if ok || !strings.Contains(out, "version must be a tag") || strings.Count(out, "\n") != 1 || strings.Contains(out, "\r") {
			t.Errorf("%q: success %t, with the output:\n%q", version, ok, out)
		}
	}
}

// TestActionSource checks that without a version, the action builds its own
// checkout.
func TestActionSource(t *testing.T) {
	tools := t.TempDir()
	fakeGo := "#!/bin/sh\n[ -f go.mod ] || exit 1\nwhile [ \"$1\" != -o ]; do shift; done\nprintf '#!/bin/sh\\n' >\"$2\"; chmod +x \"$2\"\n"
	if err := os.WriteFile(tools+"/go", []byte(fakeGo), 0o755); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "tools")
	out, ok := script(t, "install.sh", "DIR="+dir, "VERSION=", "RUNNER_OS=Linux", "RUNNER_ARCH=X64", "PATH="+tools+":"+os.Getenv("PATH"))
	if _, err := os.Stat(dir + "/sspolicy"); !ok || err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}
