// Package overview writes HTML pages about policies that need no external
// resources.
package overview

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/secure-streams/sspolicy/codegen"
	"github.com/secure-streams/sspolicy/internal/breaking"
	"github.com/secure-streams/sspolicy/internal/graph"
	"github.com/secure-streams/sspolicy/internal/report"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

// A Subject is a policy to write about.
type Subject struct {
	Document    *schema.Document
	Diagnostics []schema.Diagnostic

	// Base is the name of the policy that Changes lead from, or "".
	Base    string
	Changes []breaking.Change
}

// Options configure a page.
type Options struct {
	Version string    // of sspolicy
	At      time.Time // the day for which certificates are shown
}

//go:embed page.html
var pageText string

//go:embed page.css
var styleSheet string

//go:embed page.js
var script string

var page = template.Must(template.New("page").Parse(pageText))

// Write writes a page about policies, valid or not.
func Write(w io.Writer, subjects []Subject, o Options) error {
	hash := sha256.Sum256([]byte(script))
	data := pageData{
		Version: o.Version, Date: o.At.UTC().Format(time.DateOnly),
		Style: template.CSS(styleSheet), Script: template.JS(script),
		// The page loads nothing, and runs only its own script.
		Rules: "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) + "'",
	}
	for i, s := range subjects {
		data.Policies = append(data.Policies, newPolicyData(fmt.Sprintf("p%d", i+1), s, o))
	}
	data.Title = "Secure Streams policies"
	if len(subjects) == 1 {
		data.Title = "Policy " + subjects[0].Document.Source.Name
	}
	return page.Execute(w, data)
}

type pageData struct {
	Title, Version, Date string
	Rules                string
	Style                template.CSS
	Script               template.JS
	Policies             []*policyData
}

// A policyData is what the page shows of a policy.
type policyData struct {
	ID, Name string
	About    string // product and release
	Facts    []fact
	Findings findings // errors and warnings
	Infos    findings
	Base     string
	Changes  []changeList

	Streams   []stream
	Graph     template.HTML
	Certs     []cert
	Axis      axis
	Curves    []curve
	Footprint *footprint
}

// A fact is a number at the top of the page.
type fact struct {
	Value, Name string
	Class       string // "bad", "warn" or ""
}

func newPolicyData(id string, s Subject, o Options) *policyData {
	p := schema.NewPolicy(s.Document)
	compiled, problems := codegen.Compile(p)
	g := graph.New(p)
	d := &policyData{ID: id, Name: s.Document.Source.Name, Base: s.Base, Graph: template.HTML(g.SVG())} // which escapes names
	for _, key := range []string{"product", "release"} {
		for _, set := range p.Settings {
			if set.Key != nil && set.Key.Name == key {
				d.About = strings.TrimSpace(d.About + " " + set.Member.Value.Text())
			}
		}
	}
	d.Findings = newFindings(s.Diagnostics, schema.Warning, schema.Error)
	d.Infos = newFindings(s.Diagnostics, schema.Info, schema.Info)
	d.changes(s.Changes)
	d.certs(p, o.At)
	d.curves(compiled)
	valid := !schema.HasErrors(problems)
	bytes := d.footprint(compiled, valid, s.Document)
	d.streams(p, g, bytes)
	d.facts(s.Diagnostics)
	return d
}

// facts sets the numbers at the top.
func (d *policyData) facts(found []schema.Diagnostic) {
	endpoints, count := map[string]bool{}, map[schema.Severity]int{}
	for _, s := range d.Streams {
		endpoints[s.Endpoint] = true
	}
	for _, f := range found {
		count[f.Severity]++
	}
	class := func(n int, name string) string {
		if n == 0 {
			return ""
		}
		return name
	}
	d.Facts = append(d.Facts,
		fact{fmt.Sprint(len(d.Streams)), "streamtypes", ""},
		fact{fmt.Sprint(len(endpoints)), "endpoints", ""},
		fact{fmt.Sprint(count[schema.Error]), "errors", class(count[schema.Error], "bad")},
		fact{fmt.Sprint(count[schema.Warning]), "warnings", class(count[schema.Warning], "warn")},
	)
	if d.Base != "" {
		n := 0
		for _, l := range d.Changes {
			if l.Breaks {
				n += len(l.Changes)
			}
		}
		d.Facts = append(d.Facts, fact{fmt.Sprint(n), "breaking changes", class(n, "bad")})
	}
	for _, c := range d.Certs { // the first one to end is the first
		if !c.end.IsZero() {
			d.Facts = append(d.Facts, fact{c.Until, "first certificate ends", c.Class})
			break
		}
	}
	if d.Footprint != nil && d.Footprint.Latest != "" {
		d.Facts = append(d.Facts, fact{d.Footprint.Latest, "bytes of tables on arm", ""})
	}
}

// findings are diagnostics.
type findings struct {
	List   []finding
	Hidden int // how many more there are
}

// A finding is a diagnostic.
type finding struct {
	Severity, Place, Message, Rule string
	Excerpt                        report.Excerpt
	Notes                          []note
	Fixes                          []string
}

// A note is another place of a finding.
type note struct {
	Place, Message string
	Excerpt        report.Excerpt
}

// The limits of the page. A page about a larger policy would be unreadable.
const (
	mostFindings = 300
	mostNotes    = 5
)

// newFindings returns the diagnostics of the given severities, the worst first.
func newFindings(all []schema.Diagnostic, from, to schema.Severity) (list findings) {
	for severity := to; ; severity-- {
		for _, d := range all {
			if d.Severity != severity {
				continue
			}
			if len(list.List) == mostFindings {
				list.Hidden++
				continue
			}
			list.List = append(list.List, newFinding(d))
		}
		if severity == from {
			return list
		}
	}
}

func newFinding(d schema.Diagnostic) finding {
	f := finding{Severity: d.Severity.String(), Place: d.Span.String(), Message: d.Message, Rule: d.Rule, Excerpt: report.NewExcerpt(d.Span)}
	for _, r := range d.Related[:min(len(d.Related), mostNotes)] {
		f.Notes = append(f.Notes, note{r.Span.String(), r.Message, report.NewExcerpt(r.Span)})
	}
	for _, fix := range d.Fixes {
		f.Fixes = append(f.Fixes, fix.Message)
	}
	return f
}

// A changeList is the changes from the base with one title.
type changeList struct {
	Title   string
	Breaks  bool
	Changes []change
}

type change struct{ Text, Place, Rule, Why string }

func (d *policyData) changes(all []breaking.Change) {
	for _, group := range breaking.Groups(all) {
		l := changeList{Title: group.Title, Breaks: group.Category != ""}
		explained := map[*breaking.Rule]bool{}
		for _, c := range group.Changes {
			x := change{Text: c.String()}
			if c.Rule != nil {
				x.Rule = c.Rule.ID
				if !explained[c.Rule] {
					explained[c.Rule] = true
					x.Why = c.Rule.Why
				}
			}
			if at := cmp.Or(c.New, c.Old); at.Source != nil {
				x.Place = at.String()
			}
			l.Changes = append(l.Changes, x)
		}
		d.Changes = append(d.Changes, l)
	}
}

// A stream is a row of the table of streamtypes.
type stream struct {
	Name, Protocol, Endpoint, Trust, Retry, Auth, Request, Metadata string
	Insecure                                                        bool
	Bytes                                                           int // 0 if unknown
}

func (d *policyData) streams(p *schema.Policy, g *graph.Graph, bytes map[string]int) {
	endpoints := map[schema.Span]string{} // by the place of the streamtype
	for _, group := range g.Groups {
		for _, n := range group.Nodes {
			endpoints[n.Span] = group.Name
		}
	}
	for _, def := range p.Section(schema.Streams) {
		s := stream{
			Name: def.Name, Protocol: cmp.Or(def.Protocol(), def.Text("protocol")), Endpoint: endpoints[def.NameSpan],
			Retry: def.Text("retry"), Auth: def.Text("use_auth"), Bytes: bytes[def.Name],
		}
		server, tls := def.Bool("server"), def.Bool("tls")
		switch {
		case server && tls:
			s.Trust = "server: " + cmp.Or(def.Text("server_cert"), "no certificate")
		case tls:
			s.Trust = cmp.Or(def.Text("tls_trust_store"), "system roots")
		default:
			s.Trust, s.Insecure = "no TLS", !def.Bool("local_sink") && !strings.HasPrefix(s.Endpoint, "+") && !strings.HasPrefix(s.Endpoint, "file:")
		}
		if server {
			s.Protocol += " server"
		}
		var request []string
		for _, key := range []string{"http_method", "http_url", "mqtt_topic", "mqtt_subscribe"} {
			if text := def.Text(key); text != "" {
				if key == "mqtt_subscribe" {
					text = "← " + text
				}
				request = append(request, text)
			}
		}
		s.Request = strings.Join(request, " ")
		var items []string
		for _, set := range def.Settings {
			if set.Key == nil || set.Key.Name != "metadata" {
				continue
			}
			for _, e := range set.Member.Value.Elems() {
				for _, m := range e.Value.Members() {
					items = append(items, m.Key)
				}
			}
		}
		s.Metadata = strings.Join(items, ", ")
		d.Streams = append(d.Streams, s)
	}
}

// A cert is a row of the timeline.
type cert struct {
	Name, Subject, Issuer, Key, Until, Left string
	Used                                    string
	Class                                   string  // "bad" if it has ended, "warn" if it ends soon
	Start, Width                            float64 // of the bar, in percent; Width is 0 for what is not a certificate
	begin, end                              time.Time
}

// An axis is the time that the bars are drawn over.
type axis struct {
	From, To string
	Now      float64 // in percent
}

// soon is how long before its expiry a certificate is marked.
const soon = 90 * 24 * time.Hour

func (d *policyData) certs(p *schema.Policy, at time.Time) {
	users := map[*schema.Definition][]string{}
	for _, r := range p.References {
		if r.Key.Ref == schema.Certs && r.Target != nil && !slices.Contains(users[r.Target], r.From.Name) {
			users[r.Target] = append(users[r.Target], r.From.Name)
		}
	}
	for _, def := range p.Section(schema.Certs) {
		c := cert{Name: def.Name, Used: strings.Join(users[def], ", ")}
		der, err := schema.DecodeCert(def.Value.Text())
		x, notCert := x509.ParseCertificate(der)
		switch {
		case err != nil:
			c.Subject, c.Class = "unreadable: "+err.Error(), "bad"
		case notCert != nil:
			c.Subject = "not a certificate: a private key, or a form that is not supported"
		default:
			c.Subject, c.Issuer, c.Key = x.Subject.String(), x.Issuer.String(), keyText(x)
			if c.Issuer == c.Subject {
				c.Issuer = "itself"
			}
			c.begin, c.end = x.NotBefore, x.NotAfter
			c.Until = c.end.UTC().Format(time.DateOnly)
			switch left := c.end.Sub(at); {
			case left < 0:
				c.Left, c.Class = "has ended", "bad"
			case left < soon:
				c.Left, c.Class = fmt.Sprintf("%d days left", int(left.Hours()/24)), "warn"
			case at.Before(c.begin):
				c.Left, c.Class = "not valid yet", "warn"
			default:
				c.Left = fmt.Sprintf("%.1f years left", left.Hours()/24/365.25)
			}
		}
		d.Certs = append(d.Certs, c)
	}
	slices.SortStableFunc(d.Certs, func(a, b cert) int {
		if a.end.IsZero() != b.end.IsZero() {
			return cmp.Compare(b.end.Unix(), a.end.Unix()) // entries other than certificates come last
		}
		return a.end.Compare(b.end)
	})
	d.bars(at)
}

// bars sets the positions of the bars. The axis reaches at most ten years back and
// thirty ahead, since a certificate may be valid until the year 9999.
func (d *policyData) bars(at time.Time) {
	from, to := at, at
	for _, c := range d.Certs {
		if c.end.IsZero() {
			continue
		}
		if c.begin.Before(from) {
			from = c.begin
		}
		if c.end.After(to) {
			to = c.end
		}
	}
	if first := at.AddDate(-10, 0, 0); from.Before(first) {
		from = first
	}
	if last := at.AddDate(30, 0, 0); to.After(last) {
		to = last
	}
	percent := func(t time.Time) float64 {
		return min(100, max(0, 100*float64(t.Unix()-from.Unix())/float64(max(1, to.Unix()-from.Unix()))))
	}
	for i := range d.Certs {
		if c := &d.Certs[i]; !c.end.IsZero() {
			c.Start = percent(c.begin)
			c.Width = max(1, percent(c.end)-c.Start)
			c.Start = min(c.Start, 100-c.Width)
		}
	}
	d.Axis = axis{from.UTC().Format("2006"), to.UTC().Format("2006"), percent(at)}
}

// keyText describes the key of a certificate.
func keyText(x *x509.Certificate) string {
	switch k := x.PublicKey.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Curve.Params().Name
	}
	return x.PublicKeyAlgorithm.String()
}

// A footprint is the sizes of the C tables.
type footprint struct {
	ABIs   []string
	Rows   []footprintRow // none if the policy has errors
	Latest string         // on the first ABI, for the newest version
	Source int            // bytes of the JSON
	Packed int
}

type footprintRow struct {
	Version string
	Bytes   []int
	Problem string
}

// shownABIs are the architectures in the table.
var shownABIs = []string{"arm", "riscv32", "xtensa", "aarch64", "x86-64"}

// footprint sets the sizes, and returns those of streamtypes on the first architecture
// for the newest version: the bytes that no other streamtype needs.
func (d *policyData) footprint(p *policy.Policy, valid bool, doc *schema.Document) map[string]int {
	own := map[string]int{}
	d.Footprint = &footprint{ABIs: shownABIs, Source: len(doc.Source.Text)}
	if packed, err := schema.Pack(doc); err == nil {
		d.Footprint.Packed = len(packed)
	}
	if !valid {
		return own
	}
	for _, v := range schema.Versions {
		row := footprintRow{Version: v.String()}
		list, err := codegen.CFootprint(p, codegen.COptions{Target: codegen.Target(v)})
		if err != nil {
			row.Problem, _, _ = strings.Cut(err.Error(), "\n")
		}
		for _, abi := range shownABIs {
			for _, f := range list {
				if f.ABI != abi {
					continue
				}
				row.Bytes = append(row.Bytes, f.Os.Total)
				if abi == shownABIs[0] && v == schema.Latest() {
					d.Footprint.Latest = fmt.Sprint(f.Os.Total)
					for _, s := range f.StreamTypes {
						own[s.Name] = s.Own
					}
				}
			}
		}
		d.Footprint.Rows = append(d.Footprint.Rows, row)
	}
	return own
}
