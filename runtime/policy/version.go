package policy

// EnforceVersion is a type to which generated code converts constants. A generated
// file that does not match this package fails to compile, since a negative constant
// does not convert. Other code does not use it.
type EnforceVersion uint

// MinVersion and MaxVersion are the oldest and newest version of generated files
// that work with this package. MaxVersion increases when generated files need a new
// feature; MinVersion increases when old files can no longer be executed.
//
//	1  tables
//	2  types with accessors: CallOption, MetadataOption, WithFields, Fetch, Open
//	3  HTTP.Multipart, without which a form would not be sent as one
//	4  tables in package runtime/policy
const (
	MinVersion = 4
	MaxVersion = 4
)
