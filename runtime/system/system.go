// Package system executes the streamtypes that libwebsockets reserves for the system:
// captive_portal_detect, by which a [Detector] checks whether the internet can be
// reached, and fetch_policy, by which a [Fetcher] gets a new policy: one that is signed,
// if it knows keys. It uses the transports of the context.
package system

import "github.com/secure-streams/sspolicy/runtime"

// The names of the streamtypes.
const (
	CaptivePortalDetect = "captive_portal_detect"
	FetchPolicy         = "fetch_policy"

	// FetchPolicyManifest is beside those of lws, for the bundle of a signed policy.
	FetchPolicyManifest = "fetch_policy_manifest"
)

// info logs an event that is not a problem if the logger has a method Info.
func info(c *runtime.Context, msg string, args ...any) {
	if l, ok := c.Logger().(interface{ Info(string, ...any) }); ok {
		l.Info(msg, args...)
	}
}
