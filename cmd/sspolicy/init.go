package main

import (
	"bufio"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/term"

	"github.com/secure-streams/sspolicy/internal/certs"
	"github.com/secure-streams/sspolicy/internal/report"
	"github.com/secure-streams/sspolicy/internal/starter"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

type initCmd struct {
	Protocol string           `enum:",h1,h2,h3,ws,mqtt,raw" default:"" placeholder:"PROTOCOL" help:"The protocol: h1 (the default), h2, h3, ws, mqtt or raw."`
	Server   bool             `help:"Accept connections instead of making one: h1, h2, ws or raw."`
	Stream   string           `placeholder:"NAME" help:"The name of the streamtype (example)."`
	Endpoint string           `placeholder:"HOST" help:"The host to connect to (example.com), or the interface on which a server listens (all)."`
	Port     *int             `placeholder:"PORT" help:"The port. The default is that of the protocol, for a server 7681."`
	NoTLS    bool             `name:"no-tls" help:"Connect without TLS."`
	CA       string           `name:"ca" placeholder:"FILE" help:"Trust only the certificates in this file, PEM or DER. The default is the roots of the operating system."`
	Cert     string           `placeholder:"FILE" help:"Serve with TLS, with the certificate in this PEM file."`
	Key      string           `placeholder:"FILE" help:"The PEM file with the private key of the certificate."`
	Settings bool             `name:"config" help:"Print a configuration (.sspolicy.json) instead of a policy."`
	LWS      []schema.Version `name:"lws" complete:"versions" placeholder:"VERSION" help:"With --config: the lws versions that the policies must work with, 4.1 to 5.0 (${lws})."`
	Output   string           `short:"o" placeholder:"OUT" help:"Write to this file instead of standard output. Required with --key: the policy contains the private key."`
	Force    bool             `help:"Overwrite the file."`
}

// Help returns the description for "sspolicy init --help".
func (initCmd) Help() string {
	return "Prints a policy with comments, to begin with. If standard input is a terminal, it asks for the settings that no flag provides; otherwise it uses the defaults."
}

// Validate checks the flags.
func (c *initCmd) Validate() error {
	switch {
	case c.Port != nil && (*c.Port < 1 || *c.Port > 65535):
		return fmt.Errorf("--port must be 1 to 65535, but is %d", *c.Port)
	case c.Settings && (c.Protocol != "" || c.Server || c.Stream != "" || c.Endpoint != "" || c.Port != nil || c.NoTLS || c.CA != "" || c.Cert != "" || c.Key != ""):
		return errors.New("--config: a configuration has nothing of a policy")
	case c.LWS != nil && !c.Settings:
		return errors.New("--lws is for --config: a policy is for all versions")
	case c.LWS != nil && len(c.LWS) == 0:
		return errors.New("--lws: missing version")
	case c.NoTLS && c.CA != "":
		return errors.New("--ca: certificates to trust are for connections with TLS")
	case (c.Cert == "") != (c.Key == ""):
		return errors.New("--cert and --key must be used together")
	case c.Cert != "" && !c.Server:
		return errors.New("--cert and --key are for servers")
	case c.Server && c.CA != "":
		return errors.New("--ca is for clients")
	case c.Cert != "" && c.NoTLS:
		return errors.New("--cert and --key cannot be used with --no-tls")
	case c.Key != "" && c.Output == "":
		return errors.New("--key: the policy would contain the private key: name its file with --output")
	}
	return nil
}

// Run executes the command.
func (c *initCmd) Run(p *program) error {
	if problem := c.outputProblem(c.Output); problem != "" {
		return usage("%s", problem)
	}
	var q *questions
	if f, ok := p.stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		q = &questions{bufio.NewReader(p.stdin), p.stderr}
	}
	return c.write(p, q)
}

// write writes the policy or configuration.
func (c *initCmd) write(p *program, q *questions) error {
	if c.Settings {
		lws, err := c.versions(q)
		if err != nil {
			return err
		}
		return p.output(c.Output, write(starter.Configuration(lws)))
	}
	o, err := c.options(q)
	if err != nil {
		return err
	}
	text, found := o.Policy()
	if schema.HasErrors(found) {
		return errors.Join(report.Write(p.stderr, report.FormatText, found), usage("the policy would have these errors"))
	}
	put := p.put
	if o.Key != nil {
		put = p.putPrivate
		if c.Output == "" { // the questions asked for the key
			if c.Output, err = q.ask("The policy contains the private key. Which file does it go to?", "policy.json", c.outputProblem); err != nil {
				return err
			}
		}
	}
	if err := put(c.Output, []byte(text)); err != nil {
		return err
	}
	if c.Output != "" && c.Output != "-" {
		fmt.Fprintf(p.stderr, "%s: written; sspolicy lint, run and compile take it\n", harmless(c.Output))
	}
	return nil
}

// outputProblem returns why the policy or configuration cannot be written to a file,
// or "".
func (c *initCmd) outputProblem(file string) string {
	if file != "" && file != "-" && isThere(file) && !c.Force {
		return file + " exists: --force overwrites it"
	}
	return ""
}

// versions returns the lws versions of a configuration. The default is that of lint,
// so that a first configuration adds no findings about lws itself.
func (c *initCmd) versions(q *questions) (list []schema.Version, err error) {
	if c.LWS != nil {
		return c.LWS, nil
	}
	parse := func(answer string) (list []schema.Version, err error) {
		for word := range strings.SplitSeq(answer, ",") {
			var v schema.Version
			if err := v.UnmarshalText([]byte(strings.TrimSpace(word))); err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	}
	answer, err := q.ask("Which lws versions do the devices have, such as 4.3,5.0?", schema.Latest().String(), func(answer string) string {
		if _, err := parse(answer); err != nil {
			return err.Error() + "."
		}
		return ""
	})
	if err != nil {
		return nil, err
	}
	return parse(answer)
}

// options returns the values of the flags, and the user's answers for the others.
func (c *initCmd) options(q *questions) (*starter.Options, error) {
	o := &starter.Options{Server: c.Server}
	if !c.Server && c.Protocol == "" && c.CA == "" && !c.NoTLS {
		role, err := q.ask("Does the stream connect (client), or accept connections (server)?", "client", oneOf("client", "server"))
		if err != nil {
			return nil, err
		}
		o.Server = role == "server"
	}
	protocols := []string{"h1", "h2", "h3", "ws", "mqtt", "raw"}
	if o.Server {
		protocols = []string{"h1", "h2", "ws", "raw"}
	}
	var err error
	name := c.Protocol
	if name == "" {
		if name, err = q.ask("Which protocol? "+strings.Join(protocols, ", "), "h1", oneOf(protocols...)); err != nil {
			return nil, err
		}
	}
	o.Protocol, _ = policy.ParseProtocol(name) // one of the names above
	if o.Stream = c.Stream; o.Stream == "" {
		if o.Stream, err = q.ask("What is the streamtype called?", "example", streamName); err != nil {
			return nil, err
		}
	}
	if o.Endpoint = c.Endpoint; o.Endpoint == "" && !o.Server {
		if o.Endpoint, err = q.ask("Which host does it connect to?", "example.com", hostName); err != nil {
			return nil, err
		}
	}
	if o.TLS = !o.Server && !c.NoTLS; o.TLS && c.CA == "" && o.Protocol != policy.ProtocolH2 && o.Protocol != policy.ProtocolH3 {
		answer, err := q.ask("With TLS?", "yes", oneOf("yes", "no"))
		if err != nil {
			return nil, err
		}
		o.TLS = answer == "yes"
	}
	cert, key := c.Cert, c.Key
	if o.Server && cert == "" && !c.NoTLS {
		if cert, err = q.ask("Which file has the certificate of the server? none for no TLS", "none", readable); err != nil {
			return nil, err
		}
		if cert == "none" {
			cert = ""
		} else if key, err = q.ask("And its private key?", cert, readable); err != nil {
			return nil, err
		}
	}
	if cert != "" {
		o.TLS = true
		if o.Cert, o.Key, err = readKeyPair(cert, key); err != nil {
			return nil, err
		}
	}
	if o.Port = uint16(valueOr(c.Port, 0)); o.Port == 0 {
		answer, err := q.ask("Which port?", strconv.Itoa(int(o.DefaultPort())), portNumber)
		if err != nil {
			return nil, err
		}
		n, _ := strconv.ParseUint(answer, 10, 16) // a port number
		o.Port = uint16(n)
	}
	if c.CA != "" {
		text, err := readFile(c.CA)
		if err != nil {
			return nil, fileError(c.CA, err)
		}
		if o.Roots, err = certs.Read(text); err != nil {
			return nil, &exitError{exitFindings, fmt.Errorf("--ca: %s: %w", c.CA, err)}
		}
	}
	if err := o.Check(); err != nil {
		return nil, usage("%w", err)
	}
	return o, nil
}

// readKeyPair reads the certificate of a server and its private key, which it
// returns in PKCS #8. Both files are PEM, and may be the same.
func readKeyPair(certFile, keyFile string) (*x509.Certificate, []byte, error) {
	cert, err := readFile(certFile)
	if err != nil {
		return nil, nil, fileError(certFile, err)
	}
	key, err := readFile(keyFile)
	if err != nil {
		return nil, nil, fileError(keyFile, err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err == nil && len(pair.Certificate) > 1 {
		err = fmt.Errorf("%s holds %d certificates, and a policy has room for one: the server could not send the others", certFile, len(pair.Certificate))
	}
	var der []byte
	if err == nil {
		der, err = x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	}
	if err != nil {
		return nil, nil, &exitError{exitFindings, fmt.Errorf("--cert %s, --key %s: %w", certFile, keyFile, err)}
	}
	return pair.Leaf, der, nil
}

func readable(answer string) string {
	if answer == "none" || isThere(answer) {
		return ""
	}
	return "There is no such file."
}

// questions asks the user. A nil questions uses the defaults.
type questions struct {
	in  *bufio.Reader
	out io.Writer
}

// ask asks until an answer is valid: check returns what is wrong, or "". An empty
// answer selects the default.
func (q *questions) ask(question, usual string, check func(string) string) (string, error) {
	if q == nil {
		return usual, nil
	}
	for {
		fmt.Fprintf(q.out, "%s [%s] ", question, usual)
		line, err := q.in.ReadString('\n')
		answer := strings.TrimSpace(line)
		if err != nil && answer == "" {
			fmt.Fprintln(q.out)
			return "", fmt.Errorf("no answer: %w", err)
		}
		answer = cmp.Or(answer, usual)
		problem := check(answer)
		if problem == "" {
			return answer, nil
		}
		fmt.Fprintf(q.out, "%s\n", problem)
	}
}

func oneOf(words ...string) func(string) string {
	return func(answer string) string {
		for _, w := range words {
			if answer == w {
				return ""
			}
		}
		return "Please answer " + strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1] + "."
	}
}

func streamName(answer string) string {
	if strings.ContainsFunc(answer, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-')
	}) {
		return "A name has letters, digits, _ and -."
	}
	return ""
}

func hostName(answer string) string {
	if !policy.IsHostName(answer) {
		return "Please answer a host name or an IPv4 address."
	}
	return ""
}

func portNumber(answer string) string {
	if n, err := strconv.ParseUint(answer, 10, 16); err != nil || n == 0 {
		return "A port is a number from 1 to 65535."
	}
	return ""
}
