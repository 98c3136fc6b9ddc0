package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/sspcwire"
	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

func TestRoles(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the system does not tell who the client is")
	}
	me := uint32(os.Getuid())
	f := newFixtureWith(t, Options{Roles: []*Role{
		{Name: "other", Users: []uint32{me + 1}},
		{Name: "me", Users: []uint32{me}, StreamTypes: []string{"get*", "spam"}, MaxLinks: 2},
		{Name: "rest"},
	}}, newOrigin(t).streamtypes()...)
	refused := func(name string) {
		t.Helper()
		c := f.open(t, name, 0)
		c.expect("REFUSED")
		c.end()
	}
	one, two := f.open(t, "get", 0), f.open(t, "getperf", 0)
	one.expect("CREATE, CRE")
	two.expect("CREATE, CRE")
	refused("spam")
	one.Close()
	eventually(t, "one link is left", func() bool { return f.Stats().Links == 1 })
	refused("minpost")
	f.open(t, "spam", 0).expect("CREATE, CRE")
	f.SetRoles([]*Role{})
	refused("get")
	f.SetRoles(nil)
	f.open(t, "minpost", 0).expect("CREATE, CRE")
	if got := f.Stats().StreamsRefused; got != 3 {
		t.Errorf("%d refused", got)
	}
}

// TestRate checks that the rate of a role applies in both directions.
func TestRate(t *testing.T) {
	f := newFixtureWith(t, Options{Roles: []*Role{{MaxRate: 400_000, MaxBuffered: 1000}}}, newOrigin(t).streamtypes()...)
	c := f.open(t, "spam", 0)
	c.connect()
	c.expect("CREATE, CRE, CNG, CON")
	begin := time.Now()
	// 260 kB each way; a burst of 400 kB is free.
	go func() {
		for range 20 {
			b, _ := sspcwire.AppendPayload(nil, sspcwire.ToProxy, sspcwire.Payload{
				Flags: policy.FlagSOM | policy.FlagEOM, Data: []byte(strings.Repeat("x", 13000))})
			c.Write(b)
		}
	}()
	total := 0
	for total < 260_000 {
		_, data, err := c.next()
		if err != nil {
			t.Fatal(err)
		}
		total += len(data)
	}
	if took := time.Since(begin); took < 100*time.Millisecond {
		t.Errorf("520 kB in %v", took)
	}
}

// TestCertificate checks the roles of TLS clients.
func TestCertificate(t *testing.T) {
	ca, stranger := testcert.New("ca"), testcert.New("stranger")
	cert := func(a *testcert.Authority, name string) tls.Certificate {
		return a.Issue(func(c *x509.Certificate) {
			c.DNSNames, c.ExtKeyUsage = []string{name}, append(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
			c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		}, testcert.Key())
	}
	f := newFixtureWith(t, Options{Roles: []*Role{{Name: "gate", Certificates: []string{"gate.example"}}}}, newOrigin(t).streamtypes()...)
	inner, err := Listen(Address{Network: "tcp", Host: "127.0.0.1:0"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	l := tls.NewListener(inner, &tls.Config{
		Certificates: []tls.Certificate{cert(ca, "127.0.0.1")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
	})
	served := make(chan error, 1)
	go func() { served <- f.Serve(l) }()
	for _, test := range []struct {
		cert tls.Certificate
		want string
	}{
		{cert(ca, "gate.example"), "CREATE"},
		{cert(ca, "other.example"), "REFUSED"},
		{cert(stranger, "gate.example"), "error"},
	} {
		conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{test.cert}})
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(limit))
		c := &client{t, conn, sspcwire.NewReader(conn, sspcwire.FromProxy, 2048)}
		b, err := sspcwire.AppendStreamType(nil, sspcwire.StreamType{Name: "get"})
		if err != nil {
			t.Fatal(err)
		}
		conn.Write(b)
		got, _, err := c.next()
		if err != nil {
			got = "error"
		}
		if got != test.want {
			t.Errorf("%s, %v; want %s", got, err, test.want)
		}
		conn.Close()
	}
	f.Close()
	<-served
}
