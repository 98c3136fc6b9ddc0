//go:build linux

package amqpfarm_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/secure-streams/sspolicy/internal/testfarm"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/runtime/tlssession/amqpfarm"
	"github.com/secure-streams/sspolicy/runtime/tlssession/farm"
)

func TestMain(m *testing.M) {
	os.Exit(testfarm.Main(m, func(url string) farm.Bus { return amqpfarm.New(url, "test", nil) }))
}

func freePort(t *testing.T) string {
	t.Helper()
	return fmt.Sprint(testserver.FreePort(t).Port())
}

// startRabbit starts a broker on loopback until the end of the test, and returns its
// address.
func startRabbit(t *testing.T) string {
	t.Helper()
	port, epmd := freePort(t), freePort(t)
	dir := t.TempDir()
	config := filepath.Join(dir, "rabbitmq.conf")
	if err := os.WriteFile(config, []byte("loopback_users = none\nvm_memory_high_watermark.absolute = 500MB\ndisk_free_limit.absolute = 1MB\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/usr/lib/rabbitmq/bin/rabbitmq-server") // the one in PATH runs it as another user
	cmd.Env = append(os.Environ(), "HOME="+dir, "RABBITMQ_NODENAME=test"+port+"@localhost",
		"RABBITMQ_MNESIA_BASE="+dir, "RABBITMQ_LOG_BASE="+dir, "RABBITMQ_LOGS=-", "RABBITMQ_PID_FILE="+filepath.Join(dir, "pid"),
		"RABBITMQ_CONFIG_FILE="+config, "RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(dir, "plugins"),
		"RABBITMQ_NODE_PORT="+port, "RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", "RABBITMQ_DIST_PORT="+freePort(t),
		"ERL_EPMD_PORT="+epmd, "ERL_EPMD_ADDRESS=127.0.0.1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (make need installs it; Debian: apt install rabbitmq-server)", err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
		// The broker has started the port mapper of Erlang, which outlives it.
		exec.Command("epmd", "-port", epmd, "-kill").Run()
	})
	addr := "127.0.0.1:" + port
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		c, err := amqp.Dial("amqp://" + addr)
		if err == nil {
			c.Close()
			return addr
		}
		select {
		case <-ended:
			t.Fatalf("rabbitmq-server has ended\n%s", out.Bytes())
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("rabbitmq-server: %v\n%s", err, out.Bytes())
		}
	}
}

// A gate forwards connections to a broker while it is open.
type gate struct {
	addr string

	mu    sync.Mutex
	open  bool
	conns []net.Conn
}

func newGate(t *testing.T, addr string) (g *gate, at string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	g = &gate{addr: addr, open: true}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			g.forward(c)
		}
	}()
	return g, ln.Addr().String()
}

func (g *gate) forward(c net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s, err := net.Dial("tcp", g.addr)
	if err != nil || !g.open {
		c.Close()
		return
	}
	g.conns = append(g.conns, c, s)
	for _, p := range [][2]net.Conn{{c, s}, {s, c}} {
		go func() {
			io.Copy(p[0], p[1])
			p[0].Close()
		}()
	}
}

// set opens the gate, or closes it and its connections.
func (g *gate) set(open bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open = open; open {
		return
	}
	for _, c := range g.conns {
		c.Close()
	}
	g.conns = nil
}

// TestA13RabbitMQ checks that two processes share sessions through RabbitMQ despite a
// temporary disconnection.
func TestA13RabbitMQ(t *testing.T) {
	addr := startRabbit(t)
	g, at := newGate(t, addr)
	testfarm.Run(t, "amqp://"+at, amqpfarm.New("amqp://"+addr, "test", nil), func() { g.set(false) }, func() { g.set(true) })
}

// TestRefused checks that Subscribe fails if a broker rejects the connection, with an error
// without name or password.
func TestRefused(t *testing.T) {
	url := fmt.Sprintf("amqp://name:s3kr1t@127.0.0.1:%s", freePort(t))
	b := amqpfarm.New(url, "test", nil)
	if err := b.Publish(t.Context(), nil); err == nil {
		t.Error("published without connection")
	}
	err := b.Subscribe(t.Context(), func() { t.Error("ready") }, nil)
	if err == nil || strings.Contains(err.Error(), "s3kr1t") {
		t.Error(err)
	}
}
