// Package system executes the streamtypes that a system needs for itself, by the
// names that libwebsockets has for them: captive_portal_detect, which finds out
// whether there is a way to the internet, and fetch_policy, which gets a new
// policy. It needs nothing but the standard library; the transports of those
// streamtypes are those of the context.
package system

import "github.com/secure-streams/sspolicy/runtime"

// The streamtypes.
const (
	CaptivePortalDetect = "captive_portal_detect"
	FetchPolicy         = "fetch_policy"
)

// info logs an event that is not a problem, if the logger supports that.
func info(c *runtime.Context, msg string, args ...any) {
	if l, ok := c.Logger().(interface{ Info(string, ...any) }); ok {
		l.Info(msg, args...)
	}
}
