// Package credentials implements [transport.Credentials], the source of the tokens,
// serial numbers and certificates that policies require but do not hold: [Memory],
// [Env] for environment variables, [Files] for the files of a directory, [Funcs]
// for functions, and [Chain] to combine sources.
//
// A text has a kind and an index (policy.Blob); a client certificate has an index,
// the policy's client_cert, 0 to 254; the certificate of a server has the name of
// its streamtype. All types are safe for concurrent use. An error wraps
// transport.ErrNoCredentials if the source does not have the requested credential,
// or transport.ErrBadCredentials if it is unusable. Errors do not quote secrets,
// and package fmt prints none.
package credentials

import "github.com/secure-streams/sspolicy/runtime/transport"

// All types are sources of credentials.
var (
	_ transport.Credentials = Chain{}
	_ transport.Credentials = (*Env)(nil)
	_ transport.Credentials = (*Files)(nil)
	_ transport.Credentials = Funcs{}
	_ transport.Credentials = HexAuth{}
	_ transport.Credentials = (*Memory)(nil)
)
