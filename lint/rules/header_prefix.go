package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var headerPrefix = &lint.Rule{
	Name:     "header-prefix",
	Severity: schema.Warning,
	Summary:  "lws reads the name of a header as a longer one that begins with it",
	Why:      `Write the whole name and a colon, such as "x-id:".`,
	LWS: `lws uses the first known header that begins with the name. For "c" that is connection:,
and the item gets that header of the response. For "content-" it is content-length:, and the
request fails if the value is not a number (4.2.2 to 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "", "metadata": [ { "id": "c" } ] } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "", "metadata": [ { "id": "c:" } ] } } ] }`,
	Check: func(p *lint.Pass) {
		with := p.Versions(since(4, 2))
		if with == "" {
			return
		}
		for _, d := range streams(p) {
			if !http(d.Protocol()) {
				continue
			}
			list(d, "metadata", func(m *schema.Member) {
				name := m.Value.Text()
				if m.Value.Kind != schema.String || name == "" {
					return
				}
				if known := headerPrefixOf(name); known != "" && known != name && known != name+":" {
					p.Reportf(m.Value.Span, "lws %s reads this as %s, which begins with it: write the whole name and a colon", with, schema.Quote(known))
				}
			})
		}
	},
}

// headerPrefixOf returns the first header that lws knows which starts with
// name, or "".
func headerPrefixOf(name string) string {
	for _, h := range knownHeaders {
		if strings.HasPrefix(h, name) {
			return h
		}
	}
	return ""
}

// knownHeaders are the headers of the table of lws 4.2 to 5.0 as it is built by
// default, in its order.
var knownHeaders = strings.Split("get |post |options |host:|connection:|upgrade:|origin:|sec-websocket-draft:|\r\n|"+
	"sec-websocket-extensions:|sec-websocket-key1:|sec-websocket-key2:|sec-websocket-protocol:|sec-websocket-accept:|"+
	"sec-websocket-nonce:|http/1.1 |http2-settings:|accept:|access-control-request-headers:|if-modified-since:|"+
	"if-none-match:|accept-encoding:|accept-language:|pragma:|cache-control:|authorization:|cookie:|content-length:|"+
	"content-type:|date:|range:|referer:|sec-websocket-key:|sec-websocket-version:|sec-websocket-origin:|:authority|"+
	":method|:path|:scheme|:status|accept-charset:|accept-ranges:|access-control-allow-origin:|age:|allow:|"+
	"content-disposition:|content-encoding:|content-language:|content-location:|content-range:|etag:|expect:|expires:|"+
	"from:|if-match:|if-range:|if-unmodified-since:|last-modified:|link:|location:|max-forwards:|proxy-authenticate:|"+
	"proxy-authorization:|refresh:|retry-after:|server:|set-cookie:|strict-transport-security:|transfer-encoding:|"+
	"user-agent:|vary:|via:|www-authenticate:|patch|put|delete|uri-args|proxy |x-real-ip:|http/1.0 |x-forwarded-for:|"+
	"connect |head |te:|replay-nonce:|:protocol|x-auth-token:|x-amzn-dss-signature:", "|")
