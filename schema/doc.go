// Package schema reads and validates policies.
//
// [Parse] makes a [Document] of a text: a syntax tree that keeps every byte and its
// position. [Validate] checks the shape of a document by the JSON Schema
// ([JSONSchema]), which also describes what libwebsockets does with each key
// ([Keys]). [NewPolicy] is a view of a document as a policy: definitions, settings
// and resolved references. A fault of a policy is a [Diagnostic], never an error
// value.
//
//	d := schema.Parse("policy.json", text)
//	for _, diag := range schema.Validate(d) {
//		fmt.Printf("%v: %v: %s\n", diag.Span, diag.Severity, diag.Message)
//	}
//
// Documents and their views are immutable and safe for concurrent use.
package schema
