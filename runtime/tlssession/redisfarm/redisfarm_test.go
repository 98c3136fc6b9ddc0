package redisfarm_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/secure-streams/sspolicy/internal/testfarm"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/runtime/tlssession/farm"
	"github.com/secure-streams/sspolicy/runtime/tlssession/redisfarm"
)

func TestMain(m *testing.M) {
	redis.SetLogger(quiet{})
	os.Exit(testfarm.Main(m, func(addr string) farm.Bus { return redisfarm.New(newClient(addr), "test") }))
}

// quiet discards the messages of go-redis about a server that is down.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

func newClient(addr string) *redis.Client {
	return redis.NewClient(&redis.Options{Addr: addr, DialTimeout: time.Second})
}

// startRedis starts a server at an address of the loopback, and returns a function
// that kills it.
func startRedis(t *testing.T, addr string) (kill func()) {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", t.TempDir())
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (make need installs it; Debian: apt install redis-server)", err)
	}
	c := newClient(addr)
	defer c.Close()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if err := c.Ping(t.Context()).Err(); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatalf("redis-server: %v\n%s", err, out.Bytes())
		}
	}
	return func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	return testserver.FreePort(t).String()
}

// TestA13Redis checks that two processes share sessions through a Redis that is
// killed and started again.
func TestA13Redis(t *testing.T) {
	addr := freeAddr(t)
	kill := startRedis(t, addr)
	defer func() { kill() }()
	client := newClient(addr)
	defer client.Close()
	testfarm.Run(t, addr, redisfarm.New(client, "test"), func() { kill() }, func() { kill = startRedis(t, addr) })
}

func TestStore(t *testing.T) {
	addr := freeAddr(t)
	kill := startRedis(t, addr)
	defer func() { kill() }()
	client := newClient(addr)
	defer client.Close()
	s := redisfarm.NewStore(client, "test")
	ctx := t.Context()
	if v, err := s.Get(ctx, "k"); v != nil || err != nil {
		t.Errorf("%q %v", v, err)
	}
	if err := s.Set(ctx, "k", []byte("\x00v"), time.Minute); err != nil {
		t.Error(err)
	}
	if v, err := s.Get(ctx, "k"); string(v) != "\x00v" || err != nil {
		t.Errorf("%q %v", v, err)
	}
	if d := client.PTTL(ctx, "sspolicy:apilogin:test:k").Val(); d <= 0 || d > time.Minute {
		t.Error("time to live:", d)
	}
	if err := s.Delete(ctx, "k"); err != nil {
		t.Error(err)
	}
	if v, err := s.Get(ctx, "k"); v != nil || err != nil {
		t.Errorf("%q %v", v, err)
	}
	kill()
	if _, err := s.Get(ctx, "k"); err == nil {
		t.Error("no error without Redis")
	}
}
