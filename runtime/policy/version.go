package policy

// EnforceVersion is a type to which generated code converts constants. A generated
// file that does not fit this package fails to compile, because a negative constant
// does not convert. Other code does not use it.
type EnforceVersion uint

// MinVersion and MaxVersion are the first and last version of generated files that
// work with this package. MaxVersion rises when generated files need something new;
// MinVersion rises when old files can no longer be executed.
//
//	1  tables
//	2  types with accessors: CallOption, MetadataOption, WithFields, Fetch, Open
//	3  HTTP.Multipart, without which a form would not be sent as one
//	4  tables in package runtime/policy
const (
	MinVersion = 4
	MaxVersion = 4
)
