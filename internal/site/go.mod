module github.com/secure-streams/sspolicy/internal/site

go 1.26.0

require (
	github.com/secure-streams/sspolicy v0.0.0
	github.com/yuin/goldmark v1.8.7
)

require github.com/santhosh-tekuri/jsonschema/v5 v5.3.1 // indirect

replace github.com/secure-streams/sspolicy => ../..
