package redisfarm_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/runtime/tlssession"
	"github.com/secure-streams/sspolicy/runtime/tlssession/farm"
	"github.com/secure-streams/sspolicy/runtime/tlssession/redisfarm"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// run starts a redis-server, which ends with the test, and returns a function that kills
// it.
func run(t *testing.T, args ...string) (kill func()) {
	t.Helper()
	cmd := exec.Command("redis-server", args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (make need installs it; Debian: apt install redis-server)", err)
	}
	kill = func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	t.Cleanup(func() {
		kill()
		if t.Failed() {
			t.Logf("redis-server %s:\n%s", strings.Join(args, " "), out.Bytes())
		}
	})
	return kill
}

// server is run for a server without files at an address.
func server(t *testing.T, addr string, args ...string) (kill func()) {
	_, port, _ := net.SplitHostPort(addr)
	return run(t, append([]string{"--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", t.TempDir()}, args...)...)
}

// await waits until a command succeeds.
func await(t *testing.T, what string, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// members are two members of a farm.
type members [2]*tlssession.Cache

func join(t *testing.T, newClient func() redis.UniversalClient) (m members) {
	t.Helper()
	for i := range m {
		client := newClient()
		t.Cleanup(func() { client.Close() })
		m[i] = tlssession.NewCache(tlssession.Options{})
		f, err := farm.Join(farm.Options{
			Bus: redisfarm.New(client, t.Name()), Key: bytes.Repeat([]byte("k"), 32), Cache: m[i], Beat: 100 * time.Millisecond,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		await(t, "the farm", func() error {
			if s := f.Stats(); !s.Connected {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
	}
	return m
}

// share checks that a session of each member reaches the other.
func (m members) share(t *testing.T) {
	t.Helper()
	for i, from := range m {
		b := make([]byte, tlssession.MaxID)
		rand.Read(b)
		id := tlssession.ID(b)
		if err := from.Insert(id, tlssession.Session{State: sessionState(t)}); err != nil {
			t.Fatal(err)
		}
		await(t, fmt.Sprintf("a session of member %d", i), func() error {
			if _, ok := m[1-i].Lookup(id); !ok {
				return fmt.Errorf("is not shared")
			}
			return nil
		})
	}
}

// checkStore checks that a login is kept.
func checkStore(t *testing.T, client redis.UniversalClient) {
	t.Helper()
	defer client.Close()
	s := redisfarm.NewStore(client, t.Name())
	for i := range 20 { // in a cluster, on different servers
		key, want := fmt.Sprint(i), fmt.Sprint("value", i)
		if err := s.Set(t.Context(), key, []byte(want), time.Minute); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Get(t.Context(), key); string(got) != want || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
}

// sessionState is a session of a server.
func sessionState(t *testing.T) *tls.SessionState {
	t.Helper()
	ca := testcert.New("ca")
	cache := tlssession.NewCache(tlssession.Options{})
	config := ca.Server(nil, "localhost")
	(&tlssession.Sessions{Cache: cache}).Server(transport.Scope{}, config)
	a, b := net.Pipe()
	go func() {
		s := tls.Server(a, config)
		io.WriteString(s, "x")
		s.Close()
	}()
	c := tls.Client(b, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", ClientSessionCache: tls.NewLRUClientSessionCache(1)})
	if _, err := io.ReadAll(c); err != nil {
		t.Fatal(err)
	}
	c.Close()
	return cache.Get(cache.IDs()[0])
}

// TestA13TLS shares through a Redis that requires TLS and a client certificate.
func TestA13TLS(t *testing.T) {
	dir, ca := t.TempDir(), testcert.New("ca")
	cert := ca.Certify(testcert.Key(), time.Now().Add(-time.Hour), "127.0.0.1")
	certFile, caFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "ca.pem")
	testcert.WritePEM(certFile, cert)
	if err := os.WriteFile(caFile, ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	run(t, "--bind", "127.0.0.1", "--port", "0", "--tls-port", port, "--save", "", "--dir", dir,
		"--tls-cert-file", certFile, "--tls-key-file", certFile, "--tls-ca-cert-file", caFile)
	newClient := func() redis.UniversalClient {
		return redis.NewClient(&redis.Options{Addr: addr, TLSConfig: &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{*ca.Client(1)}}})
	}
	join(t, newClient).share(t)
	checkStore(t, newClient())
}

// TestA13Cluster shares through a cluster of three servers, each with a third of the keys.
func TestA13Cluster(t *testing.T) {
	var addrs []string
	for i := range 3 {
		addr := freeAddr(t)
		bus := freeAddr(t)
		_, busPort, _ := net.SplitHostPort(bus)
		server(t, addr, "--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-node-timeout", "2000", "--cluster-port", busPort)
		addrs = append(addrs, addr)
		node := newClient(addr)
		defer node.Close()
		await(t, "a server", func() error { return node.Ping(t.Context()).Err() })
		if err := node.ClusterAddSlotsRange(t.Context(), i*5462, min((i+1)*5462, 16384)-1).Err(); err != nil {
			t.Fatal(err)
		}
		if err := node.Do(t.Context(), "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err(); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			continue
		}
		first := newClient(addrs[0])
		defer first.Close()
		_, port, _ := net.SplitHostPort(addr)
		if err := first.Do(t.Context(), "CLUSTER", "MEET", "127.0.0.1", port, busPort).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, addr := range addrs {
		node := newClient(addr)
		defer node.Close()
		await(t, "the cluster", func() error {
			info, err := node.ClusterInfo(t.Context()).Result()
			if err == nil && !(strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3")) {
				err = fmt.Errorf("%s", info)
			}
			return err
		})
	}
	newClient := func() redis.UniversalClient { return redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs}) }
	join(t, newClient).share(t)
	checkStore(t, newClient())
}

// TestA13Sentinel shares through a server known to a sentinel, and through its replica when
// that server has gone.
func TestA13Sentinel(t *testing.T) {
	master, replica, sentinel := freeAddr(t), freeAddr(t), freeAddr(t)
	_, port, _ := net.SplitHostPort(master)
	_, sentinelPort, _ := net.SplitHostPort(sentinel)
	kill := server(t, master)
	server(t, replica, "--replicaof", "127.0.0.1 "+port, "--repl-diskless-sync-delay", "0")
	node := newClient(replica)
	defer node.Close()
	await(t, "the replica", func() error {
		info, err := node.Info(t.Context(), "replication").Result()
		if err == nil && !strings.Contains(info, "master_link_status:up") {
			err = fmt.Errorf("%s", info)
		}
		return err
	})
	file := filepath.Join(t.TempDir(), "sentinel.conf")
	config := "port " + sentinelPort + "\nbind 127.0.0.1\nsentinel monitor farm 127.0.0.1 " + port + " 1\n" +
		"sentinel down-after-milliseconds farm 500\nsentinel failover-timeout farm 2000\n"
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, file, "--sentinel")
	monitor := redis.NewSentinelClient(&redis.Options{Addr: sentinel})
	defer monitor.Close()
	await(t, "the sentinel", func() error {
		replicas, err := monitor.Replicas(t.Context(), "farm").Result()
		if err == nil && len(replicas) == 0 {
			err = fmt.Errorf("does not know the replica")
		}
		return err
	})
	newClient := func() redis.UniversalClient {
		return redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "farm", SentinelAddrs: []string{sentinel}})
	}
	m := join(t, newClient)
	m.share(t)
	checkStore(t, newClient())
	kill()
	await(t, "the new master", func() error {
		addr, err := monitor.GetMasterAddrByName(context.Background(), "farm").Result()
		if err == nil && net.JoinHostPort(addr[0], addr[1]) != replica {
			err = fmt.Errorf("is %v", addr)
		}
		return err
	})
	m.share(t)
}
