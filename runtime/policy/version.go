package policy

// EnforceVersion is a type to which generated code converts constants, so that
// a file and a runtime that do not fit together fail to compile: a negative
// constant does not convert. Code written by hand does not use it.
type EnforceVersion uint

// Versions of the tables in generated files. A file of version v works with a
// runtime for which MinVersion <= v <= MaxVersion. MaxVersion rises when
// generated files need something new of this package; MinVersion rises when this
// package can no longer execute old files.
//
//	1  tables
//	2  types with accessors: CallOption, MetadataOption, WithFields, Fetch, Open
//	3  HTTP.Multipart, without which a form would not be sent as one
//	4  tables in package runtime/policy
const (
	MinVersion = 4
	MaxVersion = 4
)
