package sspcwire

import (
	"strings"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A ReportKind is the subject of a REPORT. Receivers ignore other kinds.
type ReportKind byte

// Kinds of reports.
const (
	ReportStreamType ReportKind = 's' // of Describe; before CREATE_RESULT, and when the policy has changed
	ReportStatus     ReportKind = 'h' // HTTP status in decimal; before CONNECTED, or QOS_ACK_REMOTE if that came earlier
	ReportCause      ReportKind = 'c' // text; before the state that it explains
)

// AppendReport appends a REPORT to b. It cuts a value that is too long.
func AppendReport(b []byte, k ReportKind, value string) []byte {
	value = value[:min(len(value), MaxReport-1)]
	return append(append(appendHeader(b, TypeReport, 1+len(value)), byte(k)), value...)
}

// Report decodes the body of REPORT.
func (f Frame) Report() (ReportKind, string) {
	return ReportKind(f.Body[0]), string(f.Body[1:])
}

// Words of a description.
const (
	wordOpportunistic = "opportunistic"
	wordSends         = "sends"
)

// Describe returns the properties of a streamtype that a client needs to use it as if it
// executed the streams itself, such as "h1 POST sends opportunistic". It returns "" if they
// cannot be described.
func Describe(st *policy.StreamType) string {
	if st.Carrier() != st.Protocol || !st.Protocol.Named() {
		return ""
	}
	words := []string{st.Protocol.String()}
	if st.Sends() {
		words = append(words, wordSends)
	}
	if st.Opportunistic {
		words = append(words, wordOpportunistic)
	}
	if st.Protocol.IsHTTP() && st.HTTP.Method != "" {
		words = append(words, st.HTTP.Method)
	}
	return strings.Join(words, " ")
}

// ParseDescription returns the streamtype that text, a result of Describe, describes. It
// reports whether it could parse text.
func ParseDescription(name, text string) (*policy.StreamType, bool) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return nil, false
	}
	p, ok := policy.ParseProtocol(words[0])
	if !ok {
		return nil, false
	}
	st := &policy.StreamType{Name: name, Protocol: p}
	sends, method := false, ""
	for _, w := range words[1:] {
		switch w {
		case wordSends:
			sends = true
		case wordOpportunistic:
			st.Opportunistic = true
		default:
			method = w
		}
	}
	switch {
	case p.IsHTTP():
		st.HTTP = &policy.HTTP{Method: method}
		st.HTTP.Multipart = sends && !st.HTTP.HasBody() // or a content-length: it has a body
	case p == policy.ProtocolMQTT && !sends:
		st.MQTT = new(policy.MQTT)
	}
	return st, true
}
