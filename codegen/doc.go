// Package codegen compiles a policy to the tables that the runtime executes, and
// writes these as Go or C source.
//
// The compiled form is always [policy.Policy]. The key table of package schema
// defines the meaning of a key, and the policy tags of package runtime/policy
// define the field that holds it. [Compile] and both writers read these two, so a
// new key takes one row and one field.
package codegen
