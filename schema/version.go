package schema

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Version is a release line of lws, such as 4.3, or one of its releases. A line
// stands for its newest release: a key that 4.3.2 introduced is in 4.3.
type Version struct {
	Major, Minor int

	release int // 1 more than the last number of a release; 0 for a line
}

// Versions are the known release lines, oldest first. The last one is the default.
var Versions = []Version{
	{Major: 4, Minor: 1}, {Major: 4, Minor: 2}, {Major: 4, Minor: 3}, {Major: 4, Minor: 4}, {Major: 4, Minor: 5}, {Major: 5, Minor: 0},
}

// Latest returns the newest known release line.
func Latest() Version { return Versions[len(Versions)-1] }

// String returns the version as "4.3" or, for a release, "4.3.10".
func (v Version) String() string {
	if v.release == 0 {
		return fmt.Sprintf("%d.%d", v.Major, v.Minor)
	}
	return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.release-1)
}

// Line returns the release line of a version.
func (v Version) Line() Version { return Version{Major: v.Major, Minor: v.Minor} }

// Compare orders release lines by age.
func (v Version) Compare(w Version) int {
	return cmp.Or(cmp.Compare(v.Major, w.Major), cmp.Compare(v.Minor, w.Minor))
}

// Has reports whether the version includes a feature that came with a release, such
// as "4.3.2".
func (v Version) Has(release string) bool {
	if release == "" {
		return true
	}
	since, ok := parseVersion(release)
	if !ok || since.Compare(v) != 0 || v.release == 0 {
		return !ok || since.Compare(v) <= 0
	}
	return v.release >= since.release
}

// KeepsBackoff reports whether lws keeps all waits of a backoff scheme when it
// reads a policy. Versions from 4.4 on keep only the first.
func (v Version) KeepsBackoff() bool { return v.Compare(Version{Major: 4, Minor: 4}) < 0 }

// UnmarshalText parses one of Versions, or a release of one such as 4.3.10.
func (v *Version) UnmarshalText(text []byte) error {
	if p, ok := parseVersion(string(text)); ok && slices.Contains(Versions, p.Line()) {
		*v = p
		return nil
	}
	var known []string
	for _, k := range Versions {
		known = append(known, k.String())
	}
	return fmt.Errorf("unknown lws version %q: use one of %s", text, strings.Join(known, ", "))
}

// parseVersion parses a release line or a release.
func parseVersion(s string) (v Version, ok bool) {
	parts := strings.Split(s, ".")
	if len(parts) != 2 && len(parts) != 3 {
		return Version{}, false
	}
	var n [3]int
	for i, part := range parts {
		var err error
		if n[i], err = strconv.Atoi(part); err != nil || n[i] < 0 {
			return Version{}, false
		}
	}
	v = Version{Major: n[0], Minor: n[1]}
	if len(parts) == 3 {
		v.release = n[2] + 1
	}
	return v, true
}

// In reports whether lws v reads the key.
func (k *Key) In(v Version) bool {
	return k.first.Compare(v) < 0 || v.Has(k.Since)
}

// ValueIn reports whether lws v, if it reads the key, reads this value of it.
func (k *Key) ValueIn(value string, v Version) bool {
	return v.Has(k.ValueSince[value])
}
