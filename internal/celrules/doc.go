// Package celrules compiles rules of lint that are written in the Common Expression
// Language (CEL), as projects have them in their configuration.
//
// An expression sees a policy through typed objects, whose fields are the keys of
// [schema.Keys] and those of the table in fields.go. Nothing is computed before an
// expression asks for it.
package celrules
