package sspcmux

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openDevice opens a device whose Close interrupts a Read.
func openDevice(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
}

// setRaw makes the device pass all bytes unchanged, sets its speed, and locks it against
// other users of this package. It returns the speed, which 0 does not change.
func setRaw(f *os.File, speed int) (int, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = conn.Control(func(fd uintptr) { speed, failed = setTermios(int(fd), speed) })
	if err == nil {
		err = failed
	}
	return speed, err
}

func setTermios(fd, speed int) (int, error) {
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return 0, fmt.Errorf("in use: %w", err)
	}
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS2)
	if err != nil {
		return 0, err
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = t.Cflag&(unix.CBAUD|unix.CIBAUD|unix.CRTSCTS) | unix.CS8 | unix.CREAD | unix.CLOCAL
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	if speed > 0 {
		t.Cflag = t.Cflag&^(unix.CBAUD|unix.CIBAUD) | unix.BOTHER
		t.Ispeed, t.Ospeed = uint32(speed), uint32(speed)
	}
	return int(t.Ospeed), unix.IoctlSetTermios(fd, unix.TCSETS2, t)
}
