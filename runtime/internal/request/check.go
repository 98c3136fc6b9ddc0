package request

import (
	"fmt"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// Check returns an error that wraps ErrUnsupported for a streamtype with
// http_cookies in a context without a jar, or with an http_resp_map to states below
// StateUserBase.
func Check(s *transport.Setup) error {
	st := s.Stream
	if st.HTTP.Cookies && s.CookieJar() == nil {
		return fmt.Errorf("%w: http_cookies without a jar: set Options.Cookies to New() of package github.com/secure-streams/sspolicy/runtime/cookies",
			transport.ErrUnsupported)
	}
	for _, m := range st.HTTP.RespMap {
		if m.State < policy.StateUserBase {
			return fmt.Errorf("%w: http_resp_map to a state below %d: %d", transport.ErrUnsupported, policy.StateUserBase, m.State)
		}
	}
	return nil
}

// UserState delivers the state in the http_resp_map for a status, if any.
func UserState(s *transport.Setup, l transport.Link, status int) error {
	for _, m := range s.Stream.HTTP.RespMap {
		if int(m.Status) == status {
			return l.State(m.State)
		}
	}
	return nil
}
