module github.com/secure-streams/sspolicy/internal/thirdparty

go 1.26.0

require (
	github.com/aws/aws-sdk-go-v2 v1.47.7
	github.com/evanphx/json-patch/v5 v5.9.11
	github.com/gorilla/websocket v1.5.3
	github.com/quic-go/quic-go v0.65.0
	github.com/secure-streams/sspolicy v0.0.0
	github.com/summerwind/h2spec v2.2.1+incompatible
)

require (
	github.com/aws/smithy-go v1.28.8 // indirect
	github.com/coder/websocket v1.8.15 // indirect
	github.com/fatih/color v1.19.0 // indirect
	github.com/mattn/go-colorable v0.1.14 // indirect
	github.com/mattn/go-isatty v0.0.20 // indirect
	github.com/quic-go/qpack v0.6.0 // indirect
	github.com/santhosh-tekuri/jsonschema/v5 v5.3.1 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
)

replace github.com/secure-streams/sspolicy => ../..
