// Package signing signs policies, and decides which signed policy a device accepts.
//
// A policy is signed by a separate manifest: the policy itself stays the text that
// a device without this package reads. A manifest is a JSON Web Signature in
// compact form (RFC 7515) with ES256, the algorithm that every lws built with JOSE
// verifies. It contains the product, version, size and SHA-256 of the policy, and
// the time until which it may be accepted.
//
// Keys are JSON Web Keys (RFC 7517). Any trusted key signs a policy. A [Rotation]
// changes the set of keys; it needs signatures by several keys of the old set and
// of the new one.
//
// A device receives a bundle: the rotations so far, oldest first, and a manifest,
// each on a line of its own. [State.Accept] decides whether it is valid, without a
// clock or files of its own. It is designed against the attacks that The Update
// Framework and Uptane list.
//
// A manifest and a rotation have one canonical form: the bytes that this package
// writes. No other order of members, white space or encoding is accepted. This
// leaves nothing to interpret, and a device in C can compare the header as bytes.
package signing

import "time"

// The limits.
const (
	MaxBundle  = 64 << 10     // bytes of a bundle
	MaxKeys    = 16           // keys in a set
	MaxVersion = 1<<53 - 1    // the largest integer that every JSON reader represents exactly
	MaxProduct = 64           // bytes of a product's name
	MaxSize    = 1<<31 - 1    // bytes of a policy, for 32-bit devices
	maxKeyFile = 4 << 10      // bytes of a JWK
	maxTime    = 253402300799 // the year 9999, in seconds since 1970
)

// DefaultMaxStep is the default of Config.MaxStep.
const DefaultMaxStep = 1000

// Epoch is the date of this format. A clock that shows an earlier time is wrong.
var Epoch = time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)

// A Refusal is the reason why a policy or bundle is refused, for use with
// [errors.Is]. Its value is a short name for logs and messages.
type Refusal string

// The refusals.
const (
	ErrMalformed   Refusal = "malformed"    // the bundle is not in the form of this package
	ErrUnknownKey  Refusal = "unknown-key"  // signed by a key that is not trusted, or no longer
	ErrSignature   Refusal = "signature"    // the signature is wrong
	ErrProduct     Refusal = "product"      // for another product
	ErrRollback    Refusal = "rollback"     // older than what was accepted before
	ErrConflict    Refusal = "conflict"     // the version of the accepted policy, but another text
	ErrFastForward Refusal = "fast-forward" // the version is too far ahead
	ErrExpired     Refusal = "expired"      // not_after is in the past
	ErrRotation    Refusal = "rotation"     // a rotation without enough signatures, or out of order
	ErrSize        Refusal = "size"         // the policy is longer or shorter than it should be
	ErrHash        Refusal = "hash"         // the policy is not the one that was signed
	ErrSlow        Refusal = "slow"         // the policy did not arrive in time
)

var refusals = map[Refusal]string{
	ErrMalformed:   "not a bundle of manifests",
	ErrUnknownKey:  "signed by a key that is not trusted",
	ErrSignature:   "wrong signature",
	ErrProduct:     "signed for another product",
	ErrRollback:    "older than the accepted one",
	ErrConflict:    "another policy with the version of the accepted one",
	ErrFastForward: "the version is too far ahead",
	ErrExpired:     "expired",
	ErrRotation:    "bad rotation of keys",
	ErrSize:        "wrong size",
	ErrHash:        "not the policy that was signed",
	ErrSlow:        "too slow",
}

// Error implements error.
func (r Refusal) Error() string {
	if text, ok := refusals[r]; ok {
		return text
	}
	return string(r)
}
