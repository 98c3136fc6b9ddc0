package schema

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Version is a release line of lws, such as 4.3. It stands for the newest release:
// a key that 4.3.2 introduced is in 4.3.
type Version struct {
	Major, Minor int
}

// Versions are the known release lines, oldest first. The last one is the default.
var Versions = []Version{{4, 1}, {4, 2}, {4, 3}, {4, 4}, {4, 5}, {5, 0}}

// Latest returns the newest known release line.
func Latest() Version { return Versions[len(Versions)-1] }

// String returns the version as "major.minor".
func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// Compare orders versions by age.
func (v Version) Compare(w Version) int {
	return cmp.Or(cmp.Compare(v.Major, w.Major), cmp.Compare(v.Minor, w.Minor))
}

// UnmarshalText parses one of Versions, or a release of it such as 4.3.10.
func (v *Version) UnmarshalText(text []byte) error {
	if p, ok := parseVersion(string(text)); ok && slices.Contains(Versions, p) {
		*v = p
		return nil
	}
	var known []string
	for _, k := range Versions {
		known = append(known, k.String())
	}
	return fmt.Errorf("unknown lws version %q: use one of %s", text, strings.Join(known, ", "))
}

// parseVersion parses the first two numbers of a release.
func parseVersion(s string) (Version, bool) {
	parts := strings.SplitN(s, ".", 3)
	if len(parts) < 2 {
		return Version{}, false
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	return Version{major, minor}, err1 == nil && err2 == nil
}

// In reports whether v reads the key.
func (k *Key) In(v Version) bool {
	since, ok := parseVersion(k.Since)
	return !ok || since.Compare(v) <= 0
}

// ValueIn reports whether v, if it reads the key, reads this value of it.
func (k *Key) ValueIn(value string, v Version) bool {
	since, ok := parseVersion(k.ValueSince[value])
	return !ok || since.Compare(v) <= 0
}
