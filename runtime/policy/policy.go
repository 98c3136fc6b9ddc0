package policy

import "time"

// A Policy is a compiled policy: plain tables with resolved references.
// codegen.Compile makes one in memory; "sspolicy compile --lang go" writes one as
// Go source. Any number of contexts may share a Policy.
//
// The policy tag of a field is the key of the policy JSON that sets it; package
// schema describes each key.
type Policy struct {
	Release       string `policy:"release"`
	Product       string `policy:"product"`
	SchemaVersion int64  `policy:"schema-version"`

	// SOCKS5Proxy is the proxy of client streams whose streamtype has none:
	// "[user:password@]host[:port]".
	SOCKS5Proxy string `policy:"via-socks5"`

	Metrics []*Metric

	// StreamTypes is in the order of declaration. Names are unique.
	StreamTypes []*StreamType
}

// A StreamType is one entry of the policy's "s" section: the properties of a kind
// of stream.
type StreamType struct {
	Name     string
	Protocol Protocol `policy:"protocol"`

	// Endpoint, of a client, is a host name, a URL, host:port, a unix socket
	// ("+path", "+@abstract") or a file ("file://path"), and may contain
	// ${metadata}. Of a server it is the interface to listen on.
	Endpoint    string `policy:"endpoint"`
	Port        uint16 `policy:"port"`       // 0 means the default of the protocol
	SOCKS5Proxy string `policy:"via-socks5"` // as in Policy; "" means that of the policy

	TLS        bool        `policy:"tls"`
	TrustStore *TrustStore `policy:"tls_trust_store"` // nil means the roots of the operating system
	ClientCert uint8       `policy:"client_cert"`     // 1 + the index of the client certificate; 0 means none

	Server     bool  `policy:"server"`
	ServerCert *Cert `policy:"server_cert"`
	ServerKey  *Cert `policy:"server_key"`

	Opportunistic bool          `policy:"opportunistic"`
	NailedUp      bool          `policy:"nailed_up"`
	Retry         *Retry        `policy:"retry"`      // nil means that no failure is concealed
	Timeout       time.Duration `policy:"timeout_ms"` // 0 means none
	SwakeValidity bool          `policy:"swake_validity"`

	UrgentTx            bool  `policy:"urgent_tx"`
	UrgentRx            bool  `policy:"urgent_rx"`
	Priority            uint8 `policy:"attr_priority"` // 0 to 7
	AttrLowLatency      bool  `policy:"attr_low_latency"`
	AttrHighThroughput  bool  `policy:"attr_high_throughput"`
	AttrHighReliability bool  `policy:"attr_high_reliability"`
	AttrLowCost         bool  `policy:"attr_low_cost"`

	Perf           bool   `policy:"perf"`
	LocalSink      bool   `policy:"local_sink"`
	DirectProtoStr bool   `policy:"direct_proto_str"`
	PayloadFmt     string `policy:"payload_fmt"`

	// Rideshare names the streamtype whose message follows this one's in the body
	// of the same request.
	Rideshare string `policy:"rideshare"`

	Auth       *Auth  `policy:"use_auth"`
	AWSRegion  string `policy:"aws_region"`  // the name of a metadata item
	AWSService string `policy:"aws_service"` // the name of a metadata item

	// Buffer sizes and thresholds in bytes; 0 means the default.
	ProxyBuflen                uint32 `policy:"proxy_buflen"`
	ProxyBuflenRxflowOnAbove   uint32 `policy:"proxy_buflen_rxflow_on_above"`
	ProxyBuflenRxflowOffBelow  uint32 `policy:"proxy_buflen_rxflow_off_below"`
	ClientBuflen               uint32 `policy:"client_buflen"`
	ClientBuflenRxflowOnAbove  uint32 `policy:"client_buflen_rxflow_on_above"`
	ClientBuflenRxflowOffBelow uint32 `policy:"client_buflen_rxflow_off_below"`

	// Metadata is in the order of declaration, so indexes are those of lws.
	Metadata []Metadata `policy:"metadata"`
	Options  []Option   `policy:"options"`

	// HTTP is set for h1, h2, h3 and ws; MQTT is set for mqtt.
	HTTP *HTTP
	MQTT *MQTT
}

// HTTP holds the settings of a streamtype whose protocol is h1, h2, h3 or ws.
type HTTP struct {
	Method string `policy:"http_method"`
	URL    string `policy:"http_url"` // may hold ${metadata}

	// Expect is the only status that counts as success. 0 means any of 200 to 299.
	Expect  uint16        `policy:"http_expect"`
	RespMap []StatusState `policy:"http_resp_map"`

	// The names of the headers that carry blobs, and the text before the token in
	// the auth header.
	AuthHeader    string `policy:"http_auth_header"`
	DSNHeader     string `policy:"http_dsn_header"`
	FWVHeader     string `policy:"http_fwv_header"`
	DevTypeHeader string `policy:"http_devtype_header"`
	AuthPreamble  string `policy:"http_auth_preamble"`

	// Multipart is set if the policy has one of the next three keys, even with an
	// empty value. The message is then a part of a multipart/form-data request.
	Multipart         bool
	MultipartName     string `policy:"http_multipart_name"`
	MultipartFilename string `policy:"http_multipart_filename"`
	MIMEContentType   string `policy:"http_mime_content_type"`
	MultipartSSIn     bool   `policy:"http_multipart_ss_in"`
	WWWFormURLEncoded bool   `policy:"http_www_form_urlencoded"`
	NoContentLength   bool   `policy:"http_no_content_length"`

	Cookies        bool `policy:"http_cookies"`
	AllowRedirects bool `policy:"allow_redirects"`
	FailRedirect   bool `policy:"http_fail_redirect"`
	LongPoll       bool `policy:"long_poll"`
	H2EndStream    bool `policy:"nghttp2_quirk_end_stream"`
	H2OverflowTxCr bool `policy:"h2q_oflow_txcr"`

	WSSubprotocol     string `policy:"ws_subprotocol"`
	WSBinary          bool   `policy:"ws_binary"`
	WSPrioritizeReads bool   `policy:"ws_prioritize_reads"`
}

// MQTT holds the settings of a streamtype whose protocol is mqtt. Topics and
// messages may contain ${metadata}. QoS values are 0 to 2.
type MQTT struct {
	Topic      string        `policy:"mqtt_topic"`
	Subscribe  string        `policy:"mqtt_subscribe"`
	QoS        uint8         `policy:"mqtt_qos"`
	Retain     bool          `policy:"mqtt_retain"`
	KeepAlive  time.Duration `policy:"mqtt_keep_alive"` // whole seconds
	CleanStart bool          `policy:"mqtt_clean_start"`
	AWSIoT     bool          `policy:"aws_iot"`

	WillTopic   string `policy:"mqtt_will_topic"`
	WillMessage string `policy:"mqtt_will_message"`
	WillQoS     uint8  `policy:"mqtt_will_qos"`
	WillRetain  bool   `policy:"mqtt_will_retain"`

	BirthTopic   string `policy:"mqtt_birth_topic"`
	BirthMessage string `policy:"mqtt_birth_message"`
	BirthQoS     uint8  `policy:"mqtt_birth_qos"`
	BirthRetain  bool   `policy:"mqtt_birth_retain"`
}

// A Metadata is a metadata item: a value that the program may set for a stream.
type Metadata struct {
	Name   string
	Header string // the header that carries the value; "" means that only ${Name} uses it

	// Raw inserts values into topics and URLs unescaped. A value may then add
	// wildcards, levels, path elements and parameters.
	Raw bool
}

// A StatusState maps an HTTP status to the state that reports it, at least
// StateUserBase.
type StatusState struct {
	Status uint16
	State  State
}

// An Option is a setting of a server's protocol.
type Option struct {
	Name  string
	Value string
}

// A Retry says when to retry after a failure, and when to probe a connection.
type Retry struct {
	Name string

	// Backoff holds the wait before each retry; the last one repeats. If it is
	// empty, the wait is 3 s.
	Backoff []time.Duration `policy:"backoff"`

	// Conceal is the number of successive failures that are followed by a retry;
	// 65535 means all.
	Conceal uint16 `policy:"conceal"`

	// JitterPercent is the maximum random addition to a wait, in percent of the
	// wait; 0 means 30, as in lws.
	JitterPercent uint8 `policy:"jitterpc"`

	// ValidPing and ValidHangup are how long a connection may last without proof of
	// validity before it is probed and before it is closed; 0 means forever.
	ValidPing   time.Duration `policy:"svalidping"`
	ValidHangup time.Duration `policy:"svalidhup"`
}

// A Cert is an X.509 certificate, or a server's private key.
type Cert struct {
	Name string
	DER  string // binary
}

// A TrustStore is a set of root certificates.
type TrustStore struct {
	Name  string  `policy:"name"`
	Stack []*Cert `policy:"stack"`
}

// An Auth is an authentication scheme of streams.
type Auth struct {
	Name       string `policy:"name"`
	Type       string `policy:"type"`       // such as AuthSigV4
	StreamType string `policy:"streamtype"` // name of the streamtype that gets tokens
	Blob       uint8  `policy:"blob"`       // index of the token or key, 0 to 3
}

// AuthSigV4 is the Type of an Auth that signs requests with AWS Signature
// Version 4.
const AuthSigV4 = "sigv4"

// A Metric selects metrics of lws to report, and their interval.
type Metric struct {
	Name       string `policy:"name"`
	Report     string `policy:"report"`
	ScheduleUs uint64 `policy:"us_schedule"` // in microseconds
	HalfLifeUs uint32 `policy:"us_halflife"` // in microseconds
	MinOutlier uint8  `policy:"min_outlier"`
}
