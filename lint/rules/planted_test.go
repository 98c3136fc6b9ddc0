package rules

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

// planted are replacements in station.json that are mistakes, with the rules that they
// break.
var planted = []struct {
	right, wrong, rule string
}{
	{`"release": "42",`, `"release": "42",,`, "syntax"},
	{`"backoff": [1000],`, `"backoff": [1000,],`, "lax-syntax"},
	{"\"conceal\": 5,\n", "\"conceal\": 70000,\n", "out-of-range"},
	{`"svalidping": 60,`, `"svalidping": 70,`, "late-ping"},
	{`"stack": ["fixture_ca"]`, `"stack": ["fixture_ca", "fixture_ca"]`, "repeated-cert"},
	{`"http_url": "station/policy.json"`, `"http_urll": "station/policy.json"`, "unknown-key"},
	{"\"tls_trust_store\": \"fixture\",\n        \"opportunistic\": true,\n        \"retry\": \"default\"\n      }\n    },\n    {\n      \"captive",
		"\"tls_trust_store\": \"fixtur\",\n        \"opportunistic\": 1,\n        \"retry\": \"later\"\n      }\n    },\n    {\n      \"captive",
		"undefined-reference wrong-type forward-reference"},
	{`"http_fail_redirect": true,`, `"http_fail_redirect": true, "allow_redirects": true,`, "both-redirects"},
	{`"endpoint": "${region}.example.com"`, `"endpoint": "${regoin}.example.com"`, "undeclared-metadata"},
	{`{"422": 1422}`, `{"422": 22}`, "low-state"},
	{`"timeout_ms": 15000,`, `"timeout_ms": "15000",`, "wrong-type"},
	{`"ws_binary": true,`, `"ws_binary": true, "http_method": "GET",`, "method-on-ws"},
	{`"ws_subprotocol": "weather-live",`, `"ws_subprotocol": "weather-live", "ws_subprotocol": "weather",`, "duplicate-key"},
	{"\"nailed_up\": true,\n        \"retry\": \"patient\"\n      }\n    },\n    {\n      \"sensors\"", "\"nailed_up\": true, \"opportunistic\": true,\n        \"retry\": \"patient\"\n      }\n    },\n    {\n      \"sensors\"", "opportunistic-nailed-up"},
	{`"stations/${station}/commands/#"`, `"stations/#/commands"`, "bad-topic"},
	{`"mqtt_qos": 1,`, `"mqtt_qos": 3,`, "out-of-range"},
	{`"port": 8883,`, `"port": 1883,`, "tls-port"},
	{`"protocol": "raw"`, `"protocol": "raw", "tls": true`, "server-without-cert"},
	{"\"port\": 7681,\n", "\"port\": 7681, \"nailed_up\": true,\n", "wrong-role"},
}

// TestPlantedMistakes checks that one run finds more than twenty mistakes, and nothing
// else.
func TestPlantedMistakes(t *testing.T) {
	text, err := os.ReadFile("../../fixtures/station.json")
	if err != nil {
		t.Fatal(err)
	}
	policy := string(text)
	serious := func(policy string) (rules []string) {
		for _, d := range lint.Run(schema.Parse("station.json", []byte(policy)), All(), lint.Options{}) {
			if d.Severity > schema.Info {
				rules = append(rules, d.Rule)
			}
		}
		slices.Sort(rules)
		return rules
	}
	if found := serious(policy); found != nil {
		t.Fatalf("found without mistakes: %q", found)
	}
	var want []string
	for _, p := range planted {
		if strings.Count(policy, p.right) != 1 {
			t.Fatalf("%q stands %d times in the policy", p.right, strings.Count(policy, p.right))
		}
		policy = strings.Replace(policy, p.right, p.wrong, 1)
		want = append(want, strings.Fields(p.rule)...)
	}
	policy = strings.TrimSuffix(policy, "\n}\n") + ",\n  \"retry\": [{\"later\": {\"backoff\": [1000], \"conceal\": 5, \"jitterpc\": 20}}]\n}\n"
	slices.Sort(want)
	if len(want) < 20 {
		t.Errorf("only %d mistakes", len(want))
	}
	if d := cmp.Diff(want, serious(policy)); d != "" {
		t.Errorf("%s\n%s", d, policy)
	}
}
