package transport

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// listen returns a listener whose connections the system accepts.
func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// TestAttributes checks the socket options of a connection.
func TestAttributes(t *testing.T) {
	for _, tt := range []struct {
		st            policy.StreamType
		tos, priority int
	}{
		{policy.StreamType{}, 0, 0},
		{policy.StreamType{Priority: 5}, 0, 5},
		{policy.StreamType{AttrLowLatency: true}, 0x10, 6}, // Linux sets the priority
		{policy.StreamType{AttrHighThroughput: true}, 0x08, 2},
		{policy.StreamType{AttrHighReliability: true}, 0x04, 0},
		{policy.StreamType{AttrLowCost: true}, 0, 0}, // Linux reserves the bit for ECN
		{policy.StreamType{AttrLowLatency: true, AttrHighThroughput: true, AttrHighReliability: true, Priority: 1}, 0x1c, 1},
	} {
		for _, ln := range []net.Listener{
			listen(t, "tcp4", "127.0.0.1:0"),
			listen(t, "unix", filepath.Join(t.TempDir(), "s")),
		} {
			for name, dial := range map[string]func(context.Context, string, string) (net.Conn, error){
				"of package net": nil,
				"of the caller":  new(net.Dialer).DialContext,
			} {
				network := ln.Addr().Network()
				var log strings.Builder
				env := NewHost(Config{DialContext: dial, Logger: slog.New(slog.NewTextHandler(&log, nil))})
				d, err := env.Dialer(&tt.st)
				if err != nil {
					t.Fatal(err)
				}
				conn, err := d.Dial(t.Context(), network, ln.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				raw, err := conn.(*dialedConn).Conn.(syscall.Conn).SyscallConn()
				if err != nil {
					t.Fatal(err)
				}
				get := func(level, option int) (value int) {
					raw.Control(func(fd uintptr) { value, err = syscall.GetsockoptInt(int(fd), level, option) })
					if err != nil {
						t.Fatal(os.NewSyscallError("getsockopt", err))
					}
					return value
				}
				tos, priority := 0, tt.priority
				if network == "tcp" {
					tos = get(syscall.IPPROTO_IP, syscall.IP_TOS)
				} else { // unix sockets have none
					tos, priority = tt.tos, int(tt.st.Priority)
				}
				if p := get(syscall.SOL_SOCKET, syscall.SO_PRIORITY); p != priority || tos != tt.tos {
					t.Errorf("%+v, %v, dialer %s: type of service %#x, priority %d; want %#x, %d", attributesOf(&tt.st), ln.Addr(), name, tos, p, tt.tos, priority)
				}
				if log.Len() > 0 {
					t.Errorf("logged: %s", &log)
				}
				env.Close()
				env.Release()
			}
		}
	}
}

// TestAttributesIPv6 checks the options of an unconnected socket, since the machine may
// have no IPv6 address.
func TestAttributesIPv6(t *testing.T) {
	fd, err := syscall.Socket(syscall.AF_INET6, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	st := policy.StreamType{AttrLowLatency: true, AttrHighReliability: true, Priority: 3}
	if err := attributesOf(&st).set(uintptr(fd)); err != nil {
		t.Fatal(err)
	}
	for _, o := range []struct{ level, option, want int }{
		{syscall.IPPROTO_IPV6, syscall.IPV6_TCLASS, 0x14},
		{syscall.SOL_SOCKET, syscall.SO_PRIORITY, 3},
	} {
		if got, err := syscall.GetsockoptInt(fd, o.level, o.option); err != nil || got != o.want {
			t.Errorf("option %d of level %d is %#x, %v; want %#x", o.option, o.level, got, err, o.want)
		}
	}
}

// TestAttributesRefused checks that options that cannot be set are logged once, and
// that the connection is made.
func TestAttributesRefused(t *testing.T) {
	ln := listen(t, "tcp", "127.0.0.1:0")
	pipe, _ := net.Pipe()
	for name, dial := range map[string]func(context.Context, string, string) (net.Conn, error){
		"closed socket": func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			if err == nil {
				conn.Close()
			}
			return conn, err
		},
		"no socket": func(context.Context, string, string) (net.Conn, error) { return pipe, nil },
	} {
		var log strings.Builder
		env := NewHost(Config{DialContext: dial, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		for _, p := range []uint8{0, 1, 1, 2, 2} {
			d, err := env.Dialer(&policy.StreamType{Priority: p})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := d.Dial(t.Context(), "tcp", ln.Addr().String()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n := strings.Count(log.String(), "have no effect"); n != 2 {
			t.Errorf("%s: %d warnings, want 2:\n%s", name, n, &log)
		}
		env.Close()
		env.Release()
	}
}
