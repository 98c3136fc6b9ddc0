package runtime

// EnforceVersion is what generated code converts constants to, so that a file
// and a runtime that do not fit together fail to compile: a negative constant
// does not convert. Code written by hand has no use for it.
type EnforceVersion uint

// Versions of the tables that generated files hold. A file of version v works
// with a runtime for which MinVersion <= v <= MaxVersion. MaxVersion rises
// when generated files come to need something new of this package; MinVersion
// when this package can no longer execute old files.
//
//	1  tables
//	2  types with accessors: CallOption, MetadataOption, WithFields, Fetch, Open
//	3  HTTP.Multipart, without which a form would not be sent as one
const (
	MinVersion = 3
	MaxVersion = 3
)
