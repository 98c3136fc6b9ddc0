package mqtt

import (
	"strings"
	"testing"
)

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		filter, topic string
		want          bool
	}{
		// The examples of section 4.7.
		{"sport/tennis/player1/#", "sport/tennis/player1", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/ranking", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true},
		{"sport/#", "sport", true},
		{"#", "sport/tennis", true},
		{"sport/tennis/+", "sport/tennis/player1", true},
		{"sport/tennis/+", "sport/tennis/player1/ranking", false},
		{"sport/+", "sport", false},
		{"sport/+", "sport/", true},
		{"+/+", "/finance", true},
		{"/+", "/finance", true},
		{"+", "/finance", false},
		{"#", "$SYS/a", false},
		{"+/monitor/Clients", "$SYS/monitor/Clients", false},
		{"$SYS/#", "$SYS/a", true},
		{"$SYS/monitor/+", "$SYS/monitor/Clients", true},
		{"a", "A", false},
		{"/a", "a", false},
		{"a", "a", true},
		{"a", "ab", false},
		{"ab", "a", false},
		{"a/b", "a", false},
		{"a/#", "ab", false},
		{"+/#", "a", true},
		{"+", "a", true},
		{"+/b", "a/b", true},
		{"a/+/c", "a/b/c", true},
		{"a/+/c", "a/b/d", false},
		{"a//c", "a//c", true},
		{"a/+/c", "a//c", true},
	} {
		if got := matches(c.filter, c.topic); got != c.want {
			t.Errorf("matches(%q, %q) = %v", c.filter, c.topic, got)
		}
	}
}

// slowMatch is section 4.7, level by level.
func slowMatch(filter, topic string) bool {
	f, p := strings.Split(filter, "/"), strings.Split(topic, "/")
	if strings.HasPrefix(topic, "$") && (f[0] == "+" || f[0] == "#") {
		return false
	}
	for i, level := range f {
		switch {
		case level == "#":
			return true
		case i == len(p) || level != "+" && level != p[i]:
			return false
		}
	}
	return len(f) == len(p)
}

func FuzzMatches(f *testing.F) {
	f.Add("a/+/#", "a/b/c")
	f.Add("$SYS/#", "$SYS")
	f.Add("+", "$SYS")
	f.Add("/+/", "//")
	f.Fuzz(func(t *testing.T, filter, topic string) {
		if invalidFilter(filter) != "" || invalidTopic(topic) != "" {
			return
		}
		if got, want := matches(filter, []byte(topic)), slowMatch(filter, topic); got != want {
			t.Errorf("matches(%q, %q) = %v, want %v", filter, topic, got, want)
		}
	})
}

func TestInvalid(t *testing.T) {
	long := strings.Repeat("x", maxString)
	for _, c := range []struct {
		text          string
		topic, filter bool // valid
	}{
		{"a", true, true}, {"/", true, true}, {"", false, false}, {"a/b c/é", true, true},
		{"+", false, true}, {"#", false, true}, {"a/#", false, true}, {"a/+/b", false, true},
		{"a+", false, false}, {"+a/b", false, false}, {"a#", false, false}, {"#/a", false, false}, {"a/#/b", false, false},
		{"a\x00", false, false}, {"\xff", false, false}, {long, true, true}, {long + "x", false, false},
	} {
		if got := invalidTopic(c.text); (got == "") != c.topic {
			t.Errorf("topic %.20q: %q", c.text, got)
		}
		if got := invalidFilter(c.text); (got == "") != c.filter {
			t.Errorf("filter %.20q: %q", c.text, got)
		}
	}
	for _, c := range []struct {
		text       string
		plain, aws bool
	}{
		{"a", true, true}, {"$aws/things/t/shadow/get", false, true}, {"$SYS/a", false, true},
		{strings.Repeat("x", 256), true, true}, {strings.Repeat("x", 257), true, false},
		{"1/2/3/4/5/6/7/8", true, true}, {"1/2/3/4/5/6/7/8/9", true, false},
		{"$a/b/c/1/2/3/4/5/6/7/8", false, true}, {"$a/b/c/1/2/3/4/5/6/7/8/9", false, false},
	} {
		if reservedTopic(c.text, false) == "" != c.plain || reservedTopic(c.text, true) == "" != c.aws {
			t.Errorf("%.30q: %q, %q", c.text, reservedTopic(c.text, false), reservedTopic(c.text, true))
		}
	}
	for topic, want := range map[string]bool{
		"$aws/things/t/shadow/get": true, "$aws/things/t/shadow/name/n/update": true,
		"$aws/things/t/shadow/get/accepted": false, "aws/things/t/shadow/get": false, "$aws/things/t/shadow/name/n": false,
	} {
		if isShadow(topic) != want {
			t.Errorf("isShadow(%q) = %v", topic, !want)
		}
	}
}
