//go:build !unix

package runtime_test

import "errors"

func mkfifo(string) error { return errors.ErrUnsupported }
