// Package schema reads and validates policies.
//
// [Parse] makes a [Document] of a text: a syntax tree that keeps every byte, and
// knows the place of everything. [Validate] checks the shape of one by the JSON
// Schema ([JSONSchema]), which also says what libwebsockets does with each key
// ([Keys]). [NewPolicy] is a view of it as a policy: definitions, settings, and
// references with what they refer to. What is wrong is a [Diagnostic], in this
// package and all others; nothing here returns an error for it.
//
//	d := schema.Parse("policy.json", text)
//	for _, diag := range schema.Validate(d) {
//		fmt.Printf("%v: %v: %s\n", diag.Span, diag.Severity, diag.Message)
//	}
//
// Documents and their views are immutable and safe for concurrent use.
package schema
