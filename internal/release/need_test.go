package release

import (
	"os/exec"
	"strings"
	"testing"
)

// TestNeedDisk checks that "make need" reports missing disk space before it builds
// anything.
func TestNeedDisk(t *testing.T) {
	cmd := exec.Command("make", "-C", "../..", "need", "CACHE_MB=999999999", "TMP_MB=1")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "make: the tests need ") || !strings.Contains(string(out), " MB are missing on the disk of ") {
		t.Errorf("%v\n%s", err, out)
	}
}
