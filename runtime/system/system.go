// Package system executes the streamtypes that libwebsockets reserves for the
// system. A [Detector] checks with captive_portal_detect whether the internet can
// be reached. A [Fetcher] gets a new policy with fetch_policy, and verifies its
// signature if it has keys. Both use the transports of the context.
package system

import "github.com/secure-streams/sspolicy/runtime"

// The names of the reserved streamtypes.
const (
	CaptivePortalDetect = "captive_portal_detect"
	FetchPolicy         = "fetch_policy"

	// FetchPolicyManifest is for the bundle of a signed policy. lws does not have
	// it.
	FetchPolicyManifest = "fetch_policy_manifest"
)

// info logs an event that is not a problem, if the logger has a method Info.
func info(c *runtime.Context, msg string, args ...any) {
	if l, ok := c.Logger().(interface{ Info(string, ...any) }); ok {
		l.Info(msg, args...)
	}
}
