package runtime

import (
	"fmt"
	"slices"
	"strings"
)

// direct holds the headers of a stream whose policy says direct_proto_str.
type direct struct {
	set      []directHeader
	received func(name string) string // what the peer sent; nil if nothing yet
}

type directHeader struct{ name, value string }

func (h directHeader) is(name string) bool { return strings.EqualFold(h.name, name) }

// setDirect sets a header that the policy does not declare. mu is held.
func (s *Stream) setDirect(name, value string) error {
	name = strings.TrimSuffix(name, ":")
	if !isToken(name) {
		return fmt.Errorf("sspolicy: set metadata: %w: streamtype %q declares no %q, nor is it the name of a header",
			ErrUnknownMetadata, s.t.policy.Name, name)
	}
	if err := inHeader.check(value); err != nil {
		return fmt.Errorf("sspolicy: set metadata %q of streamtype %q: %w", name, s.t.policy.Name, err)
	}
	if s.gone {
		return fmt.Errorf("sspolicy: set metadata %q of streamtype %q: %w", name, s.t.policy.Name, ErrClosed)
	}
	if s.direct == nil {
		s.direct = new(direct)
	}
	d := s.direct
	if i := slices.IndexFunc(d.set, func(h directHeader) bool { return h.is(name) }); i >= 0 {
		d.set[i].value = value
	} else {
		d.set = append(d.set, directHeader{name, value})
	}
	return nil
}

// getDirect returns a header that the policy does not declare: as the peer sent
// it, else as the program set it, else "". mu is held.
func (s *Stream) getDirect(name string) string {
	name = strings.TrimSuffix(name, ":")
	if s.direct == nil {
		return ""
	}
	if s.direct.received != nil {
		if v := s.direct.received(name); v != "" {
			return v
		}
	}
	for _, h := range s.direct.set {
		if h.is(name) {
			return h.value
		}
	}
	return ""
}

// isToken reports whether s is a token of RFC 9110 section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		if !alphanumeric(s[i]) && strings.IndexByte("!#$%&'*+-.^_`|~", s[i]) < 0 {
			return false
		}
	}
	return s != ""
}

// DirectHeader returns the name and value of header i, from 0 on, that the
// program has set and the policy does not declare; ok is false if there are no
// more. There are none unless the policy says direct_proto_str.
func (l *Link) DirectHeader(i int) (name, value string, ok bool) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if d := l.s.direct; d != nil && i < len(d.set) {
		return d.set[i].name, d.set[i].value, true
	}
	return "", "", false
}

// ReceiveDirect hands over the headers that the peer sent, for the program to
// read those that the policy does not declare. get returns that of a name,
// whatever its case, or "". It is called at any time until the next attempt, by
// one goroutine at a time.
func (l *Link) ReceiveDirect(get func(name string) string) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.phase != running || !l.t.policy.DirectProtoStr {
		return
	}
	if l.s.direct == nil {
		l.s.direct = new(direct)
	}
	l.s.direct.received = get
}
