package codegen

import "strings"

// A knownHeader is a header to which lws assigns a number.
type knownHeader struct {
	name   string // as in its table, with the colon
	symbol string // of its number
	macros string // #if condition of builds that have it; empty for all
}

// The conditions of known headers.
const (
	headersAll   = " || defined(LWS_HTTP_HEADERS_ALL)"
	uncommon     = "defined(LWS_WITH_HTTP_UNCOMMON_HEADERS)" + headersAll
	ws           = "defined(LWS_ROLE_WS)" + headersAll
	h2           = "defined(LWS_ROLE_H2) || defined(LWS_ROLE_H3)" + headersAll
	uncommonOrH2 = "defined(LWS_WITH_HTTP_UNCOMMON_HEADERS) || defined(LWS_ROLE_H2)" + headersAll
)

// knownHeaders are the known headers of lws 4.2 to 5.0
// (lib/roles/http/lextable-strings.h, and enum lws_token_indexes in
// include/libwebsockets/lws-http.h). Their numbers depend on the build of lws, so
// tables use the symbols.
var knownHeaders = []knownHeader{
	{"host:", "WSI_TOKEN_HOST", ""},
	{"connection:", "WSI_TOKEN_CONNECTION", ""},
	{"upgrade:", "WSI_TOKEN_UPGRADE", ""},
	{"origin:", "WSI_TOKEN_ORIGIN", ""},
	{"sec-websocket-draft:", "WSI_TOKEN_DRAFT", ws},
	{"sec-websocket-extensions:", "WSI_TOKEN_EXTENSIONS", ws},
	{"sec-websocket-key1:", "WSI_TOKEN_KEY1", ws},
	{"sec-websocket-key2:", "WSI_TOKEN_KEY2", ws},
	{"sec-websocket-protocol:", "WSI_TOKEN_PROTOCOL", ws},
	{"sec-websocket-accept:", "WSI_TOKEN_ACCEPT", ws},
	{"sec-websocket-nonce:", "WSI_TOKEN_NONCE", ws},
	{"http2-settings:", "WSI_TOKEN_HTTP2_SETTINGS", h2},
	{"accept:", "WSI_TOKEN_HTTP_ACCEPT", ""},
	{"access-control-request-headers:", "WSI_TOKEN_HTTP_AC_REQUEST_HEADERS", uncommon},
	{"if-modified-since:", "WSI_TOKEN_HTTP_IF_MODIFIED_SINCE", ""},
	{"if-none-match:", "WSI_TOKEN_HTTP_IF_NONE_MATCH", ""},
	{"accept-encoding:", "WSI_TOKEN_HTTP_ACCEPT_ENCODING", ""},
	{"accept-language:", "WSI_TOKEN_HTTP_ACCEPT_LANGUAGE", ""},
	{"pragma:", "WSI_TOKEN_HTTP_PRAGMA", ""},
	{"cache-control:", "WSI_TOKEN_HTTP_CACHE_CONTROL", ""},
	{"authorization:", "WSI_TOKEN_HTTP_AUTHORIZATION", ""},
	{"cookie:", "WSI_TOKEN_HTTP_COOKIE", ""},
	{"content-length:", "WSI_TOKEN_HTTP_CONTENT_LENGTH", ""},
	{"content-type:", "WSI_TOKEN_HTTP_CONTENT_TYPE", ""},
	{"date:", "WSI_TOKEN_HTTP_DATE", ""},
	{"range:", "WSI_TOKEN_HTTP_RANGE", ""},
	{"referer:", "WSI_TOKEN_HTTP_REFERER", uncommonOrH2},
	{"sec-websocket-key:", "WSI_TOKEN_KEY", ws},
	{"sec-websocket-version:", "WSI_TOKEN_VERSION", ws},
	{"sec-websocket-origin:", "WSI_TOKEN_SWORIGIN", ws},
	{":authority", "WSI_TOKEN_HTTP_COLON_AUTHORITY", h2},
	{":method", "WSI_TOKEN_HTTP_COLON_METHOD", h2},
	{":path", "WSI_TOKEN_HTTP_COLON_PATH", h2},
	{":scheme", "WSI_TOKEN_HTTP_COLON_SCHEME", h2},
	{":status", "WSI_TOKEN_HTTP_COLON_STATUS", h2},
	{"accept-charset:", "WSI_TOKEN_HTTP_ACCEPT_CHARSET", uncommonOrH2},
	{"accept-ranges:", "WSI_TOKEN_HTTP_ACCEPT_RANGES", ""},
	{"access-control-allow-origin:", "WSI_TOKEN_HTTP_ACCESS_CONTROL_ALLOW_ORIGIN", uncommonOrH2},
	{"age:", "WSI_TOKEN_HTTP_AGE", ""},
	{"allow:", "WSI_TOKEN_HTTP_ALLOW", ""},
	{"content-disposition:", "WSI_TOKEN_HTTP_CONTENT_DISPOSITION", ""},
	{"content-encoding:", "WSI_TOKEN_HTTP_CONTENT_ENCODING", ""},
	{"content-language:", "WSI_TOKEN_HTTP_CONTENT_LANGUAGE", ""},
	{"content-location:", "WSI_TOKEN_HTTP_CONTENT_LOCATION", ""},
	{"content-range:", "WSI_TOKEN_HTTP_CONTENT_RANGE", ""},
	{"etag:", "WSI_TOKEN_HTTP_ETAG", ""},
	{"expect:", "WSI_TOKEN_HTTP_EXPECT", ""},
	{"expires:", "WSI_TOKEN_HTTP_EXPIRES", ""},
	{"from:", "WSI_TOKEN_HTTP_FROM", ""},
	{"if-match:", "WSI_TOKEN_HTTP_IF_MATCH", ""},
	{"if-range:", "WSI_TOKEN_HTTP_IF_RANGE", ""},
	{"if-unmodified-since:", "WSI_TOKEN_HTTP_IF_UNMODIFIED_SINCE", ""},
	{"last-modified:", "WSI_TOKEN_HTTP_LAST_MODIFIED", ""},
	{"link:", "WSI_TOKEN_HTTP_LINK", ""},
	{"location:", "WSI_TOKEN_HTTP_LOCATION", ""},
	{"max-forwards:", "WSI_TOKEN_HTTP_MAX_FORWARDS", uncommonOrH2},
	{"proxy-authenticate:", "WSI_TOKEN_HTTP_PROXY_AUTHENTICATE", uncommonOrH2},
	{"proxy-authorization:", "WSI_TOKEN_HTTP_PROXY_AUTHORIZATION", uncommonOrH2},
	{"refresh:", "WSI_TOKEN_HTTP_REFRESH", ""},
	{"retry-after:", "WSI_TOKEN_HTTP_RETRY_AFTER", ""},
	{"server:", "WSI_TOKEN_HTTP_SERVER", ""},
	{"set-cookie:", "WSI_TOKEN_HTTP_SET_COOKIE", ""},
	{"strict-transport-security:", "WSI_TOKEN_HTTP_STRICT_TRANSPORT_SECURITY", uncommonOrH2},
	{"transfer-encoding:", "WSI_TOKEN_HTTP_TRANSFER_ENCODING", ""},
	{"user-agent:", "WSI_TOKEN_HTTP_USER_AGENT", uncommonOrH2},
	{"vary:", "WSI_TOKEN_HTTP_VARY", uncommonOrH2},
	{"via:", "WSI_TOKEN_HTTP_VIA", uncommonOrH2},
	{"www-authenticate:", "WSI_TOKEN_HTTP_WWW_AUTHENTICATE", uncommonOrH2},
	{"x-real-ip:", "WSI_TOKEN_HTTP_X_REAL_IP", uncommon},
	{"x-forwarded-for:", "WSI_TOKEN_X_FORWARDED_FOR", ""},
	{"te:", "WSI_TOKEN_TE", uncommonOrH2},
	{"replay-nonce:", "WSI_TOKEN_REPLAY_NONCE", uncommonOrH2},
	{":protocol", "WSI_TOKEN_COLON_PROTOCOL", h2},
	{"x-auth-token:", "WSI_TOKEN_X_AUTH_TOKEN", ""},
	{"x-amzn-dss-signature:", "WSI_TOKEN_DSS_SIGNATURE", ""},
}

var headerByName = func() map[string]*knownHeader {
	m := make(map[string]*knownHeader, len(knownHeaders))
	for i := range knownHeaders {
		m[knownHeaders[i].name] = &knownHeaders[i]
	}
	return m
}()

// lookupHeader returns the known header that a metadata item is mapped to, or nil.
// It compares whole names, ignoring case and a trailing colon.
//
// lws uses the number only to copy the received header into the metadata
// (lib/secure-streams/protocols/ss-h1.c, lws_extract_metadata). Its parser takes
// the first header in its table that begins with the mapping. So a mapping to "" or
// "c" copies an unrelated header, and one to "Content-Type:" none.
func lookupHeader(mapping string) *knownHeader {
	name := strings.Map(func(r rune) rune { // strings.ToLower makes a "k" of U+212A
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, mapping)
	if t := headerByName[name]; t != nil {
		return t
	}
	return headerByName[name+":"]
}
