package codegen

import (
	"crypto/x509"
	"time"
)

// describeDER describes a certificate for a comment. It returns "" for any other
// data, such as a server's key.
func describeDER(der string) string {
	c, err := x509.ParseCertificate([]byte(der))
	if err != nil {
		return ""
	}
	subject := c.Subject.String()
	if subject == "" {
		subject = "no subject"
	}
	return commentText(subject) + ", until " + c.NotAfter.UTC().Format(time.DateOnly)
}
