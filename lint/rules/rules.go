// Package rules contains the rules of lint, one per file.
//
// A rule is a value of [lint.Rule]: its documentation, its examples, which the tests run,
// and the function that checks it.
package rules

import (
	"cmp"
	"slices"

	"github.com/secure-streams/sspolicy/lint"
)

// all are the rules, sorted by name.
var all = sorted(
	authChain,
	backoffCut,
	badAuth,
	badContentType,
	badCount,
	badEndpoint,
	badHeader,
	badLength,
	badPreamble,
	badProxy,
	badSubprotocol,
	badSuppression,
	badSymbol,
	badTopic,
	badURL,
	badValue,
	bothRedirects,
	bufferThresholds,
	captivePortal,
	certEncoding,
	certExpiry,
	certNotCA,
	certNotYetValid,
	certTooBig,
	certUnreadable,
	clientCertWithoutTLS,
	defaultJitter,
	dottedName,
	doubleContentLength,
	duplicateDefinition,
	duplicateItem,
	duplicateKey,
	embeddedSecret,
	emptyPolicy,
	endpointOverride,
	endpointScheme,
	expectedStatusMapped,
	finiteConceal,
	forwardReference,
	h2Window,
	h2WithoutTLS,
	h3Transport,
	hammering,
	headerCase,
	headerColon,
	headerPrefix,
	headersOnWS,
	incompleteChain,
	joinedCerts,
	keyMismatch,
	knownVulnerable,
	latePing,
	laxSyntax,
	leadingSlash,
	leadingText,
	legacyForm,
	literalSymbol,
	lockstep,
	longEndpoint,
	longName,
	longNumber,
	lowState,
	lwsOverlayFlag,
	lwsOverlayIncomplete,
	lwsOverlayList,
	lwsOverlayNull,
	lwsOverlayPhantom,
	lwsOverlayRefused,
	lwsOverlaySection,
	lwsOverlayStorage,
	lwsOverlayTarget,
	lwsOverlayTrustStore,
	lwsOverlayUnreachable,
	mergedTrustStores,
	methodOnWS,
	misplacedTrust,
	missingEndpoint,
	missingKey,
	missingMethod,
	missingPort,
	missingTopic,
	missingURL,
	multipartName,
	nailedUpWithoutRetry,
	nameNotFirst,
	networkPriority,
	noRelease,
	noTrustStore,
	notAPolicy,
	nulCharacter,
	opportunisticNailedUp,
	optionsKey,
	outOfRange,
	overlayBeyondLWS,
	overlayDroppedSettings,
	overlayNoEffect,
	overlayUnknownStreamtype,
	plainFetchPolicy,
	plainText,
	policy2cLosses,
	policy2cOrder,
	policy2cStrings,
	policy2cSymbols,
	prefixMatch,
	privateKeyRule,
	privilegedPort,
	proxiedName,
	rawMetadata,
	repeatedCert,
	rideshareLoop,
	rideshareMismatch,
	secretInClear,
	serverCertUsage,
	serverChain,
	serverMetadata,
	serverWithoutCert,
	sharedPort,
	sharedServerCert,
	sharedStorage,
	sharedVhostName,
	shortString,
	singleRoot,
	splitConnection,
	surrogatePair,
	syntax,
	systemStreamtype,
	tlsPort,
	tooDeep,
	trustedServerCert,
	trustWithoutTLS,
	undeclaredMetadata,
	undefinedReference,
	unequalMQTT,
	unknownKey,
	unknownMethod,
	unreachableStatus,
	unsupportedVersion,
	unusedDefinition,
	unusedMetadata,
	unusedSuppression,
	unwatchedConnection,
	weakCert,
	wrongProtocol,
	wrongRole,
	wrongType,
)

func sorted(rs ...*lint.Rule) []*lint.Rule {
	slices.SortFunc(rs, func(a, b *lint.Rule) int { return cmp.Compare(a.Name, b.Name) })
	return rs
}

// All returns the rules, sorted by name.
func All() []*lint.Rule { return slices.Clone(all) }

// Lookup returns the rule of this name, or nil.
func Lookup(name string) *lint.Rule { return lint.Lookup(all, name) }

// Groups returns the names of the groups of opt-in rules, sorted.
func Groups() []string {
	var groups []string
	for _, r := range all {
		if r.Group != "" {
			groups = append(groups, r.Group)
		}
	}
	slices.Sort(groups)
	return slices.Compact(groups)
}
