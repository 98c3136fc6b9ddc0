package codegen

import (
	"crypto/x509"
	"time"
)

// describeDER says what a certificate is, for a comment; nothing of what does
// not parse as one, such as a server's key.
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
