// Package lint finds what is wrong or risky in a policy.
//
// A rule is a value of type Rule: its documentation, its examples, which the
// tests run, and the function that checks it. There is one file for each.
package lint

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/secure-streams/sspolicy/schema"
)

// A Rule is one kind of mistake.
type Rule struct {
	Name     string          // as it stands in diagnostics, such as forward-reference
	Severity schema.Severity // of most of its diagnostics
	Summary  string          // one line, without a full stop
	Why      string          // what it means for the author, in Markdown
	LWS      string          // what lws does, and the versions that it was measured on

	// Bad is a policy that breaks the rule, and Good one that does what Bad was
	// meant to do.
	Bad, Good string
	Versions  []schema.Version // what the examples are for, if not the latest

	// Firm is set on a rule that can't be suppressed, because lws crashes on
	// what breaks it or can't read the policy at all.
	Firm bool

	// check finds what breaks the rule. Without it, the rule is one that the
	// parser or the JSON Schema checks.
	check func(*pass)
}

// rules are all the rules, in the order of their names.
var rules = sorted(
	authChain,
	backoffCut,
	badCount,
	badLength,
	badSuppression,
	badSymbol,
	badTopic,
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
	defaultJitter,
	dottedName,
	doubleContentLength,
	duplicateDefinition,
	duplicateKey,
	embeddedSecret,
	emptyPolicy,
	endpointOverride,
	endpointScheme,
	expectedStatusMapped,
	finiteConceal,
	forwardReference,
	h2WithoutTLS,
	headerCase,
	headerColon,
	headerPrefix,
	headersOnWS,
	incompleteChain,
	joinedCerts,
	keyMismatch,
	latePing,
	laxSyntax,
	leadingSlash,
	leadingText,
	legacyForm,
	longEndpoint,
	longName,
	longNumber,
	lowState,
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
	nulCharacter,
	opportunisticNailedUp,
	optionsKey,
	outOfRange,
	plainFetchPolicy,
	policy2cLosses,
	policy2cOrder,
	policy2cStrings,
	policy2cSymbols,
	prefixMatch,
	privateKeyRule,
	repeatedCert,
	rideshareLoop,
	serverMetadata,
	serverWithoutCert,
	sharedPort,
	sharedServerCert,
	sharedStorage,
	shortString,
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
	weakCert,
	wrongProtocol,
	wrongRole,
	wrongType,
)

func sorted(rs ...*Rule) []*Rule {
	slices.SortFunc(rs, func(a, b *Rule) int { return cmp.Compare(a.Name, b.Name) })
	return rs
}

// Rules returns all rules, in the order of their names.
func Rules() []*Rule { return slices.Clone(rules) }

// Lookup returns the rule of this name, or nil.
func Lookup(name string) *Rule {
	for _, r := range rules {
		if r.Name == name {
			return r
		}
	}
	return nil
}

// Options say what to check for.
type Options struct {
	// LWS are the versions of lws that the policy must work with; none means
	// the latest.
	LWS []schema.Version

	// At is the time that certificates must be valid at, and CertWarn how long
	// before its end that of a certificate is reported. The zero time is now.
	At       time.Time
	CertWarn time.Duration

	// Filter, if it is set, has the last word on what is found.
	Filter func([]schema.Diagnostic) []schema.Diagnostic
}

// Run checks a document by all rules. The result is sorted. It is safe to call
// from several goroutines at once.
func Run(d *schema.Document, o Options) []schema.Diagnostic { return run(d, o, rules) }

// Shape checks a document by the rules for its syntax, keys, types and ranges.
func Shape(d *schema.Document, o Options) []schema.Diagnostic {
	return run(d, o, slices.DeleteFunc(Rules(), func(r *Rule) bool {
		return r.check != nil && r != unsupportedVersion
	}))
}

func run(d *schema.Document, o Options, rules []*Rule) []schema.Diagnostic {
	if len(o.LWS) == 0 {
		o.LWS = []schema.Version{schema.Latest()}
	}
	if o.At.IsZero() {
		o.At = time.Now()
	}
	p := &pass{Options: o, policy: schema.NewPolicy(d)}
	shape := map[string][]schema.Diagnostic{}
	for _, g := range slices.Concat(d.Syntax, schema.Validate(d)) {
		shape[g.Rule] = append(shape[g.Rule], g)
	}
	for _, r := range rules {
		if p.rule = r; r.check != nil {
			r.check(p)
		} else {
			p.found = append(p.found, shape[r.Name]...)
		}
	}
	found := schema.SortDiagnostics(suppress(d, p.found, rules))
	if o.Filter != nil {
		found = o.Filter(found)
	}
	return found
}

// A pass is one run over a document.
type pass struct {
	Options
	policy *schema.Policy
	facts  facts

	rule  *Rule // the one that is being checked
	found []schema.Diagnostic
}

// report adds a diagnostic of the rule at hand, and returns it to be completed.
func (p *pass) report(at schema.Span, format string, args ...any) *schema.Diagnostic {
	p.found = append(p.found, schema.Diagnostic{
		Rule: p.rule.Name, Severity: p.rule.Severity, Span: at, Message: fmt.Sprintf(format, args...),
	})
	return &p.found[len(p.found)-1]
}
