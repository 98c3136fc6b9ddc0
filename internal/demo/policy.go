package demo

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// The sections of the demo's policy. lws reads a policy in one pass, so definitions
// come before their use.
const (
	retrySection = `  # Retry a failed attempt after 100 ms, plus up to 10 % at random. After three
  # retries, report the failure to the program.
  "retry": [{
    "briefly": { "backoff": [100], "conceal": 3, "jitterpc": 10 }
  }]`

	certsSection = `  # Two CAs, made just now. The first one issued the server's certificate.
  "certs": [{
    "demo_ca": %q
  }, {
    "vendor_ca": %q
  }]`

	trustSection = `  # A stream trusts only the CAs of the trust store that it names.
  "trust_stores": [
    { "name": "demo", "stack": ["demo_ca"] },
    { "name": "vendor", "stack": ["vendor_ca"] }
  ]`

	streamsSection = `  "s": [{
    "hello": {
      "endpoint": "127.0.0.1",
      "port": %d,
      "protocol": "h1",
      "http_method": "GET",
      "http_url": "greeting?name=${name}",
      "metadata": [{ "name": "" }],
      "tls": true,
      "tls_trust_store": "demo",
      "opportunistic": true,
      "retry": "briefly"
    }
  }, {
    "update": {
      "endpoint": "updates.example.com",
      "port": 443,
      "protocol": "h1",
      "http_method": "GET",
      "http_url": "firmware.bin",
      "tls": true,
      "tls_trust_store": "vendor",
      "opportunistic": true,
      "retry": "briefly"
    }
  }]`

	// breakTrust makes the stream trust a CA that did not issue the server's
	// certificate.
	breakTrust = `{
  # A test: the server's certificate is not from a trusted CA.
  "s": [{
    "hello": { "tls_trust_store": "vendor" }
  }]
}
`
)

// policies returns the policy of the demo, and a variant with two mistakes: a
// misspelt key, and a trust store that is defined after its use.
func policies(port int, ca, other *authority) (sound, broken string) {
	encode := base64.StdEncoding.EncodeToString
	certs := fmt.Sprintf(certsSection, encode(ca.cert.Raw), encode(other.cert.Raw))
	streams := fmt.Sprintf(streamsSection, port)
	policy := func(sections ...string) string {
		return "{\n" + strings.Join(sections, ",\n\n") + "\n}\n"
	}
	sound = policy(retrySection, certs, trustSection, streams)
	misspelt := strings.Replace(streams, `"opportunistic"`, `"oportunistic"`, 1)
	broken = policy(retrySection, certs, misspelt, trustSection)
	return sound, broken
}
