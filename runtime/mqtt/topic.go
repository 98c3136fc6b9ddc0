package mqtt

import "strings"

// invalidTopic returns why a text is not a valid topic of a message (sections
// 4.7.1.1 and 4.7.3), or "".
func invalidTopic[T string | []byte](topic T) string {
	if len(topic) == 0 { // [MQTT-4.7.3-1]
		return "it is empty"
	}
	for i := range len(topic) {
		if topic[i] == '+' || topic[i] == '#' { // [MQTT-3.3.2-2]
			return `"+" and "#" are for filters only`
		}
	}
	return invalidString(topic)
}

// invalidFilter returns why a text is not a valid filter (section 4.7.1), or "".
func invalidFilter(filter string) string {
	if filter == "" { // [MQTT-4.7.3-1]
		return "it is empty"
	}
	for rest, more := filter, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		switch {
		case strings.Contains(level, "+") && level != "+": // [MQTT-4.7.1-3]
			return `"+" must be a level of its own`
		case strings.Contains(level, "#") && (level != "#" || more): // [MQTT-4.7.1-2]
			return `"#" must be the last level`
		}
	}
	return invalidString(filter)
}

// maxAWSTopic and maxAWSSlashes are the limits of AWS IoT Core; the first three
// slashes of a topic that begins with '$' do not count (lws 5.0.0,
// lib/roles/mqtt/mqtt.c).
const (
	maxAWSTopic   = 256
	maxAWSSlashes = 7
)

// reservedTopic returns why a policy must not use a valid topic or filter, or "".
// Topics that begin with '$' belong to the server, except with aws_iot.
func reservedTopic(topic string, aws bool) string {
	reserved := strings.HasPrefix(topic, "$")
	switch slashes := strings.Count(topic, "/"); {
	case !aws && reserved:
		return `it begins with "$", which needs aws_iot`
	case !aws:
		return ""
	case len(topic) > maxAWSTopic:
		return "it is longer than the 256 bytes that AWS IoT accepts"
	case !reserved && slashes > maxAWSSlashes, slashes > maxAWSSlashes+3:
		return "it has more slashes than AWS IoT accepts"
	}
	return ""
}

// matches reports whether a topic matches a filter (section 4.7). Both must be
// valid.
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

// isShadow reports whether messages on a topic are for the shadow of a thing, as in
// lws: $aws/things/T/shadow/OP or $aws/things/T/shadow/name/N/OP.
func isShadow(topic string) bool {
	return matches("$aws/things/+/shadow/+", topic) || matches("$aws/things/+/shadow/name/+/+", topic)
}
