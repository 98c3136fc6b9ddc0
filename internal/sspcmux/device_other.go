//go:build !linux

package sspcmux

import (
	"errors"
	"os"
)

func openDevice(string) (*os.File, error) {
	return nil, errors.New("serial lines need Linux")
}

func setRaw(*os.File, int) (int, error) { return 0, errors.ErrUnsupported }
