package celrules

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"time"

	"cel.dev/cel-go/cel"

	"github.com/secure-streams/sspolicy/schema"
)

// computed returns the fields of a class that are not the values of keys, or mean more
// than the text of the key.
func computed(c *class) []field {
	text := func(name, doc string, get func(*object) string) field {
		return field{name: name, typ: cel.StringType, doc: doc, get: func(o *object) any { return get(o) }}
	}
	link := func(name string, to *class, key, doc string) field {
		return field{name: name, typ: to.typ, doc: doc, get: func(o *object) any { return o.target(to, key) }}
	}
	list := func(name string, of *class) field {
		return field{name: name, typ: cel.ListType(of.typ), doc: "All: " + of.summary + " each, in the order of the text.", get: func(o *object) any { return o.view.section(of) }}
	}
	name := text("name", "Its name.", func(o *object) string { return o.def.Name })
	users := func(doc string) field {
		return field{name: "used_by", typ: cel.ListType(cel.StringType), doc: doc, get: func(o *object) any { return slices.Clone(o.view.users[o.def]) }}
	}
	switch c {
	case streamClass:
		return []field{
			name,
			text("protocol", "The protocol: h1 if the streamtype names none.", func(o *object) string { return o.def.Protocol() }),
			text("trust_store", "The name of the trust store, tls_trust_store.", func(o *object) string { return o.def.Text("tls_trust_store") }),
			link("trust", storeClass, "tls_trust_store", "The trust store that tls_trust_store names."),
			link("backoff", retryClass, "retry", "The backoff scheme that retry names."),
			link("auth", authClass, "use_auth", "The auth scheme that use_auth names."),
			link("shares", streamClass, "rideshare", "The streamtype that rideshare names."),
			users("The streamtypes that name it in rideshare."),
		}
	case storeClass:
		return []field{
			name, // of the definition, as the key
			{name: "certificates", typ: cel.ListType(certClass.typ), doc: "The certificates that stack names.", get: stack},
			users("The streamtypes that use it."),
		}
	case certClass:
		return append([]field{name, users("The trust stores and the servers that use it.")}, certFields...)
	case retryClass:
		return []field{name, users("The streamtypes that use it.")}
	case authClass:
		return []field{name, users("The streamtypes that use it.")}
	case metricClass:
		return []field{name}
	}
	return []field{
		list("streams", streamClass), list("trust_stores", storeClass), list("certificates", certClass),
		list("retries", retryClass), list("auths", authClass), list("metrics", metricClass),
	}
}

// stack returns the certificates of a trust store.
func stack(o *object) any {
	certs := []*object{}
	for _, v := range elems(o.value("stack")) {
		certs = append(certs, o.view.object(certClass, o.view.targets[o.def]["stack/"+v.Text()]))
	}
	return certs
}

// A parsedCert is a certificate, or nothing if it is unreadable.
type parsedCert struct {
	x509.Certificate
	valid bool
}

// parse returns the certificate that an object of certClass holds.
func (o *object) parse() *parsedCert {
	if o.cert == nil {
		o.cert = &parsedCert{}
		if der, err := schema.DecodeCert(o.def.Value.Text()); err == nil {
			if c, err := x509.ParseCertificate(der); err == nil {
				o.cert = &parsedCert{*c, true}
			}
		}
	}
	return o.cert
}

// certField returns a field of a certificate.
func certField[T any](name string, typ *cel.Type, doc string, get func(*parsedCert) T) field {
	return field{name: name, typ: typ, doc: doc, get: func(o *object) any { return get(o.parse()) }}
}

var certFields = []field{
	certField("readable", cel.BoolType, "Whether it is an X.509 certificate. Without, its other fields are empty.", func(c *parsedCert) bool { return c.valid }),
	certField("subject", cel.StringType, "The subject, such as `CN=Root,O=Example`.", func(c *parsedCert) string { return c.Subject.String() }),
	certField("issuer", cel.StringType, "The issuer.", func(c *parsedCert) string { return c.Issuer.String() }),
	certField("not_before", cel.TimestampType, "When it becomes valid.", func(c *parsedCert) time.Time { return c.NotBefore }),
	certField("not_after", cel.TimestampType, "When it ends.", func(c *parsedCert) time.Time { return c.NotAfter }),
	certField("ca", cel.BoolType, "Whether it may sign certificates.", func(c *parsedCert) bool { return c.IsCA }),
	certField("self_signed", cel.BoolType, "Whether it is its own issuer.", func(c *parsedCert) bool {
		return c.valid && slices.Equal(c.RawSubject, c.RawIssuer)
	}),
	certField("key_type", cel.StringType, "The type of its key: RSA, ECDSA or Ed25519.", func(c *parsedCert) string {
		if !c.valid {
			return ""
		}
		return c.PublicKeyAlgorithm.String()
	}),
	certField("key_bits", cel.IntType, "The size of its key in bits, of RSA and ECDSA.", func(c *parsedCert) int {
		switch k := c.PublicKey.(type) {
		case *rsa.PublicKey:
			return k.N.BitLen()
		case *ecdsa.PublicKey:
			return k.Curve.Params().BitSize
		}
		return 0
	}),
	certField("signature", cel.StringType, "The algorithm of its signature, such as SHA256-RSA.", func(c *parsedCert) string {
		if !c.valid {
			return ""
		}
		return c.SignatureAlgorithm.String()
	}),
	certField("sha256", cel.StringType, "The SHA-256 fingerprint in lower-case hexadecimal digits.", func(c *parsedCert) string {
		if !c.valid {
			return ""
		}
		sum := sha256.Sum256(c.Raw)
		return hex.EncodeToString(sum[:])
	}),
	certField("size", cel.IntType, "Its size in DER, in bytes.", func(c *parsedCert) int { return len(c.Raw) }),
}
