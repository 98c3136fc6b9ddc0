// Package credentials has sources of the credentials that policies require and
// must not hold: in memory, in environment variables, in the files of a folder,
// in functions, and in several of these.
package credentials
