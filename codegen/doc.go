// Package codegen compiles a policy: from the typed view of its text to the
// tables that the runtime executes, and from those to Go and to C source.
//
// The compiled form is policy.Policy, whichever way it is delivered. What a
// key means is in the key table of package schema; which field holds it is in
// the policy tags of package runtime. Compile and both emitters read those two,
// so that a new key is one row there and one field here.
package codegen
