package codegen

import (
	"go/token"
	"strings"
	"unicode"
	"unicode/utf8"
)

// initialisms are the words that Go names write in capitals: those of staticcheck
// (ST1003), and MQTT.
var initialisms = func() map[string]bool {
	m := map[string]bool{}
	for word := range strings.FieldsSeq(`ACL API ASCII CPU CSS DNS EOF GUID HTML HTTP HTTPS ID IP JSON QPS RAM RPC SLA SMTP SQL SSH
		TCP TLS TTL UDP UI GID UID UUID URI URL UTF8 VM XML XMPP XSRF XSS SIP RTP AMQP DB TS MQTT`) {
		m[word] = true
	}
	return m
}()

// goSymbol returns an exported identifier for a name: its words joined, each
// capitalized, and initialisms in capitals. A word ends at a character that is
// invalid in an identifier, and where an upper-case letter follows a lower-case
// one. If the result would not be exported, it is prefixed with prefix. An empty
// prefix means that the caller adds one.
func goSymbol(prefix, name string) string {
	var b, word strings.Builder
	end := func() {
		w := word.String()
		if upper := strings.ToUpper(w); initialisms[upper] {
			w = upper
		} else if r, n := utf8.DecodeRuneInString(w); n > 0 {
			w = string(unicode.ToUpper(r)) + w[n:]
		}
		b.WriteString(w)
		word.Reset()
	}
	last := ' '
	for _, r := range name {
		switch {
		case r == utf8.RuneError, r == holeMark, !unicode.IsLetter(r) && !unicode.IsDigit(r):
			end()
			last = ' '
			continue
		case unicode.IsUpper(r) && unicode.IsLower(last):
			end()
		}
		word.WriteRune(r)
		last = r
	}
	end()
	if s := b.String(); prefix == "" || token.IsExported(s) {
		return s
	}
	return prefix + b.String()
}
