// Package codegen compiles a policy to the tables that the runtime executes, and
// writes these as Go or C source.
//
// The compiled form is always policy.Policy. The meaning of a key is in the key
// table of package schema, and the field that holds it in the policy tags of package
// runtime/policy. Compile and both writers read these two, so a new key takes one row and
// one field.
package codegen
