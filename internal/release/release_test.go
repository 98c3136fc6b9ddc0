//go:build release

package release

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	root = "../.."
	dist = root + "/dist"
)

// run runs a program and returns its output. It fails the test unless the program
// exits with code.
func run(t *testing.T, code int, dir, name string, args ...string) string {
	t.Helper()
	return runEnv(t, code, dir, nil, name, args...)
}

func runEnv(t *testing.T, code int, dir string, env []string, name string, args ...string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), name, args...)
	c.Dir, c.Env = dir, append(os.Environ(), env...)
	out, err := c.CombinedOutput()
	if c.ProcessState == nil || c.ProcessState.ExitCode() != code {
		t.Fatalf("%s %s: %v, want exit code %d:\n%s", name, strings.Join(args, " "), err, code, out)
	}
	return string(out)
}

// file returns the name of the one file in dist that ends in suffix.
func file(t *testing.T, suffix string) string {
	t.Helper()
	files, err := filepath.Glob(dist + "/*" + suffix)
	if err != nil || len(files) != 1 {
		t.Fatalf("files that end in %s: %q, %v", suffix, files, err)
	}
	name, err := filepath.Abs(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func hashOf(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// TestChecksums checks that the list of checksums has every file that people
// download.
func TestChecksums(t *testing.T) {
	text, err := os.ReadFile(file(t, "_checksums.txt"))
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		listed[name] = true
		if got := hashOf(t, filepath.Join(dist, name)); got != sum {
			t.Errorf("%s has the SHA-256 %s, and the list %s", name, got, sum)
		}
	}
	for _, ext := range []string{".tar.gz", ".zip", ".deb", ".rpm", ".cdx.json"} {
		files, _ := filepath.Glob(dist + "/*" + ext)
		for _, f := range files {
			if !listed[filepath.Base(f)] {
				t.Errorf("%s is not in the list of checksums", f)
			}
		}
	}
}

// unpack returns the folder of the archive for this machine.
func unpack(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	run(t, 0, dir, "tar", "-xzf", file(t, "_"+runtime.GOOS+"_"+runtime.GOARCH+".tar.gz"))
	inside, err := filepath.Glob(dir + "/*")
	if err != nil || len(inside) != 1 {
		t.Fatalf("the archive has %q, want one folder", inside)
	}
	return inside[0]
}

// TestFirstSteps checks the first steps of a newcomer, who has only the archive and
// no checkout.
func TestFirstSteps(t *testing.T) {
	begin := time.Now()
	step := func(name string) {
		t.Logf("%-28s after %v", name, time.Since(begin).Round(time.Millisecond))
	}
	dir := unpack(t)
	step("unpacked")
	sspolicy := filepath.Join(dir, "sspolicy")
	run(t, 0, dir, sspolicy, "version")
	if out := run(t, 1, dir, sspolicy, "lint", "fixtures/weather-mistakes.json"); !strings.Contains(out, "[out-of-range]") {
		t.Errorf("lint does not find the mistake:\n%s", out)
	}
	run(t, 0, dir, sspolicy, "lint", "fixtures/weather.json")
	step("first lint")
	run(t, 0, dir, sspolicy, "compile", "--lang", "c", "-o", "policy.h", "fixtures/weather.json")
	run(t, 0, dir, sspolicy, "verify", "--compiled", "policy.h", "fixtures/weather.json")
	run(t, 0, dir, sspolicy, "compile", "--lang", "go", "-o", "policy.go", "fixtures/weather.json")
	step("first compile")
	server := exec.CommandContext(t.Context(), sspolicy, "run", "--respond", "hello, world", "--count", "1", "fixtures/hello.json", "server")
	server.Dir = dir
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	if out := run(t, 0, dir, sspolicy, "run", "fixtures/hello.json", "client"); !strings.Contains(out, "hello, world") {
		t.Errorf("the client has no answer:\n%s", out)
	}
	step("first run")
	if err := server.Wait(); err != nil {
		t.Errorf("the server: %v", err)
	}
	for _, f := range []string{"LICENSE", "README.md", "CHANGELOG.md", "docs/guide.md", "share/man/man1/sspolicy.1", "share/cmake/sspolicy/sspolicy.cmake"} {
		if _, err := os.Stat(filepath.Join(dir, f)); err != nil {
			t.Errorf("the archive lacks %s", f)
		}
	}
}

var (
	fenced = regexp.MustCompile("(?ms)^ *```.*?^ *```")
	link   = regexp.MustCompile(`\]\(([^)#\s]+)[^)]*\)`)
)

// TestArchiveLinks checks that each link of the archive's pages to a file leads to a
// file of the archive.
func TestArchiveLinks(t *testing.T) {
	dir, links := unpack(t), 0
	err := filepath.WalkDir(dir, func(page string, _ os.DirEntry, err error) error {
		if err != nil || filepath.Ext(page) != ".md" {
			return err
		}
		text, err := os.ReadFile(page)
		if err != nil {
			return err
		}
		for _, m := range link.FindAllSubmatch(fenced.ReplaceAll(text, nil), -1) {
			to := string(m[1])
			if strings.Contains(to, ":") {
				continue
			}
			links++
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), to)); err != nil {
				t.Errorf("%s links to %s, which the archive lacks", strings.TrimPrefix(page, dir+"/"), to)
			}
		}
		return nil
	})
	if err != nil || links < 100 {
		t.Errorf("%d links, %v", links, err)
	}
}

// A version is what "sspolicy version --json" prints.
type version struct {
	Version, Commit, Time, Go string
	Modified                  bool
	LWS                       []string
}

func versionOf(t *testing.T, sspolicy string) (v version) {
	t.Helper()
	if err := json.Unmarshal([]byte(run(t, 0, "", sspolicy, "version", "--json")), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func head(t *testing.T) string {
	return strings.TrimSpace(run(t, 0, root, "git", "rev-parse", "HEAD"))
}

// TestReleasedVersion checks that a released program knows its commit.
func TestReleasedVersion(t *testing.T) {
	v := versionOf(t, filepath.Join(unpack(t), "sspolicy"))
	if v.Commit != head(t) || v.Time == "" || v.Go != runtime.Version() || len(v.LWS) < 6 {
		t.Errorf("%+v, want the commit %s", v, head(t))
	}
}

// TestSourceArchiveVersion checks that a program built from an archive of the
// sources, which has no repository, knows its commit.
func TestSourceArchiveVersion(t *testing.T) {
	dir := t.TempDir()
	run(t, 0, root, "git", "archive", "-o", dir+"/source.tar", "HEAD")
	run(t, 0, dir, "tar", "-xf", "source.tar")
	run(t, 0, dir, "go", "build", "-o", "sspolicy", "./cmd/sspolicy")
	if v := versionOf(t, dir+"/sspolicy"); v.Commit != head(t) || v.Time == "" {
		t.Errorf("%+v, want the commit %s", v, head(t))
	}
}

// TestGoInstall checks that go install finds a tag in the repository, as a module
// proxy does.
func TestGoInstall(t *testing.T) {
	dir := t.TempDir()
	run(t, 0, root, "git", "clone", "-q", "--bare", ".", dir+"/sspolicy.git")
	run(t, 0, dir+"/sspolicy.git", "git", "tag", "v0.0.99", head(t))
	cache := strings.TrimSpace(run(t, 0, "", "go", "env", "GOMODCACHE"))
	runEnv(t, 0, dir, []string{
		"GIT_CONFIG_COUNT=2",
		"GIT_CONFIG_KEY_0=url.file://" + dir + "/sspolicy.git.insteadOf", "GIT_CONFIG_VALUE_0=https://github.com/secure-streams/sspolicy",
		"GIT_CONFIG_KEY_1=safe.directory", "GIT_CONFIG_VALUE_1=*",
		"GOPRIVATE=github.com/secure-streams/*", "GOPROXY=file://" + cache + "/cache/download", "GONOSUMDB=*",
		"GOMODCACHE=" + dir + "/mod", "GOBIN=" + dir, "GOFLAGS=-modcacherw",
	}, "go", "install", "github.com/secure-streams/sspolicy/cmd/sspolicy@latest")
	if v := versionOf(t, dir+"/sspolicy"); v.Version != "v0.0.99" {
		t.Errorf("version %s, want v0.0.99", v.Version)
	}
}

// packaged are the files of the packages, where the folder of zsh's functions differs.
func packaged(zsh string) []string {
	return []string{
		"/usr/bin/sspolicy", "/usr/share/man/man1/sspolicy.1", "/usr/share/doc/sspolicy/copyright",
		"/usr/share/bash-completion/completions/sspolicy", "/usr/share/fish/vendor_completions.d/sspolicy.fish",
		"/usr/share/zsh/" + zsh + "/_sspolicy", "/usr/share/cmake/sspolicy/sspolicy.cmake", "/usr/share/cmake/sspolicy/sspolicy-config.cmake",
	}
}

// TestDeb checks that the package is installed on this machine, tried and removed.
func TestDeb(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("dpkg -i needs root")
	}
	if err := exec.Command("dpkg", "-s", "sspolicy").Run(); err == nil {
		t.Fatal("the package sspolicy is installed: remove it, since the test installs and purges it")
	}
	run(t, 0, "", "dpkg", "-i", file(t, "_"+runtime.GOARCH+".deb"))
	purge := func() { _ = exec.Command("dpkg", "--purge", "sspolicy").Run() }
	t.Cleanup(purge)
	for _, f := range packaged("vendor-completions") {
		if _, err := os.Stat(f); err != nil {
			t.Errorf("the package does not install %s", f)
		}
	}
	if v := versionOf(t, "/usr/bin/sspolicy"); v.Commit != head(t) {
		t.Errorf("installed is the commit %s, want %s", v.Commit, head(t))
	}
	completions := run(t, 0, "", "bash", "-c", `. /usr/share/bash-completion/completions/sspolicy
COMP_WORDS=(sspolicy comp) COMP_CWORD=1; _sspolicy; printf '%s\n' "${COMPREPLY[@]}"`)
	if !strings.Contains(completions, "compile") {
		t.Errorf("bash completes comp to %q", completions)
	}
	purge()
	for _, f := range packaged("vendor-completions") {
		if _, err := os.Stat(f); err == nil {
			t.Errorf("the package leaves %s behind", f)
		}
	}
}

// TestRPM checks that rpm installs the package in a folder of its own.
func TestRPM(t *testing.T) {
	if _, err := exec.LookPath("rpm"); err != nil {
		t.Fatal("rpm is not installed (Debian: apt install rpm)")
	}
	f, dir := file(t, "_"+runtime.GOARCH+".rpm"), t.TempDir()
	listed := strings.Fields(run(t, 0, "", "rpm", "-qlp", f))
	for _, want := range packaged("site-functions") {
		if !slices.Contains(listed, want) {
			t.Errorf("the package lacks %s", want)
		}
	}
	run(t, 0, "", "rpm", "--root", dir, "--nodeps", "-i", f)
	if v := versionOf(t, dir+"/usr/bin/sspolicy"); v.Commit != head(t) {
		t.Errorf("installed is the commit %s, want %s", v.Commit, head(t))
	}
	run(t, 0, "", "rpm", "--root", dir, "-e", "sspolicy")
	if _, err := os.Stat(dir + "/usr/bin/sspolicy"); err == nil {
		t.Error("the package leaves the program behind")
	}
}

// TestSBOM checks that the bill of materials has the modules that the program was
// built from.
func TestSBOM(t *testing.T) {
	text, err := os.ReadFile(file(t, "_"+runtime.GOOS+"_"+runtime.GOARCH+".cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	var bom struct {
		BomFormat  string
		Components []struct{ Name, Version, PURL string }
	}
	if err := json.Unmarshal(text, &bom); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range bom.Components {
		names = append(names, c.Name)
	}
	for _, want := range []string{"std", "github.com/alecthomas/kong", "github.com/santhosh-tekuri/jsonschema/v5"} {
		if !slices.Contains(names, want) {
			t.Errorf("the %s document lacks %s: %q", bom.BomFormat, want, names)
		}
	}
}

// inArchive matches the files of the archive that the cask installs.
var inArchive = regexp.MustCompile(`(?:manpage|_completion|rename) "([^"]+)"`)

// TestManifests checks that the manifests name archives of this release, with their
// checksums. A snapshot for some targets has none.
func TestManifests(t *testing.T) {
	listing := run(t, 0, "", "tar", "-tzf", file(t, "_"+runtime.GOOS+"_"+runtime.GOARCH+".tar.gz"))
	for _, m := range []string{"homebrew/Casks/sspolicy.rb", "scoop/sspolicy.json"} {
		text, err := os.ReadFile(filepath.Join(dist, m))
		if os.IsNotExist(err) {
			t.Logf("%s: not built", m)
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		found := 0
		archives, _ := filepath.Glob(dist + "/*.tar.gz")
		zips, _ := filepath.Glob(dist + "/*.zip")
		for _, a := range append(archives, zips...) {
			if strings.Contains(string(text), hashOf(t, a)) {
				found++
			}
		}
		if found < 2 {
			t.Errorf("%s has the checksums of %d archives", m, found)
		}
		for _, f := range inArchive.FindAllSubmatch(text, -1) {
			if name := filepath.Base(string(f[1])); !strings.Contains(listing, string(f[1])) {
				t.Errorf("%s: %s is not in the archive as %s", m, name, f[1])
			}
		}
	}
}

// TestImage checks that the image has the program alone, which runs as a user
// without rights. buildah needs neither a daemon nor the network for it.
func TestImage(t *testing.T) {
	if _, err := exec.LookPath("buildah"); err != nil || os.Getuid() != 0 {
		t.Fatal("the test needs buildah (Debian: apt install buildah), and root")
	}
	dir := t.TempDir()
	image := func(code int, args ...string) string {
		return run(t, code, "", "buildah", append([]string{"--storage-driver", "vfs", "--root", dir + "/root", "--runroot", dir + "/run"}, args...)...)
	}
	fixtures, err := filepath.Abs(root + "/fixtures")
	if err != nil {
		t.Fatal(err)
	}
	image(0, "build", "--isolation", "chroot", "-f", root+"/Dockerfile", "-t", "sspolicy", unpack(t))
	image(0, "from", "--name", "trial", "sspolicy")
	// Findings go to a file: buildah may lose the output of a program that ends at once.
	out := t.TempDir()
	if err := os.Chmod(out, 0o777); err != nil {
		t.Fatal(err)
	}
	image(1, "run", "--isolation", "chroot", "--user", "65532:65532", "-v", fixtures+":/work:ro", "-v", out+":/out", "trial", "--",
		"/sspolicy", "lint", "--format", "text=/out/findings.txt", "weather.json", "weather-mistakes.json")
	if findings, err := os.ReadFile(out + "/findings.txt"); err != nil || !strings.Contains(string(findings), "[out-of-range]") {
		t.Errorf("lint in the container finds %q, %v", findings, err)
	}
	if config := image(0, "inspect", "sspolicy"); !strings.Contains(config, `"User": "65532:65532"`) {
		t.Errorf("the image has another user:\n%s", config)
	}
	image(0, "rm", "trial")
}
