package breaking

import (
	"crypto/x509"
	"strings"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

// identity returns the part of a certificate that a chain depends on: the subject
// and the key. A renewed certificate keeps it. For an unreadable certificate it is
// the DER.
func identity(c *policy.Cert) string {
	if x, err := x509.ParseCertificate([]byte(c.DER)); err == nil {
		return string(x.RawSubject) + string(x.RawSubjectPublicKeyInfo)
	}
	return c.DER
}

// diffCerts compares sets of certificates. Equal ones may have different names.
func diffCerts(old, new []*policy.Cert) (removed, added, renewed []*policy.Cert) {
	index := func(certs []*policy.Cert) (ders, identities map[string]bool) {
		ders, identities = map[string]bool{}, map[string]bool{}
		for _, c := range certs {
			ders[c.DER], identities[identity(c)] = true, true
		}
		return ders, identities
	}
	oldDERs, olds := index(old)
	_, news := index(new)
	for _, c := range old {
		if !news[identity(c)] {
			removed = append(removed, c)
		}
	}
	for _, c := range new {
		switch {
		case oldDERs[c.DER]:
		case olds[identity(c)]:
			renewed = append(renewed, c)
		default:
			added = append(added, c)
		}
	}
	return removed, added, renewed
}

// certNames lists certificates by their names in the policy.
func certNames(certs []*policy.Cert) string {
	var names []string
	for _, c := range certs {
		names = append(names, schema.QuoteName(c.Name))
	}
	if len(names) == 0 {
		return "no certificate"
	}
	return strings.Join(names, ", ")
}
