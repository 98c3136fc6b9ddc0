package codegen

import (
	"strconv"
	"strings"
)

// A member is a member of a struct in lws.
type member struct {
	name    string
	typ     string // C type of a plain member
	count   int    // length of an array, or 0
	bits    int    // width of a bit field, or 0
	since   string // first release that has it; "" for 4.1 or earlier
	until   string // first release without it
	macro   string // of the #if defined() around it
	members []member
	union   bool
}

// elements returns the path of a plain member, or the paths of its array elements.
func (m *member) elements(path string) []string {
	if m.count == 0 {
		return []string{path}
	}
	paths := make([]string, m.count)
	for i := range paths {
		paths[i] = path + "[" + strconv.Itoa(i) + "]"
	}
	return paths
}

// isPointer reports whether the member, or each of its elements, is a pointer.
func (m *member) isPointer() bool { return strings.HasSuffix(m.typ, "*") }

const (
	str = "const char *"
	u8  = "uint8_t "
	u16 = "uint16_t "
	u32 = "uint32_t "
)

// layouts holds the lws structs in tables, with their members in order
// (include/libwebsockets/lws-secure-streams-policy.h, lws-retry.h and
// lws-context-vhost.h of each release). It omits members under their own #if that
// no policy can set.
var layouts = map[string][]member{
	"lws_retry_bo_t": {
		{name: "retry_ms_table", typ: "const uint32_t *"},
		{name: "retry_ms_table_count", typ: u16},
		{name: "conceal_count", typ: u16},
		{name: "secs_since_valid_ping", typ: u16},
		{name: "secs_since_valid_hangup", typ: u16},
		{name: "jitter_percent", typ: u8},
	},
	"lws_metric_policy_t": {
		{name: "next", typ: "const struct lws_metric_policy *"},
		{name: "name", typ: str},
		{name: "report", typ: str},
		{name: "us_schedule", typ: "uint64_t "},
		{name: "us_decay_unit", typ: u32},
		{name: "min_contributors", typ: u8},
	},
	"lws_ss_x509_t": {
		{name: "next", typ: "struct lws_ss_x509 *"},
		{name: "vhost_name", typ: str},
		{name: "ca_der", typ: "const uint8_t *"},
		{name: "ca_der_len", typ: "size_t "},
		{name: "keep", typ: u8, bits: 1},
	},
	"lws_ss_trust_store_t": {
		{name: "next", typ: "struct lws_ss_trust_store *"},
		{name: "name", typ: str},
		{name: "ssx509", typ: "const lws_ss_x509_t *", count: 6},
		{name: "count", typ: "int "},
	},
	"lws_ss_metadata_t": {
		{name: "next", typ: "struct lws_ss_metadata *"},
		{name: "name", typ: str},
		{name: "value", typ: "void *", until: "4.2"},
		{name: "value__may_own_heap", typ: "void *", since: "4.2"},
		{name: "length", typ: "size_t "},
		{name: "value_length", typ: u8, since: "4.2"},
		{name: "value_is_http_token", typ: u8, since: "4.2"},
		{name: "value_on_lws_heap", typ: u8, bits: 1},
	},
	"lws_ss_http_respmap_t": {
		{name: "resp", typ: u16},
		{name: "state", typ: u16},
	},
	"lws_ss_auth_t": {
		{name: "next", typ: "struct lws_ss_auth *"},
		{name: "name", typ: str},
		{name: "type", typ: str},
		{name: "streamtype", typ: str},
		{name: "blob_index", typ: u8},
	},
	"struct lws_protocol_vhost_options": {
		{name: "next", typ: "const struct lws_protocol_vhost_options *"},
		{name: "options", typ: "const struct lws_protocol_vhost_options *"},
		{name: "name", typ: str},
		{name: "value", typ: str},
	},
	"lws_ss_policy_t": {
		{name: "next", typ: "struct lws_ss_policy *"},
		{name: "streamtype", typ: str},
		{name: "endpoint", typ: str},
		{name: "rideshare_streamtype", typ: str},
		{name: "payload_fmt", typ: str},
		{name: "socks5_proxy", typ: str},
		{name: "metadata", typ: "lws_ss_metadata_t *"},
		{name: "metrics", typ: "const lws_metric_policy_t *", since: "4.2"},
		{name: "auth", typ: "const lws_ss_auth_t *", since: "4.2"},
		{name: "pvo", typ: "const struct lws_protocol_vhost_options *", since: "4.4", macro: "LWS_WITH_SERVER"},
		{name: "u", union: true, members: []member{
			{name: "http", members: []member{
				{name: "method", typ: str},
				{name: "url", typ: str},
				{name: "multipart_name", typ: str},
				{name: "multipart_filename", typ: str},
				{name: "multipart_content_type", typ: str},
				{name: "blob_header", typ: str, count: 4},
				{name: "auth_preamble", typ: str},
				{name: "respmap", typ: "const lws_ss_http_respmap_t *", since: "4.2"},
				{name: "u", union: true, members: []member{
					{name: "ws", members: []member{
						{name: "subprotocol", typ: str},
						{name: "binary", typ: u8},
					}},
				}},
				{name: "resp_expect", typ: u16},
				{name: "count_respmap", typ: u8, since: "4.2"},
				{name: "fail_redirect", typ: u8, bits: 1},
			}},
			{name: "mqtt", macro: "LWS_ROLE_MQTT", members: []member{
				{name: "topic", typ: str},
				{name: "subscribe", typ: str},
				{name: "will_topic", typ: str},
				{name: "will_message", typ: str},
				{name: "birth_topic", typ: str, since: "4.3.1"},
				{name: "birth_message", typ: str, since: "4.3.1"},
				{name: "keep_alive", typ: u16},
				{name: "qos", typ: u8},
				{name: "clean_start", typ: u8},
				{name: "will_qos", typ: u8},
				{name: "will_retain", typ: u8},
				{name: "birth_qos", typ: u8, since: "4.3.1"},
				{name: "birth_retain", typ: u8, since: "4.3.1"},
				{name: "aws_iot", typ: u8, since: "4.2"},
				{name: "retain", typ: u8, since: "4.3.2"},
			}},
		}},
		{name: "aws_region", typ: str, since: "4.2", macro: "LWS_WITH_SECURE_STREAMS_AUTH_SIGV4"},
		{name: "aws_service", typ: str, since: "4.2", macro: "LWS_WITH_SECURE_STREAMS_AUTH_SIGV4"},
		{name: "trust", union: true, members: []member{
			{name: "store", typ: "const lws_ss_trust_store_t *"},
			{name: "server", members: []member{
				{name: "cert", typ: "const lws_ss_x509_t *"},
				{name: "key", typ: "const lws_ss_x509_t *"},
			}},
		}},
		{name: "retry_bo", typ: "const lws_retry_bo_t *"},
		{name: "txc", typ: "int32_t ", since: "4.4"},
		{name: "txc_peer", typ: "int32_t ", since: "4.4"},
		{name: "proxy_buflen", typ: u32, since: "4.2"},
		{name: "proxy_buflen_rxflow_on_above", typ: u32, since: "4.2"},
		{name: "proxy_buflen_rxflow_off_below", typ: u32, since: "4.2"},
		{name: "client_buflen", typ: u32, since: "4.2"},
		{name: "client_buflen_rxflow_on_above", typ: u32, since: "4.2"},
		{name: "client_buflen_rxflow_off_below", typ: u32, since: "4.2"},
		{name: "timeout_ms", typ: u32},
		{name: "flags", typ: u32},
		{name: "port", typ: u16},
		{name: "metadata_count", typ: u8},
		{name: "protocol", typ: u8},
		{name: "client_cert", typ: u8},
		{name: "priority", typ: u8, since: "4.2"},
	},
}
