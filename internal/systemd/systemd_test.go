package systemd

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if os.Getenv("LISTEN_FDS") != "" { // TestListeners runs this
		all, err := Listeners()
		if err != nil {
			os.Stdout.WriteString(err.Error())
			os.Exit(0)
		}
		for _, l := range all {
			os.Stdout.WriteString(l.Addr().String() + "\n")
			l.Close()
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestListeners(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no service manager")
	}
	path := filepath.Join(t.TempDir(), "socket")
	unix, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	for _, test := range []struct{ pid, count, want string }{
		{"$$", "2", path + "\n" + tcp.Addr().String() + "\n"},
		{"1", "2", ""},
		{"$$", "two", `LISTEN_FDS is "two", not a number of sockets`},
	} {
		var files []*os.File
		for _, l := range []net.Listener{unix, tcp} {
			f, err := l.(interface{ File() (*os.File, error) }).File()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			files = append(files, f)
		}
		c := exec.Command("sh", "-c", "LISTEN_PID="+test.pid+" LISTEN_FDS="+test.count+` exec "$0"`, os.Args[0])
		c.ExtraFiles = files
		out, err := c.CombinedOutput()
		if err != nil || string(out) != test.want {
			t.Errorf("%s of %s: %q, %v; want %q", test.count, test.pid, out, err, test.want)
		}
	}
	if _, err := os.Stat(path); err != nil {
		t.Error("the socket is gone")
	}
}

func TestNotify(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no service manager")
	}
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	if err := Notify("READY=1"); err != nil { // without a service manager
		t.Error(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	if err := Notify("READY=1", "STATUS=fine"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	manager.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, err := manager.Read(buf)
	if err != nil || !bytes.Equal(buf[:n], []byte("READY=1\nSTATUS=fine")) {
		t.Errorf("%q, %v", buf[:n], err)
	}
	t.Setenv("WATCHDOG_USEC", "3000000")
	if d := Watchdog(); d != 3*time.Second {
		t.Error(d)
	}
	t.Setenv("WATCHDOG_PID", "1")
	if d := Watchdog(); d != 0 {
		t.Error(d)
	}
}
