// Package schema reads and validates policies.
//
// [Parse] turns a text into a [Document]: a syntax tree that keeps every byte and
// its position. [Validate] checks its shape against the JSON Schema ([JSONSchema]),
// which also says what libwebsockets does with each key ([Keys]). [NewPolicy] views
// it as a policy: definitions, settings, and references with the definitions they
// refer to. Mistakes in a policy are reported as a [Diagnostic], in this package
// and all others; no function here returns an error for one.
//
//	d := schema.Parse("policy.json", text)
//	for _, diag := range schema.Validate(d) {
//		fmt.Printf("%v: %v: %s\n", diag.Span, diag.Severity, diag.Message)
//	}
//
// Documents and their views are immutable and safe for concurrent use.
package schema
