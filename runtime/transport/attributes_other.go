//go:build !linux

package transport

import "fmt"

// set says that there are no such attributes here.
func (attributes) set(uintptr) error {
	return fmt.Errorf("%w: attr_ keys, on other systems than Linux", ErrUnsupported)
}
