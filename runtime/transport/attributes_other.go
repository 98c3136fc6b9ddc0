//go:build !linux

package transport

import "fmt"

// set returns ErrUnsupported: only Linux has these attributes.
func (attributes) set(uintptr) error {
	return fmt.Errorf("%w: attr_ keys on systems other than Linux", ErrUnsupported)
}
