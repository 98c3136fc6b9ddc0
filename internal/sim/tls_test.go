package sim

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// Keys are constant, and of Ed25519, whose signatures are deterministic: the length of a
// handshake must not vary.
var (
	serverKey = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	authority = sync.OnceValue(func() *testcert.Authority {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "sim"},
			NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}
		der := teststream.Must(x509.CreateCertificate(nil, template, template, serverKey.Public(), serverKey))
		key := teststream.Must(x509.MarshalPKCS8PrivateKey(serverKey))
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
		return teststream.Must(testcert.Parse(text))
	})
)

// secure makes a streamtype use TLS.
func (w *world) secure(st *policy.StreamType) {
	st.TLS, st.TrustStore = true, authority().Store()
}

// certificateLife is the lifetime of a certificate. Servers renew theirs in time, unless
// their clock is wrong.
const certificateLife = 2 * time.Minute

// serverTLS returns the configuration of a server.
func (w *world) serverTLS(h *host, protocols ...string) *tls.Config {
	var mu sync.Mutex
	issued := map[time.Time]*tls.Certificate{}
	return &tls.Config{
		NextProtos:       protocols,
		CurvePreferences: []tls.CurveID{tls.X25519}, // the fastest
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			now := time.Now()
			begin := now.Truncate(certificateLife / 2)
			if e := w.plan.active(now, h.name, peerLate); e != nil {
				begin = begin.Add(time.Duration(1-2*(e.number%2)) * 24 * time.Hour)
			}
			mu.Lock()
			defer mu.Unlock()
			if issued[begin] == nil {
				cert := authority().Issue(func(c *x509.Certificate) {
					c.NotBefore, c.NotAfter, c.DNSNames = begin, begin.Add(certificateLife), []string{h.name}
				}, serverKey)
				issued[begin] = &cert
			}
			return issued[begin], nil
		},
	}
}
