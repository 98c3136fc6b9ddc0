// Package celrules compiles lint rules that projects define in their configuration
// in the Common Expression Language (CEL).
//
// An expression accesses a policy through typed objects, whose fields are the keys
// of [schema.Keys] and those of the table in fields.go. Values are computed only
// when an expression uses them.
package celrules
