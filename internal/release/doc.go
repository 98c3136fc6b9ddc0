// Package release tests the files of a release as their users meet them. "make
// release-test" builds the files and runs the tests.
package release
