// Package testfarm tests a bus of TLS sessions with two server processes behind a balancer,
// and with openssl and this module's client.
package testfarm

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/runtime/tlssession"
	"github.com/secure-streams/sspolicy/runtime/tlssession/farm"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// The environment of a member's process.
const (
	envURL  = "TESTFARM_URL"  // of the bus
	envCert = "TESTFARM_CERT" // PEM file of the server's certificate and key
)

// key is the key of the farm.
var key = bytes.Repeat([]byte("k"), 32)

// The times of the farm are short, to keep the tests short.
const (
	beat   = 100 * time.Millisecond
	rotate = time.Second
	older  = 30 // all rotations of a test
)

// Main runs a member if Start has started this process, and otherwise the tests. It
// returns the exit code. TestMain calls it.
func Main(m *testing.M, bus func(url string) farm.Bus) int {
	url := os.Getenv(envURL)
	if url == "" {
		return m.Run()
	}
	if err := serve(url, bus); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// status is the answer of a member to a line on its standard input.
type status struct {
	farm.Stats
	Sessions int
	KeyHash  string
	Newest   string // hash of the key that encrypts
	Warnings int
}

// serve is the main function of a member. It prints the addresses of its two
// listeners: with a cache, and with tickets. It ends with its input.
func serve(url string, bus func(url string) farm.Bus) error {
	cert, err := tls.LoadX509KeyPair(os.Getenv(envCert), os.Getenv(envCert))
	if err != nil {
		return err
	}
	cache, keys := tlssession.NewCache(tlssession.Options{}), new(tlssession.Keys)
	log := new(counter)
	f, err := farm.Join(farm.Options{Bus: bus(url), Key: key, Cache: cache, Keys: keys, Beat: beat, Rotate: rotate, Older: older, Logger: log})
	if err != nil {
		return err
	}
	defer f.Close()
	name := fmt.Sprint("member ", os.Getpid(), "\n")
	for _, s := range []*tlssession.Sessions{{Cache: cache}, {Keys: keys}} {
		config := &tls.Config{Certificates: []tls.Certificate{cert}}
		s.Server(transport.Scope{}, config)
		ln, err := tls.Listen("tcp", "127.0.0.1:0", config)
		if err != nil {
			return err
		}
		defer ln.Close()
		fmt.Print(ln.Addr(), " ")
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					c.SetDeadline(time.Now().Add(10 * time.Second))
					io.WriteString(c, name)
				}()
			}
		}()
	}
	fmt.Println()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		hash := func(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b))[:16] }
		k := keys.Bytes()
		out, err := json.Marshal(status{f.Stats(), cache.Stats().Sessions, hash(k), hash(k[:min(len(k), tlssession.KeySize)]), int(log.n.Load())})
		if err != nil {
			return err
		}
		fmt.Println(string(out))
	}
	return nil
}

// A member is a process of the farm.
type member struct {
	ids, tickets string // addresses
	in           io.Writer
	out          *bufio.Reader
}

// start starts a member, until the end of the test.
func start(t *testing.T, url, cert string) *member {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envURL+"="+url, envCert+"="+cert)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Errorf("a member has ended: %v\n%s", err, stderr.Bytes())
		}
	})
	m := &member{in: in, out: bufio.NewReader(out)}
	line, err := m.out.ReadString('\n')
	addrs := strings.Fields(line)
	if err != nil || len(addrs) != 2 {
		t.Fatalf("a member says %q, %v\n%s", line, err, stderr.Bytes())
	}
	m.ids, m.tickets = addrs[0], addrs[1]
	return m
}

func (m *member) status(t *testing.T) (s status) {
	t.Helper()
	if _, err := io.WriteString(m.in, "\n"); err != nil {
		t.Fatal(err)
	}
	line, err := m.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A balancer forwards connections to one backend after the other.
type balancer struct {
	ln       net.Listener
	backends []string
}

func balance(t *testing.T, backends ...string) *balancer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	b := &balancer{ln, backends}
	go b.run()
	return b
}

func (b *balancer) addr() string { return b.ln.Addr().String() }

func (b *balancer) run() {
	for i := 0; ; i++ {
		c, err := b.ln.Accept()
		if err != nil {
			return
		}
		s, err := net.Dial("tcp", b.backends[i%len(b.backends)])
		if err != nil {
			c.Close()
			continue
		}
		for _, p := range [][2]net.Conn{{c, s}, {s, c}} {
			go func() {
				io.Copy(p[0], p[1])
				p[0].(*net.TCPConn).CloseWrite()
			}()
		}
	}
}
