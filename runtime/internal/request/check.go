package request

import (
	"fmt"

	"github.com/secure-streams/sspolicy/runtime"
)

// Check refuses a streamtype that wants cookies kept where nobody does, or
// states for statuses that are not the program's.
func Check(c *runtime.Context, st *runtime.StreamType) error {
	if st.HTTP.Cookies && c.CookieJar() == nil {
		return fmt.Errorf("%w: http_cookies without a jar: put New() of package github.com/secure-streams/sspolicy/runtime/cookies into Options.Cookies",
			runtime.ErrUnsupported)
	}
	for _, m := range st.HTTP.RespMap {
		if m.State < runtime.StateUserBase {
			return fmt.Errorf("%w: http_resp_map to a state below %d: %d", runtime.ErrUnsupported, runtime.StateUserBase, m.State)
		}
	}
	return nil
}

// UserState delivers the state that the policy has for a status, if any.
func UserState(l *runtime.Link, status int) error {
	for _, m := range l.StreamType().HTTP.RespMap {
		if int(m.Status) == status {
			return l.UserState(m.State)
		}
	}
	return nil
}
