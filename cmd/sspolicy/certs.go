package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/net/proxy"

	"github.com/secure-streams/sspolicy/internal/certs"
	"github.com/secure-streams/sspolicy/internal/report"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

type certsCmd struct {
	List     certsListCmd     `cmd:"" help:"List the certificates of policies, with their expiry and use."`
	Check    certsCheckCmd    `cmd:"" help:"Check that the trust store of a stream accepts the chain of its server."`
	Import   certsImportCmd   `cmd:"" help:"Add certificates to a policy."`
	Minimize certsMinimizeCmd `cmd:"" help:"Find the smallest trust store that still verifies given chains."`
	Fetch    certsFetchCmd    `cmd:"" help:"Print the certificates that a server shows."`
}

// A period is a time in days, weeks or the units of Go.
type period time.Duration

const day = 24 * time.Hour

func (d *period) UnmarshalText(text []byte) error {
	s := string(text)
	for unit, size := range map[string]time.Duration{"d": day, "w": 7 * day} {
		if digits, ok := strings.CutSuffix(s, unit); ok {
			if n, err := strconv.Atoi(digits); err == nil && n >= 0 && n <= 100_000 {
				*d = period(time.Duration(n) * size)
				return nil
			}
		}
	}
	t, err := time.ParseDuration(s)
	if err != nil || t < 0 {
		return fmt.Errorf("%q is not a time such as 90d, 2w or 36h", text)
	}
	*d = period(t)
	return nil
}

// A dayFlag is the date of a check.
type dayFlag struct {
	At string `placeholder:"DAY" help:"The day of the check, such as 2027-01-31. The default is today."`
}

// Validate checks the flag.
func (f *dayFlag) Validate() error {
	if _, err := time.Parse(time.DateOnly, cmp.Or(f.At, time.DateOnly)); err != nil {
		return fmt.Errorf("--at: %q is not a day such as 2027-01-31", f.At)
	}
	return nil
}

func (f *dayFlag) time() time.Time {
	if t, err := time.Parse(time.DateOnly, f.At); err == nil {
		return t
	}
	return time.Now()
}

type certsListCmd struct {
	Expiring *period `placeholder:"TIME" help:"Only certificates that expire within this time, such as 90d. The exit code is 1 if there are any."`
	dayFlag
	textOrJSON
	Files []string `arg:"" name:"policy" help:"The policies."`
}

// A certRow is the JSON form of a certificate.
type certRow struct {
	Policy      string     `json:"policy"`
	Name        string     `json:"name"`
	Line        int        `json:"line"`
	Subject     string     `json:"subject,omitempty"`
	Issuer      string     `json:"issuer,omitempty"`
	Serial      string     `json:"serial,omitempty"`
	Key         string     `json:"key,omitempty"`
	Fingerprint string     `json:"sha256,omitempty"`
	NotBefore   *time.Time `json:"notBefore,omitempty"`
	NotAfter    *time.Time `json:"notAfter,omitempty"`
	Days        *int       `json:"daysLeft,omitempty"`
	Size        int        `json:"size,omitempty"`
	Problem     string     `json:"problem,omitempty"`
	Uses        []certUse  `json:"uses"`
}

type certUse struct {
	Store   string   `json:"trustStore,omitempty"`
	Streams []string `json:"streams"`
}

// Run executes the command.
func (c *certsListCmd) Run(p *program) error {
	at := c.time()
	rows := []*certRow{}
	var entries []*certs.Entry
	for _, file := range c.Files {
		d, err := p.readable(file)
		if err != nil {
			return err
		}
		for _, e := range certs.List(schema.NewPolicy(d)) {
			if c.Expiring != nil && (e.Cert == nil || e.Cert.NotAfter.Sub(at) >= time.Duration(*c.Expiring)) {
				continue
			}
			rows = append(rows, newCertRow(file, e, at))
			entries = append(entries, e)
		}
	}
	write := func(w io.Writer) error { return c.print(w, rows, entries) }
	if c.Format == "json" {
		write = func(w io.Writer) error {
			return report.Encode(w, map[string]any{"version": 1, "certificates": rows})
		}
	}
	if err := p.output("", write); err != nil {
		return err
	}
	if c.Expiring != nil && len(rows) > 0 {
		return errFindings
	}
	return nil
}

func newCertRow(file string, e *certs.Entry, at time.Time) *certRow {
	row := &certRow{Policy: displayName(file), Name: e.Name, Line: e.Span.Position().Line, Uses: []certUse{}}
	for _, u := range e.Uses {
		row.Uses = append(row.Uses, certUse{u.Store, append([]string{}, u.Streams...)})
	}
	if e.Cert == nil {
		row.Problem = e.Err.Error()
		return row
	}
	before, after, days := e.Cert.NotBefore.UTC(), e.Cert.NotAfter.UTC(), certs.Days(e.Cert, at)
	row.Subject, row.Issuer, row.Key = e.Cert.Subject.String(), e.Cert.Issuer.String(), certs.Key(e.Cert)
	row.Serial, row.Fingerprint, row.Size = e.Cert.SerialNumber.Text(16), certs.Fingerprint(e.Cert), len(e.Cert.Raw)
	row.NotBefore, row.NotAfter, row.Days = &before, &after, &days
	return row
}

func (c *certsListCmd) print(w io.Writer, rows []*certRow, entries []*certs.Entry) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(rows) > 0 {
		fmt.Fprintln(t, "NAME\tSUBJECT\tISSUER\tKEY\tENDS\tUSED BY")
	}
	for i, row := range rows {
		name := row.Name
		if len(c.Files) > 1 {
			name = row.Policy + ": " + name
		}
		e := entries[i]
		if e.Cert == nil {
			fmt.Fprintf(t, "%s\t(%s)\t\t\t\t%s\n", visible(name), row.Problem, visible(useText(row.Uses)))
			continue
		}
		issuer := "itself"
		if !certs.SelfIssued(e.Cert) {
			issuer = certs.Label(row.Issuer, e.Cert.Issuer.CommonName)
		}
		left := fmt.Sprintf("in %d days", *row.Days)
		if *row.Days < 0 {
			left = "EXPIRED"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s, %s\t%s\n", visible(name), visible(certs.Label(row.Subject, e.Cert.Subject.CommonName)), visible(issuer), row.Key,
			e.Cert.NotAfter.UTC().Format(time.DateOnly), left, visible(useText(row.Uses)))
	}
	return t.Flush()
}

// useText describes the uses of a certificate.
func useText(uses []certUse) string {
	var parts []string
	for _, u := range uses {
		streams := strings.Join(u.Streams, ", ")
		switch {
		case u.Store == "":
			parts = append(parts, "server "+streams)
		case streams == "":
			parts = append(parts, u.Store+" (no stream)")
		default:
			parts = append(parts, u.Store+" ("+streams+")")
		}
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, "; ")
}

// chainFlags select the source of chains.
type chainFlags struct {
	Connect bool          `help:"Connect to the server of the stream, and check the chain that it sends."`
	Address string        `placeholder:"HOST:PORT" help:"Connect to this address instead. The certificate must still be valid for the host of the policy."`
	Chain   []string      `sep:"none" placeholder:"FILE" help:"Check the chain in this file (PEM): the server's certificate first. May be repeated."`
	Timeout time.Duration `default:"15s" placeholder:"TIME" help:"The time limit of a connection (${default})."`
}

func (f *chainFlags) check() error {
	if f.Address != "" {
		f.Connect = true
	}
	if f.Timeout <= 0 {
		return errors.New("--timeout must be positive")
	}
	if !f.Connect && len(f.Chain) == 0 {
		return errors.New("want the chain of a server: --connect, or --chain with a file")
	}
	return nil
}

// A chainResult is the chain of a stream, or the error of getting it.
type chainResult struct {
	stream *policy.StreamType
	source string
	host   string
	chain  []*x509.Certificate
	err    error
}

// tlsTarget returns the server of a stream.
func tlsTarget(st *policy.StreamType) (*policy.Target, error) {
	e, err := policy.NewEndpoint(st, make([]policy.Use, len(st.Metadata)))
	if err != nil {
		return nil, err
	}
	if strings.Contains(st.Endpoint, "${") {
		return nil, fmt.Errorf("the endpoint %q holds metadata: say where to connect with --address", st.Endpoint)
	}
	t, err := e.Resolve(make([]policy.Value, len(st.Metadata)))
	switch {
	case err != nil:
		return nil, err
	case t.Network != "tcp" || !t.TLS:
		return nil, errors.New("the stream does not use TLS over TCP")
	}
	return t, nil
}

// results returns the chains of streams, from files or from their servers.
func (f *chainFlags) results(p *program, streams []*policy.StreamType) (all []chainResult, err error) {
	for _, st := range streams {
		t, err := tlsTarget(st)
		host := ""
		if t != nil {
			host = t.Host
		}
		for _, file := range f.Chain {
			chain, err := p.readCerts(file)
			if err != nil {
				return nil, err
			}
			all = append(all, chainResult{st, displayName(file), host, chain, nil})
		}
		if !f.Connect {
			continue
		}
		s := chainResult{stream: st, host: host, err: err}
		if f.Address != "" {
			s.source, s.err = f.Address, nil
			if s.host == "" {
				s.host, _, _ = net.SplitHostPort(f.Address)
			}
		} else if t != nil {
			s.source = t.Address()
		}
		if s.err == nil {
			s.chain, s.err = f.fetch(st, s.source, s.host)
		}
		all = append(all, s)
	}
	return all, nil
}

// fetch connects like a stream, including through its SOCKS5 proxy.
func (f *chainFlags) fetch(st *policy.StreamType, address, host string) ([]*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(context.Background(), f.Timeout)
	defer cancel()
	dial := (&net.Dialer{}).DialContext
	var protos []string
	if st != nil {
		if st.Protocol == policy.ProtocolH2 {
			protos = []string{"h2", "http/1.1"}
		}
		if through := st.SOCKS5Proxy; through != "" {
			d, err := proxy.SOCKS5("tcp", through, nil, &net.Dialer{})
			if err != nil {
				return nil, err
			}
			dial = d.(proxy.ContextDialer).DialContext
		}
	}
	return certs.Fetch(ctx, dial, address, host, protos)
}

// readCerts reads a file with certificates.
func (p *program) readCerts(file string) ([]*x509.Certificate, error) {
	text, err := p.read(file)
	if err != nil {
		return nil, fileError(file, err)
	}
	all, err := certs.Read(text)
	if err != nil {
		return nil, &exitError{exitFindings, fmt.Errorf("%s: %w", displayName(file), err)}
	}
	return all, nil
}

// storeCerts returns the certificates of a trust store.
func storeCerts(store *policy.TrustStore) (all []*x509.Certificate, named map[string]*x509.Certificate) {
	named = map[string]*x509.Certificate{}
	if store == nil {
		return nil, named
	}
	for _, c := range store.Stack {
		if x, err := x509.ParseCertificate([]byte(c.DER)); err == nil {
			all = append(all, x)
			named[c.Name] = x
		}
	}
	return all, named
}

type certsCheckCmd struct {
	Stream []string `sep:"none" complete:"streamtypes" placeholder:"NAME" help:"Only this streamtype. May be repeated. The default is all clients that use TLS."`
	chainFlags
	dayFlag
	textOrJSON
	File string `arg:"" name:"policy" help:"The policy."`
}

// Validate checks the command line.
func (c *certsCheckCmd) Validate() error {
	switch {
	case len(c.Chain) > 0 && len(c.Stream) != 1:
		return errors.New("--chain is for one stream: name it with --stream")
	case c.Address != "" && len(c.Stream) != 1:
		return errors.New("--address is for one stream: name it with --stream")
	}
	return errors.Join(c.check(), c.dayFlag.Validate())
}

// A checkRow is the JSON form of an answer.
type checkRow struct {
	Stream  string   `json:"stream"`
	Server  string   `json:"server"`
	Store   string   `json:"trustStore"`
	OK      bool     `json:"ok"`
	Path    []string `json:"path,omitempty"`
	Problem string   `json:"problem,omitempty"`
	Missing string   `json:"missingIssuer,omitempty"`
	Advice  string   `json:"advice,omitempty"`
	Notes   []string `json:"notes,omitempty"`
}

// Run executes the command.
func (c *certsCheckCmd) Run(p *program) error {
	d, compiled, err := p.compileAssembled(c.File, nil, "", lint.Options{}, schema.Error)
	if err != nil {
		return err
	}
	streams, err := clients(compiled, c.Stream)
	if err != nil {
		return err
	}
	all, err := c.results(p, streams)
	if err != nil {
		return err
	}
	others := certs.List(schema.NewPolicy(d))
	rows := []checkRow{}
	failed, unreachable := false, false
	for _, s := range all {
		row := c.row(s, others)
		rows = append(rows, row)
		failed = failed || !row.OK
		unreachable = unreachable || s.err != nil
	}
	write := func(w io.Writer) error { return printChecks(w, rows) }
	if c.Format == "json" {
		write = func(w io.Writer) error { return report.Encode(w, map[string]any{"version": 1, "checks": rows}) }
	}
	if err := p.output("", write); err != nil {
		return err
	}
	switch {
	case unreachable:
		return &exitError{code: exitFailed}
	case failed:
		return errFindings
	}
	return nil
}

// clients returns the streamtypes with these names, or all clients that use TLS.
func clients(compiled *policy.Policy, names []string) (all []*policy.StreamType, err error) {
	for _, name := range names {
		st := compiled.StreamType(name)
		switch {
		case st == nil:
			return nil, unknownStreamType(compiled, name)
		case st.Server:
			return nil, usage("streamtype %q is a server: its clients check its certificate", name)
		case !st.TLS:
			return nil, usage("streamtype %q does not use TLS", name)
		}
		all = append(all, st)
	}
	if len(names) > 0 {
		return all, nil
	}
	for _, st := range compiled.StreamTypes {
		if st.TLS && !st.Server && !st.LocalSink {
			all = append(all, st)
		}
	}
	if len(all) == 0 {
		return nil, usage("no client of the policy uses TLS")
	}
	return all, nil
}

func (c *certsCheckCmd) row(s chainResult, entries []*certs.Entry) checkRow {
	row := checkRow{Stream: s.stream.Name, Server: s.source, Store: "the operating system"}
	if s.stream.TrustStore != nil {
		row.Store = s.stream.TrustStore.Name
	}
	if s.err != nil {
		row.Problem = "no chain: " + plain(s.err)
		return row
	}
	store, named := storeCerts(s.stream.TrustStore)
	others := map[string]*x509.Certificate{}
	for _, e := range entries {
		if e.Cert != nil && named[e.Name] == nil {
			others[e.Name] = e.Cert
		}
	}
	a := certs.Check(certs.Question{Chain: s.chain, Host: s.host, At: c.time(), Store: store, System: s.stream.TrustStore == nil, Others: others})
	row.OK, row.Problem, row.Missing, row.Advice, row.Notes = a.OK, a.Problem, a.Missing, a.Advice, a.Notes
	for _, x := range a.Path {
		row.Path = append(row.Path, x.Subject.String())
	}
	return row
}

func printChecks(w io.Writer, rows []checkRow) error {
	var b strings.Builder
	for _, r := range rows {
		verdict := "ok"
		if !r.OK {
			verdict = "FAIL"
		}
		fmt.Fprintf(&b, "%s  %s: %s, trusting %s\n", verdict, visible(r.Stream), visible(cmp.Or(r.Server, "no server")), visible(r.Store))
		for i, name := range r.Path {
			fmt.Fprintf(&b, "    %s%s\n", strings.Repeat("  ", i), visible(name))
		}
		for _, line := range append([]string{r.Problem, r.Advice}, r.Notes...) {
			if line != "" {
				fmt.Fprintf(&b, "    %s\n", visible(line))
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

type certsImportCmd struct {
	Store   string   `placeholder:"NAME" help:"Also add the certificates to this trust store, which is created if necessary."`
	Name    string   `placeholder:"NAME" help:"The name of the certificate in the policy. The default is its common name in lower case."`
	Replace bool     `help:"Replace a certificate of the same name."`
	Output  string   `short:"o" placeholder:"OUT" help:"Write to this file instead of the policy."`
	File    string   `arg:"" name:"policy" help:"The policy, which is changed in place."`
	Certs   []string `arg:"" name:"file" help:"The certificates, in PEM or DER."`
}

// Help returns the description for "sspolicy certs import --help".
func (certsImportCmd) Help() string {
	return "Comments and layout of the policy stay. A policy that would have errors is not written. The policy - is standard input, and the result goes to standard output."
}

// Run executes the command.
func (c *certsImportCmd) Run(p *program) error {
	d, err := p.document(c.File)
	if err != nil {
		return err
	}
	var all []certs.NamedCert
	for _, file := range c.Certs {
		if file == "-" && c.File == "-" {
			return usage("standard input is the policy")
		}
		list, err := p.readCerts(file)
		if err != nil {
			return err
		}
		for _, cert := range list {
			all = append(all, certs.NamedCert{Name: cmp.Or(c.Name, certs.NameFor(cert)), Cert: cert})
		}
	}
	if c.Name != "" && len(all) > 1 {
		return usage("--name is for one certificate, and there are %d", len(all))
	}
	if err := p.refuse(d); err != nil {
		return err
	}
	changed, names, fresh, err := certs.Import(d, all, certs.ImportOptions{Store: c.Store, Replace: c.Replace})
	if err != nil {
		return &exitError{exitFindings, err}
	}
	if err := p.change(c.Output, c.File, d, changed); err != nil {
		return err
	}
	for i, n := range all {
		if slices.Contains(fresh, names[i]) {
			fmt.Fprintf(p.stderr, "imported %s: %s, SHA-256 %s\n", visible(names[i]), visible(n.Cert.Subject.String()), certs.Fingerprint(n.Cert))
		} else {
			fmt.Fprintf(p.stderr, "%s: the policy has it already\n", visible(names[i]))
		}
	}
	if c.Store != "" {
		fmt.Fprintf(p.stderr, "trust store %s: %s\n", visible(c.Store), visible(strings.Join(certs.Stack(changed, c.Store), ", ")))
	}
	return nil
}

// refuse reports the errors of a text that is not a policy.
func (p *program) refuse(d *schema.Document) error {
	found := slices.Clone(d.Syntax)
	if g := d.NotPolicy(); g != nil {
		found = append(found, *g)
	}
	if !schema.HasErrors(found) {
		return nil
	}
	return errors.Join(report.Write(p.stderr, report.FormatText, found), errFindings)
}

// change writes a changed policy, unless it has new errors.
func (p *program) change(output, file string, before, after *schema.Document) error {
	if err := p.refuse(after); err != nil {
		return err
	}
	if found := schema.Validate(after); schema.HasErrors(found) && !schema.HasErrors(schema.Validate(before)) {
		return errors.Join(report.Write(p.stderr, report.FormatText, found), errFindings)
	}
	if output == "" {
		output = file
	}
	if output == file && file != "-" && before.Source.Text == after.Source.Text {
		return nil
	}
	return p.output(output, write(after.Source.Text))
}

type certsMinimizeCmd struct {
	Stream []string `sep:"none" complete:"streamtypes" placeholder:"NAME" help:"Only the chains of this streamtype. May be repeated. The default is all that use the store."`
	Store  string   `required:"" placeholder:"NAME" help:"The trust store."`
	chainFlags
	Write  bool   `help:"Change the policy: remove the other certificates from the store, and unused ones from the policy."`
	Output string `short:"o" placeholder:"OUT" help:"Write the changed policy to this file."`
	File   string `arg:"" name:"policy" help:"The policy."`
}

// Help returns the description for "sspolicy certs minimize --help".
func (certsMinimizeCmd) Help() string {
	return "A server may show another chain tomorrow: keep the roots that its operator names. Without --write or --output it prints the certificates that could be removed."
}

// Validate checks the command line.
func (c *certsMinimizeCmd) Validate() error { return c.check() }

// Run executes the command.
func (c *certsMinimizeCmd) Run(p *program) error {
	d, compiled, err := p.compile(c.File, nil, "", lint.Options{}, schema.Error)
	if err != nil {
		return err
	}
	var using []*policy.StreamType
	streams, err := clients(compiled, c.Stream)
	if err != nil {
		return err
	}
	for _, st := range streams {
		if st.TrustStore != nil && st.TrustStore.Name == c.Store {
			using = append(using, st)
		}
	}
	if len(using) == 0 {
		return usage("no such streamtype uses a trust store %q", c.Store)
	}
	if len(c.Chain) > 0 && !c.Connect {
		using = using[:1] // the chains are the same for all
	}
	all, err := c.results(p, using)
	if err != nil {
		return err
	}
	var questions []certs.Question
	for _, s := range all {
		if s.err != nil {
			return fmt.Errorf("%s: %s: %w", s.stream.Name, s.source, s.err)
		}
		host := s.host
		if len(c.Chain) > 0 {
			host = ""
		}
		questions = append(questions, certs.Question{Chain: s.chain, Host: host, At: time.Now()})
	}
	stack := using[0].TrustStore.Stack
	store, _ := storeCerts(using[0].TrustStore)
	if len(store) != len(stack) {
		return &exitError{exitFindings, fmt.Errorf("trust store %q holds what is not a certificate", c.Store)}
	}
	minimal, err := certs.Minimize(store, questions)
	if err != nil {
		return &exitError{exitFindings, err}
	}
	var keep []string
	size := 0
	for i, cert := range stack {
		if slices.Contains(minimal, i) {
			keep = append(keep, cert.Name)
			fmt.Fprintf(p.stderr, "keep %s: %s\n", visible(cert.Name), visible(store[i].Subject.String()))
		} else {
			size += len(cert.DER)
			fmt.Fprintf(p.stderr, "drop %s: %s\n", visible(cert.Name), visible(store[i].Subject.String()))
		}
	}
	fmt.Fprintf(p.stderr, "%d of %d certificates verify %d chains; %d bytes of DER less\n", len(keep), len(stack), len(questions), size)
	if !c.Write && c.Output == "" {
		return nil
	}
	changed, removed := certs.Keep(d, c.Store, keep)
	if err := p.change(c.Output, c.File, d, changed); err != nil {
		return err
	}
	if len(removed) > 0 {
		fmt.Fprintf(p.stderr, "removed from the policy: %s\n", visible(strings.Join(removed, ", ")))
	}
	return nil
}

type certsFetchCmd struct {
	Stream  string        `complete:"streamtypes" placeholder:"NAME" help:"The argument is a policy, and the server that of this streamtype."`
	Name    string        `placeholder:"HOST" help:"The server name to request, if it differs from the address."`
	Timeout time.Duration `default:"15s" placeholder:"TIME" help:"The time limit of the connection (${default})."`
	Output  string        `short:"o" placeholder:"OUT" help:"Write to this file instead of standard output."`
	Server  string        `arg:"" name:"server" help:"HOST, HOST:PORT, or with --stream a policy."`
}

// Help returns the description for "sspolicy certs fetch --help".
func (certsFetchCmd) Help() string {
	return "Fetching does not verify: the chain may be an attacker's. Compare fingerprints with those that the operator of the server or of the authority publishes before you trust one."
}

// Run executes the command.
func (c *certsFetchCmd) Run(p *program) error {
	f := chainFlags{Timeout: c.Timeout, Connect: true}
	if err := f.check(); err != nil {
		return usage("%v", err)
	}
	address, st := c.Server, (*policy.StreamType)(nil)
	if c.Stream != "" {
		_, compiled, err := p.compileAssembled(c.Server, nil, c.Stream, lint.Options{}, schema.Error)
		if err != nil {
			return err
		}
		if st = compiled.StreamType(c.Stream); st == nil {
			return unknownStreamType(compiled, c.Stream)
		}
		t, err := tlsTarget(st)
		if err != nil {
			return usage("streamtype %q: %v", c.Stream, err)
		}
		address = t.Address()
	} else if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(strings.Trim(address, "[]"), "443")
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return usage("%v", err)
	}
	chain, err := f.fetch(st, address, cmp.Or(c.Name, host))
	if err != nil {
		return fmt.Errorf("%s: %w", address, err)
	}
	var b bytes.Buffer
	for i, cert := range chain {
		fmt.Fprintf(&b, "# %d: %s\n#    issued by %s\n#    %s, ends %s\n#    SHA-256 %s\n", i, visible(cert.Subject.String()), visible(cert.Issuer.String()),
			certs.Key(cert), cert.NotAfter.UTC().Format(time.DateOnly), certs.Fingerprint(cert))
		if err := pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}); err != nil {
			return err
		}
	}
	if err := p.put(c.Output, b.Bytes()); err != nil {
		return err
	}
	fmt.Fprintf(p.stderr, "sspolicy: nothing of this was verified: compare the fingerprints before you trust it\n")
	return nil
}
