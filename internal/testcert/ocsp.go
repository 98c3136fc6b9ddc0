package testcert

import (
	"crypto"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"time"
)

// The structures of RFC 6960, section 4.
type (
	ocspResponse struct {
		Status asn1.Enumerated
		Bytes  ocspBytes `asn1:"explicit,tag:0"`
	}
	ocspBytes struct {
		Type     asn1.ObjectIdentifier
		Response []byte
	}
	ocspBasic struct {
		Data      asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	ocspData struct {
		ResponderKey []byte    `asn1:"explicit,tag:2"`
		Produced     time.Time `asn1:"generalized"`
		Responses    []ocspSingle
	}
	ocspSingle struct {
		Cert    ocspCert
		Revoked ocspRevoked `asn1:"tag:1"`
		Update  time.Time   `asn1:"generalized"`
	}
	ocspCert struct {
		Hash   pkix.AlgorithmIdentifier
		Name   []byte
		Key    []byte
		Serial *big.Int
	}
	ocspRevoked struct {
		Time time.Time `asn1:"generalized"`
	}
)

var (
	oidOCSPBasic   = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}
	oidSHA1        = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
	oidECDSASHA256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
)

// Revocation returns an OCSP response that says that the authority has revoked a
// certificate.
func (a *Authority) Revocation(cert tls.Certificate) []byte {
	leaf := must(x509.ParseCertificate(cert.Certificate[0]))
	var spki struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	must(asn1.Unmarshal(a.Cert.RawSubjectPublicKeyInfo, &spki))
	name, key := sha1.Sum(a.Cert.RawSubject), sha1.Sum(spki.Key.Bytes)
	now := time.Now().UTC().Truncate(time.Second)
	data := must(asn1.Marshal(ocspData{
		ResponderKey: key[:], Produced: now,
		Responses: []ocspSingle{{
			Cert:    ocspCert{pkix.AlgorithmIdentifier{Algorithm: oidSHA1}, name[:], key[:], leaf.SerialNumber},
			Revoked: ocspRevoked{now.Add(-time.Hour)},
			Update:  now,
		}},
	}))
	digest := sha256.Sum256(data)
	signature := must(a.key.Sign(rand.Reader, digest[:], crypto.SHA256))
	basic := must(asn1.Marshal(ocspBasic{
		Data:      asn1.RawValue{FullBytes: data},
		Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidECDSASHA256},
		Signature: asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)},
	}))
	return must(asn1.Marshal(ocspResponse{Bytes: ocspBytes{oidOCSPBasic, basic}}))
}
