// Package release tests the files of a release from the view of their users. "make
// release-test" builds the files and runs the tests.
package release
