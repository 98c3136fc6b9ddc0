package breaking

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

// A keyRule says what a change of a key of a streamtype breaks.
type keyRule struct {
	rule   *Rule
	breaks func(old, new any) bool // nil if every change does
	secret bool                    // do not show the values
}

func turnsOff(old, _ any) bool { return old == true }

// number returns an unsigned integer of any size.
func number(v any) uint64 { return reflect.ValueOf(v).Uint() }

// smaller reports whether a buffer shrinks. 0 means zero bytes.
func smaller(zero uint64) func(old, new any) bool {
	return func(old, new any) bool { return cmp.Or(number(new), zero) < cmp.Or(number(old), zero) }
}

func lower(old, new any) bool { return number(new) < number(old) }

// keyRules holds the keys whose values are compared directly. The methods of
// streamComparison compare the others.
var keyRules = map[string]keyRule{
	"nailed_up":            {rule: startChanged},
	"opportunistic":        {rule: startChanged},
	"perf":                 {rule: reportRemoved, breaks: turnsOff},
	"direct_proto_str":     {rule: undeclaredHeaders, breaks: turnsOff},
	"payload_fmt":          {rule: payloadChanged},
	"long_poll":            {rule: payloadChanged},
	"http_multipart_ss_in": {rule: payloadChanged},

	// 32768 is the default of lws 5.0.0 (lib/secure-streams/secure-streams-process.c).
	"proxy_buflen":                   {rule: bufferSmaller, breaks: smaller(32768)},
	"client_buflen":                  {rule: bufferSmaller, breaks: smaller(32768)},
	"proxy_buflen_rxflow_on_above":   {},
	"proxy_buflen_rxflow_off_below":  {},
	"client_buflen_rxflow_on_above":  {},
	"client_buflen_rxflow_off_below": {},

	"urgent_tx":             {},
	"urgent_rx":             {},
	"attr_priority":         {},
	"attr_low_latency":      {},
	"attr_high_throughput":  {},
	"attr_high_reliability": {},
	"attr_low_cost":         {},
	"options":               {secret: true}, // inert

	"via-socks5":     {rule: proxyChanged, secret: true},
	"client_cert":    {rule: clientCertChanged},
	"rideshare":      {rule: requestChanged},
	"aws_region":     {rule: authChanged},
	"aws_service":    {rule: authChanged},
	"swake_validity": {rule: wakeChanged},
	"timeout_ms": {rule: timeoutShorter, breaks: func(old, new any) bool {
		return old == time.Duration(0) || new != time.Duration(0) && new.(time.Duration) < old.(time.Duration)
	}},

	"http_method":              {rule: requestChanged},
	"http_url":                 {rule: requestChanged},
	"http_expect":              {rule: statesChanged, breaks: func(old, new any) bool { return new != uint16(0) || number(old) < 200 || number(old) > 299 }},
	"http_fail_redirect":       {rule: redirectsChanged},
	"allow_redirects":          {rule: redirectsChanged},
	"http_auth_header":         {rule: headerChanged},
	"http_dsn_header":          {rule: headerChanged},
	"http_fwv_header":          {rule: headerChanged},
	"http_devtype_header":      {rule: headerChanged},
	"http_auth_preamble":       {rule: headerChanged},
	"http_multipart_name":      {rule: bodyChanged},
	"http_multipart_filename":  {rule: bodyChanged},
	"http_mime_content_type":   {rule: bodyChanged},
	"http_www_form_urlencoded": {rule: bodyChanged},
	"http_no_content_length":   {rule: bodyChanged},
	"http_cookies":             {rule: cookiesOff, breaks: turnsOff},
	"nghttp2_quirk_end_stream": {rule: framesChanged},
	"h2q_oflow_txcr":           {rule: framesChanged},
	"ws_subprotocol":           {rule: framesChanged},
	"ws_binary":                {rule: framesChanged},
	"ws_prioritize_reads":      {},

	"mqtt_topic":         {rule: topicChanged},
	"mqtt_subscribe":     {rule: topicChanged},
	"mqtt_retain":        {rule: topicChanged},
	"mqtt_qos":           {rule: qosLowered, breaks: lower},
	"mqtt_keep_alive":    {rule: keepAliveChanged},
	"mqtt_clean_start":   {rule: sessionChanged},
	"aws_iot":            {rule: sessionChanged},
	"mqtt_will_topic":    {rule: sessionChanged},
	"mqtt_will_message":  {rule: sessionChanged},
	"mqtt_will_qos":      {rule: sessionChanged},
	"mqtt_will_retain":   {rule: sessionChanged},
	"mqtt_birth_topic":   {rule: sessionChanged},
	"mqtt_birth_message": {rule: sessionChanged},
	"mqtt_birth_qos":     {rule: sessionChanged},
	"mqtt_birth_retain":  {rule: sessionChanged},
}

// A streamComparison compares a streamtype.
type streamComparison struct {
	*comparison
	name     string
	old, new *policy.StreamType
}

// report adds a change at some settings of the streamtype.
func (s *streamComparison) report(rule *Rule, keys []string, format string, args ...any) {
	s.add(rule, []string{s.name}, s.comparison.old.at(s.name, keys...), s.comparison.new.at(s.name, keys...), format, args...)
}

// reportIn adds a change at settings of the definition that a reference of the
// streamtype names.
func (s *streamComparison) reportIn(rule *Rule, reference string, keys []string, format string, args ...any) {
	at := func(w *view) schema.Span {
		if d := w.definition(s.name, reference); d != nil {
			return settingAt(d, keys...)
		}
		return w.at(s.name, reference)
	}
	s.add(rule, []string{s.name}, at(s.comparison.old), at(s.comparison.new), format, args...)
}

func (s *streamComparison) compare() {
	if s.old.Server != s.new.Server {
		s.report(roleChanged, []string{"server"}, "it is %s instead of %s", summary(s.new), summary(s.old))
		return
	}
	if a, b := use(s.old), use(s.new); a != b {
		s.report(useChanged, []string{"protocol", "local_sink"}, "it carries %s (%v) instead of %s (%v)", b, s.new.Carrier(), a, s.old.Carrier())
		return
	}
	if s.old.Protocol != s.new.Protocol {
		s.report(protocolChanged, []string{"protocol"}, "it speaks %v instead of %v", s.new.Protocol, s.old.Protocol)
	}
	if a, b := place(s.old), place(s.new); a != b {
		verb := "connects to"
		if s.old.Server {
			verb = "listens on"
		}
		s.report(endpointMoved, []string{"endpoint", "port"}, "it %s %s instead of %s", verb, b, a)
	} else if s.old.Port != 0 && s.new.Port == 0 {
		s.report(endpointMoved, []string{"endpoint", "port"}, "it has no port, for which lws has no default")
	} else if s.old.Endpoint != s.new.Endpoint || s.old.Port != s.new.Port {
		s.report(nil, []string{"endpoint", "port"}, "the endpoint is written in another way")
	}
	s.tls()
	s.metadata()
	s.states()
	s.auth()
	s.retry()
	s.fields(reflect.ValueOf(s.old).Elem(), reflect.ValueOf(s.new).Elem())
	if s.old.HTTP != nil && s.new.HTTP != nil {
		s.fields(reflect.ValueOf(s.old.HTTP).Elem(), reflect.ValueOf(s.new.HTTP).Elem())
		if s.old.HTTP.Multipart != s.new.HTTP.Multipart {
			s.report(bodyChanged, []string{"http_multipart_name"}, "requests are multipart: %v instead of %v", s.new.HTTP.Multipart, s.old.HTTP.Multipart)
		}
	}
	if s.old.MQTT != nil && s.new.MQTT != nil {
		s.fields(reflect.ValueOf(s.old.MQTT).Elem(), reflect.ValueOf(s.new.MQTT).Elem())
	}
}

// use describes what a program sends and receives on a stream.
func use(st *policy.StreamType) string {
	switch p := st.Carrier(); {
	case p == policy.ProtocolSink:
		return "what a sink in the process takes"
	case p == policy.ProtocolFile:
		return "a file"
	case p.IsHTTP():
		return "a request and its response"
	case p.Acknowledges():
		return "acknowledged messages"
	case p.HasMessages():
		return "messages"
	}
	return "bytes"
}

// has reports whether the streamtype has a setting, in either policy.
func (s *streamComparison) has(key string) bool {
	for _, w := range []*view{s.comparison.old, s.comparison.new} {
		if d := w.streams[s.name]; d != nil && d.Get(key) != nil {
			return true
		}
	}
	return false
}

// fields compares the settings in keyRules.
func (s *streamComparison) fields(old, new reflect.Value) {
	for i := range old.NumField() {
		key := old.Type().Field(i).Tag.Get("policy")
		k, ok := keyRules[key]
		if !ok {
			continue
		}
		a, b := old.Field(i).Interface(), new.Field(i).Interface()
		if reflect.DeepEqual(a, b) {
			continue
		}
		rule := k.rule
		if k.breaks != nil && !k.breaks(a, b) {
			rule = nil
		}
		text := valueChange(key, a, b)
		if k.secret {
			text = key + " is different"
		}
		if key == "via-socks5" && !s.has(key) { // that of the policy
			if old, new := s.setting(key); !s.new.Server {
				s.add(rule, []string{s.name}, old, new, "%s", text)
			}
			continue
		}
		s.report(rule, []string{key}, "%s", text)
	}
}

// valueChange describes a setting with another value.
func valueChange(key string, old, new any) string {
	if b, ok := new.(bool); ok {
		if b {
			return key + " is on"
		}
		return key + " is off"
	}
	switch {
	case reflect.ValueOf(old).IsZero():
		return fmt.Sprintf("%s is %s, and was not set", key, valueText(new))
	case reflect.ValueOf(new).IsZero():
		return fmt.Sprintf("%s is not set, and was %s", key, valueText(old))
	}
	return fmt.Sprintf("%s is %s instead of %s", key, valueText(new), valueText(old))
}

func valueText(v any) string {
	if text, ok := v.(string); ok {
		return schema.QuoteName(text)
	}
	return fmt.Sprint(v)
}

// tls compares TLS and trust.
func (s *streamComparison) tls() {
	switch {
	case s.old.TLS && !s.new.TLS:
		s.report(tlsRemoved, []string{"tls"}, "it no longer uses TLS")
		return
	case !s.old.TLS && s.new.TLS:
		s.report(tlsAdded, []string{"tls"}, "it uses TLS, which it did not")
		return
	case s.old.Server:
		s.serverCert()
		return
	}
	trust := []string{"tls_trust_store"}
	breaks := func(r *Rule) *Rule {
		if !s.new.TLS {
			return nil // nothing is verified
		}
		return r
	}
	switch a, b := s.old.TrustStore, s.new.TrustStore; {
	case a == nil && b == nil:
	case a == nil:
		s.report(breaks(trustNarrowed), trust, "it trusts only %s, instead of the certificates of the operating system", certNames(b.Stack))
	case b == nil:
		s.report(breaks(trustWidened), trust, "it trusts the certificates of the operating system, instead of only %s", certNames(a.Stack))
	default:
		removed, added, renewed := diffCerts(a.Stack, b.Stack)
		if len(removed) > 0 {
			s.reportIn(breaks(trustNarrowed), "tls_trust_store", []string{"stack"}, "it no longer trusts %s", certNames(removed))
		}
		if len(added) > 0 {
			s.reportIn(breaks(trustWidened), "tls_trust_store", []string{"stack"}, "it also trusts %s", certNames(added))
		}
		if len(renewed) > 0 {
			s.reportIn(nil, "tls_trust_store", []string{"stack"}, "it trusts a new certificate with the same name and key: %s", certNames(renewed))
		}
	}
}

// serverCert compares the certificate and the key of a server.
func (s *streamComparison) serverCert() {
	der := func(c *policy.Cert) string {
		if c == nil {
			return ""
		}
		return c.DER
	}
	if der(s.old.ServerCert) != der(s.new.ServerCert) {
		rule := serverCertChanged
		if s.old.ServerCert != nil && s.new.ServerCert != nil && identity(s.old.ServerCert) == identity(s.new.ServerCert) {
			rule = nil // renewed
		}
		s.report(rule, []string{"server_cert"}, "the server has another certificate")
	}
	if der(s.old.ServerKey) != der(s.new.ServerKey) {
		s.report(serverCertChanged, []string{"server_key"}, "the server has another key")
	}
}

// metadata compares the items, by name.
func (s *streamComparison) metadata() {
	items := func(st *policy.StreamType) map[string]policy.Metadata {
		m := map[string]policy.Metadata{}
		for _, i := range slices.Backward(st.Metadata) { // the first one counts
			m[i.Name] = i
		}
		return m
	}
	olds, news := items(s.old), items(s.new)
	templates, before := templates(s.new), templates(s.old)
	used := func(name string, texts []string) bool {
		return slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(t, "${"+name+"}") })
	}
	keys := []string{"metadata"}
	renamed := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(olds)) {
		o := olds[name]
		n, ok := news[name]
		switch {
		case !ok:
			text := "metadata %s is gone"
			args := []any{schema.QuoteName(name)}
			for _, other := range slices.Sorted(maps.Keys(news)) {
				if _, known := olds[other]; !known && !renamed[other] && news[other].Header == o.Header && sameAfterRename(before, templates, name, other) {
					renamed[other] = true
					text += ", or is now called %s"
					args = append(args, schema.QuoteName(other))
					break
				}
			}
			s.report(metadataRemoved, keys, text, args...)
		case !strings.EqualFold(o.Header, n.Header):
			s.report(headerChanged, keys, "metadata %s: %s", schema.QuoteName(name), valueChange("the header", o.Header, n.Header))
		case o.Header != n.Header:
			s.report(nil, keys, "metadata %s: the header is written %s", schema.QuoteName(name), schema.QuoteName(n.Header))
		}
		if ok && o.Raw != n.Raw {
			verb := "encoded or checked"
			if n.Raw {
				verb = "inserted as they are"
			}
			s.report(encodingChanged, keys, "values of metadata %s are %s", schema.QuoteName(name), verb)
		}
		if ok && !used(name, before) && used(name, templates) {
			s.report(nil, keys, "metadata %s is inserted into the URL, topic or endpoint too", schema.QuoteName(name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(news)) {
		if _, known := olds[name]; known {
			continue
		}
		if used(name, templates) {
			s.report(metadataNeeded, keys, "the URL, topic or endpoint needs the new metadata %s", schema.QuoteName(name))
		} else {
			s.report(nil, keys, "new metadata %s", schema.QuoteName(name))
		}
	}
}

// templates returns the texts of a streamtype that may contain metadata.
func templates(st *policy.StreamType) []string {
	list := []string{st.Endpoint}
	if st.HTTP != nil {
		list = append(list, st.HTTP.URL)
	}
	if m := st.MQTT; m != nil {
		list = append(list, m.Topic, m.Subscribe, m.WillTopic, m.WillMessage, m.BirthTopic, m.BirthMessage)
	}
	return list
}

// sameAfterRename reports whether texts are equal after an item has been renamed.
func sameAfterRename(old, new []string, from, to string) bool {
	return slices.EqualFunc(old, new, func(a, b string) bool {
		return strings.ReplaceAll(a, "${"+from+"}", "${"+to+"}") == b
	})
}

// states compares the response maps.
func (s *streamComparison) states() {
	if s.old.HTTP == nil || s.new.HTTP == nil {
		return
	}
	states := func(h *policy.HTTP) map[uint16]policy.State {
		m := map[uint16]policy.State{}
		for _, r := range slices.Backward(h.RespMap) { // the first one counts
			m[r.Status] = r.State
		}
		return m
	}
	olds, news := states(s.old.HTTP), states(s.new.HTTP)
	var changed []string
	for _, status := range slices.Sorted(maps.Keys(olds)) {
		if n, ok := news[status]; !ok {
			changed = append(changed, fmt.Sprintf("%d no longer leads to state %d", status, olds[status]))
		} else if n != olds[status] {
			changed = append(changed, fmt.Sprintf("%d leads to state %d instead of %d", status, n, olds[status]))
		}
	}
	for _, status := range slices.Sorted(maps.Keys(news)) {
		if _, ok := olds[status]; !ok {
			changed = append(changed, fmt.Sprintf("%d leads to state %d", status, news[status]))
		}
	}
	for _, text := range changed {
		s.report(statesChanged, []string{"http_resp_map"}, "status %s", text)
	}
}

// auth compares the auth schemes, whatever their names are.
func (s *streamComparison) auth() {
	var none policy.Auth
	a, b := cmp.Or(s.old.Auth, &none), cmp.Or(s.new.Auth, &none)
	keys := []string{"use_auth"}
	switch {
	case (s.old.Auth == nil) != (s.new.Auth == nil):
		text := "it authenticates, which it did not"
		if s.new.Auth == nil {
			text = "it no longer authenticates"
		}
		s.report(authChanged, keys, "%s", text)
	case a.Type != b.Type:
		s.reportIn(authChanged, "use_auth", []string{"type"}, "auth: %s", valueChange("type", a.Type, b.Type))
	case a.Blob != b.Blob:
		s.reportIn(authChanged, "use_auth", []string{"blob"}, "auth: it takes the credential from blob %d instead of %d", b.Blob, a.Blob)
	case a.StreamType != b.StreamType:
		s.reportIn(authChanged, "use_auth", []string{"streamtype"}, "auth: %s", valueChange("streamtype", a.StreamType, b.StreamType))
	}
}
