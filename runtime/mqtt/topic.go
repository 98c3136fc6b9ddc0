package mqtt

import "strings"

// wrongTopic says what keeps a text from being a topic to publish on (section
// 4.7.1.1, 4.7.3); "" is nothing.
func wrongTopic[T string | []byte](topic T) string {
	if len(topic) == 0 { // [MQTT-4.7.3-1]
		return "it is empty"
	}
	for i := range len(topic) {
		if topic[i] == '+' || topic[i] == '#' { // [MQTT-3.3.2-2]
			return `"+" and "#" are for filters`
		}
	}
	return wrongString(topic)
}

// wrongFilter says what keeps a text from being a filter (section 4.7.1).
func wrongFilter(filter string) string {
	if filter == "" { // [MQTT-4.7.3-1]
		return "it is empty"
	}
	for rest, more := filter, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		switch {
		case strings.Contains(level, "+") && level != "+": // [MQTT-4.7.1-3]
			return `"+" stands alone in its level`
		case strings.Contains(level, "#") && (level != "#" || more): // [MQTT-4.7.1-2]
			return `"#" stands alone in the last level`
		}
	}
	return wrongString(filter)
}

// maxAWSTopic and maxAWSSlashes are the limits of AWS IoT Core; the first three
// slashes of a topic that begins with '$' do not count (lws 5.0.0,
// lib/roles/mqtt/mqtt.c).
const (
	maxAWSTopic   = 256
	maxAWSSlashes = 7
)

// wrongHere says what keeps a topic or filter, which is well-formed, from being
// used by a policy: one that begins with '$' is the server's own, unless the
// policy says aws_iot.
func wrongHere(topic string, aws bool) string {
	reserved := strings.HasPrefix(topic, "$")
	switch slashes := strings.Count(topic, "/"); {
	case !aws && reserved:
		return `it begins with "$", and the policy does not say aws_iot`
	case !aws:
		return ""
	case len(topic) > maxAWSTopic:
		return "it is longer than 256 bytes, which AWS IoT does not take"
	case !reserved && slashes > maxAWSSlashes, slashes > maxAWSSlashes+3:
		return "it has more slashes than AWS IoT takes"
	}
	return ""
}

// matches reports whether a topic matches a filter (section 4.7). Both are
// well-formed.
func matches[T string | []byte](filter string, topic T) bool {
	if topic[0] == '$' && (filter[0] == '+' || filter[0] == '#') { // [MQTT-4.7.2-1]
		return false
	}
	i := 0 // in topic
	for f := 0; f < len(filter); f++ {
		switch filter[f] {
		case '#':
			return true
		case '+':
			for i < len(topic) && topic[i] != '/' {
				i++
			}
		default:
			if i == len(topic) {
				return filter[f:] == "/#" // "a/#" matches "a" (section 4.7.1.2)
			}
			if topic[i] != filter[f] {
				return false
			}
			i++
		}
	}
	return i == len(topic)
}

// isShadow reports whether to publish on a topic is to ask for the shadow of a
// thing, as lws takes it: $aws/things/T/shadow/OP or
// $aws/things/T/shadow/name/N/OP.
func isShadow(topic string) bool {
	return matches("$aws/things/+/shadow/+", topic) || matches("$aws/things/+/shadow/name/+/+", topic)
}
