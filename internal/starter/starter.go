// Package starter generates the first policy and the first configuration of a project, with
// explanatory comments.
package starter

import (
	"crypto/x509"
	_ "embed"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/secure-streams/sspolicy/internal/certs"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

//go:embed configuration.json
var configuration string

// Configuration returns a configuration of sspolicy that lists versions of lws. Its other
// settings are the defaults, or examples in comments.
func Configuration(lws []schema.Version) string {
	var list []string
	for _, v := range lws {
		list = append(list, schema.Quote(v.String()))
	}
	return strings.Replace(configuration, "[]", "["+strings.Join(list, ", ")+"]", 1)
}

// Options describe a policy.
type Options struct {
	Protocol policy.Protocol
	Server   bool
	Stream   string // name of the streamtype
	Endpoint string // host to connect to, or address to listen on, which is optional
	Port     uint16 // 0 for the default of the protocol
	TLS      bool
	Roots    []*x509.Certificate // trusted by a client with TLS; those of the operating system if empty
	Cert     *x509.Certificate   // of a server with TLS
	Key      []byte              // the private key of Cert, in DER
}

// Check returns an error if no policy can have these options.
func (o *Options) Check() error {
	switch {
	case o.Server && (o.Protocol == policy.ProtocolMQTT || o.Protocol == policy.ProtocolH3):
		return fmt.Errorf("a server cannot speak %v: want h1, h2, ws or raw", o.Protocol)
	case o.Server && o.TLS && (o.Cert == nil || len(o.Key) == 0):
		return fmt.Errorf("a server with TLS needs a certificate and its private key")
	case o.Server && len(o.Roots) > 0:
		return fmt.Errorf("certificates to trust are for clients")
	case o.Cert != nil && !(o.Server && o.TLS):
		return fmt.Errorf("a certificate with a private key is for servers with TLS")
	case !o.Server && !o.TLS && (o.Protocol == policy.ProtocolH2 || o.Protocol == policy.ProtocolH3):
		return fmt.Errorf("%v needs TLS: lws speaks no %[1]v without", o.Protocol)
	case !o.TLS && len(o.Roots) > 0:
		return fmt.Errorf("certificates to trust are for connections with TLS")
	case !o.Server && o.Endpoint == "":
		return fmt.Errorf("a client needs a host to connect to")
	}
	return nil
}

// DefaultPort returns the port of a policy without one.
func (o *Options) DefaultPort() uint16 {
	if o.Server {
		return 7681
	}
	if port := o.Protocol.DefaultPort(o.TLS); port != 0 {
		return port
	}
	return 7
}

// Policy returns a policy and its lint findings. It has errors if a name or an endpoint
// cannot be in a policy.
func (o *Options) Policy() (string, []schema.Diagnostic) {
	text := o.text()
	return text, lint.Run(schema.Parse("policy.json", []byte(text)), rules.All(), lint.Options{})
}

// A setting is a key of the streamtype, its value in JSON, and a comment.
type setting struct{ key, value, comment string }

func (o *Options) text() string {
	var b strings.Builder
	role := "client"
	if o.Server {
		role = "server"
	}
	fmt.Fprintf(&b, `{
  # A policy for %s %v %s. Comments end with the line; lws skips them.
  # sspolicy explain KEY says more about a key.
  "release": "1",
  "product": %s,
  "schema-version": 1,

`, article(o.Protocol), o.Protocol, role, schema.Quote(o.Stream))
	if !o.Server {
		b.WriteString(retry)
	}
	if o.Cert != nil {
		o.credentials(&b)
	}
	if len(o.Roots) > 0 {
		o.trust(&b)
	}
	fmt.Fprintf(&b, "  # The streamtypes. A program opens a stream by this name.\n  \"s\": [\n    {\n      %s: {\n", schema.Quote(o.Stream))
	settings := o.settings()
	for i, s := range settings {
		if s.comment != "" {
			fmt.Fprintf(&b, "        # %s\n", s.comment)
		}
		comma := ","
		if i == len(settings)-1 {
			comma = ""
		}
		fmt.Fprintf(&b, "        %q: %s%s\n", s.key, s.value, comma)
	}
	b.WriteString("      }\n    }\n  ]\n}\n")
	return b.String()
}

func article(p policy.Protocol) string {
	if p == policy.ProtocolWS || p == policy.ProtocolRaw {
		return "a"
	}
	return "an"
}

const retry = `  # What happens when a connection fails or ends.
  "retry": [
    {
      "patient": {
        # The waits before the next attempts, in milliseconds; the last one repeats.
        # sspolicy:ignore backoff-cut -- lws 4.4 to 5.0 repeat the first wait, which is patient enough
        "backoff": [5000, 15000, 60000, 300000],
        # How many failures are followed by an attempt: 65535 means all.
        "conceal": 65535,
        # Up to so many percent are added to a wait, so that devices do not come together.
        "jitterpc": 50,
        # After so many seconds without a proof that the connection works, it is probed,
        # and then closed.
        "svalidping": 60,
        "svalidhup": 90
      }
    }
  ],

`

// trust writes the certificates and a trust store.
func (o *Options) trust(b *strings.Builder) {
	b.WriteString("  # Certificates in base64. \"sspolicy certs\" lists, checks and adds them.\n  \"certs\": [\n")
	seen := map[string]int{}
	var names []string
	for i, c := range o.Roots {
		name := certs.NameFor(c)
		if seen[name]++; seen[name] > 1 {
			name = fmt.Sprintf("%s_%d", name, seen[name])
		}
		names = append(names, schema.Quote(name))
		comma := ","
		if i == len(o.Roots)-1 {
			comma = ""
		}
		fmt.Fprintf(b, "    {%s: \"%s\"}%s\n", schema.Quote(name), base64.StdEncoding.EncodeToString(c.Raw), comma)
	}
	fmt.Fprintf(b, "  ],\n\n  # A streamtype that names the store trusts these certificates, and no others.\n"+
		"  \"trust_stores\": [\n    {\"name\": \"roots\", \"stack\": [%s]}\n  ],\n\n", strings.Join(names, ", "))
}

// keyName returns the name of the private key of a server.
func (o *Options) keyName() string { return certs.NameFor(o.Cert) + "_key" }

// credentials writes the certificate and the private key of a server.
func (o *Options) credentials(b *strings.Builder) {
	fmt.Fprintf(b, `  # The certificate of the server and its private key, in base64. Whoever can read this
  # file can pretend to be the server: keep it secret.
  "certs": [
    {%s: "%s"},
    # sspolicy:ignore private-key -- a server needs it
    {%s: "%s"}
  ],

`, schema.Quote(certs.NameFor(o.Cert)), base64.StdEncoding.EncodeToString(o.Cert.Raw), schema.Quote(o.keyName()), base64.StdEncoding.EncodeToString(o.Key))
}

// settings returns the settings of the streamtype.
func (o *Options) settings() (all []setting) {
	add := func(key, value, comment string) { all = append(all, setting{key, value, comment}) }
	text := func(key, value, comment string) { add(key, schema.Quote(value), comment) }
	port := o.Port
	if port == 0 {
		port = o.DefaultPort()
	}
	if o.Server {
		add("server", "true", "Connections are accepted, and each is a stream.")
		if o.Endpoint != "" {
			text("endpoint", o.Endpoint, "The interface to listen on.")
		}
	} else {
		text("endpoint", o.Endpoint, "")
	}
	add("port", fmt.Sprint(port), "")
	text("protocol", o.Protocol.String(), "")
	switch {
	case o.Server:
		if o.TLS {
			add("tls", "true", "Clients must use TLS, and trust the certificate or its issuer.")
			text("server_cert", certs.NameFor(o.Cert), "")
			text("server_key", o.keyName(), "")
		}
		o.serverSettings(add, text)
		return all
	case len(o.Roots) > 0:
		add("tls", "true", "")
		text("tls_trust_store", "roots", "")
	case o.TLS:
		add("tls", "true", "Without tls_trust_store, the roots of the operating system are trusted.")
	}
	switch o.Protocol {
	case policy.ProtocolMQTT:
		text("mqtt_topic", o.Stream+"/up", "What the program sends is published on this topic.")
		text("mqtt_subscribe", o.Stream+"/down", "")
		add("mqtt_qos", "1", "The broker acknowledges each message.")
		add("mqtt_keep_alive", "60", "In seconds.")
		add("mqtt_clean_start", "true", "The broker forgets the subscription with the connection.")
		add("nailed_up", "true", "The stream connects by itself, and again when the connection ends.")
	case policy.ProtocolWS:
		text("http_url", "v1/"+o.Stream, "")
		add("nailed_up", "true", "The stream connects by itself, and again when the connection ends.")
	case policy.ProtocolRaw:
	default:
		text("http_method", "GET", "")
		text("http_url", "v1/"+o.Stream, "The path. ${name} inserts metadata, values that the program sets.")
		add("metadata", `[{"language": "accept-language:"}]`, "This value is sent as a header.")
		add("opportunistic", "true", "One request, not one after the other.")
	}
	text("retry", "patient", "")
	return all
}

// serverSettings adds the settings of a server after its port and protocol.
func (o *Options) serverSettings(add, text func(key, value, comment string)) {
	switch o.Protocol {
	case policy.ProtocolRaw:
		return
	case policy.ProtocolWS:
		text("ws_subprotocol", o.Stream, "The subprotocol that clients ask for.")
		add("metadata", `[{"method": ""}, {"path": ""}]`, "What the program learns about a request.")
	default:
		add("metadata", `[{"method": ""}, {"path": ""}, {"mime": "Content-Type:"}]`,
			"What the program learns about a request, and the type of its answer.")
	}
}
