package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/secure-streams/sspolicy"
	"github.com/secure-streams/sspolicy/internal/config"
	"github.com/secure-streams/sspolicy/internal/extract"
	"github.com/secure-streams/sspolicy/internal/project"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

type validateCmd struct {
	checkFlags `embed:"" set:"fail_level=error"`
}

// Help returns the description for "sspolicy validate --help".
func (validateCmd) Help() string {
	return "Checks syntax, keys, types and ranges, by the JSON Schema. Reports warnings, and fails on errors."
}

// Run executes the command.
func (c *validateCmd) Run(p *program) error {
	targets, err := c.targets(p)
	if err != nil {
		return err
	}
	return c.check(p, targets, "error", func(t target) ([]schema.Diagnostic, error) {
		d, err := p.document(t.file)
		if err != nil {
			return nil, err
		}
		fragment := project.FragmentOf(d, t.config) != nil
		return lint.Run(d, rules.All(), lint.Options{LWS: c.versions(t.config), Shape: true, Fragment: fragment, With: t.config.With, Rules: t.config.OwnRules(), Filter: t.config.Apply}), nil
	})
}

type lintCmd struct {
	checkFlags    `embed:"" set:"fail_level=warning"`
	With          []string  `complete:"groups" placeholder:"GROUP" help:"Check the opt-in rules of these groups too: ${groups}."`
	CertWarn      *int      `placeholder:"DAYS" help:"Report certificates that expire within this number of days (30)."`
	At            time.Time `format:"2006-01-02" placeholder:"DATE" help:"The day on which certificates must be valid, as 2006-01-02, for a result that does not change with time (today)."`
	Baseline      string    `xor:"baseline" placeholder:"FILE" help:"Do not report the findings that this file lists."`
	WriteBaseline string    `xor:"baseline" placeholder:"FILE" help:"Write all findings to this file instead of reporting them."`
	Overlay       []string  `sep:"none" xor:"fragment" placeholder:"FRAGMENT" help:"Check the policies with this fragment applied. May be repeated."`
	Fragment      bool      `xor:"fragment" help:"The files are fragments for overlays: check each by itself."`
	Watch         bool      `help:"Check again whenever a file changes, until interrupted (Ctrl-C)."`
	fixFlags
	extractFlags

	watch *watch          // nil without --watch
	names map[string]bool // names in the files that --define may define
}

// Help returns the description for "sspolicy lint --help".
func (lintCmd) Help() string {
	return "Checks what validate checks, and the meaning of policies: order, references, trust and more. Fails on warnings and errors. A comment on the line of a finding or the line above suppresses it: # sspolicy:ignore RULE -- REASON. Policies in string literals of C and in templates such as policy.json.in are checked too, by name and in folders; C that sspolicy wrote is skipped in folders."
}

// Validate checks the flags.
func (c *lintCmd) Validate() error {
	if c.CertWarn != nil && (*c.CertWarn < 0 || *c.CertWarn > 36500) {
		return fmt.Errorf("--cert-warn must be a number of days from 0 to 36500, not %d", *c.CertWarn)
	}
	for _, g := range c.With {
		if !slices.Contains(rules.Groups(), g) {
			return fmt.Errorf("--with: unknown group %q: want one of %s", g, strings.Join(rules.Groups(), ", "))
		}
	}
	if (c.Fix || c.UnsafeFixes) && slices.Contains(c.Files, "-") && !c.extractOptions().Plain("-") {
		return errors.New("--fix -: standard input must be a policy, without --template or --define")
	}
	if c.Watch && (c.Fix || c.UnsafeFixes || c.WriteBaseline != "" || slices.Contains(c.Files, "-")) {
		return errors.New("--watch reports on files: it cannot be used with --fix, --unsafe-fixes, --write-baseline or standard input")
	}
	if len(c.Overlay) > 0 && (c.Fix || c.UnsafeFixes) {
		return errors.New("--overlay cannot be used with --fix: fix the policy and the fragments separately")
	}
	return c.fixFlags.Validate()
}

// Run executes the command.
func (c *lintCmd) Run(p *program) error {
	c.extracted = &c.extractFlags
	if c.Watch {
		return c.repeat(p)
	}
	return c.once(p)
}

// hasRelease reports whether a policy has a release. Fragments usually have none.
func hasRelease(d *schema.Document) bool {
	return slices.ContainsFunc(schema.NewPolicy(d).Settings, func(s *schema.Setting) bool { return s.Key != nil && s.Key.Name == "release" })
}

// once checks the files once.
func (c *lintCmd) once(p *program) error {
	targets, err := c.targets(p)
	if err != nil {
		return err
	}
	c.names = map[string]bool{}
	var known *baseline
	if c.Baseline != "" {
		if known, err = p.readBaseline(c.Baseline); err != nil {
			return err
		}
	}
	fragments, err := p.documents(c.Overlay)
	if err != nil {
		return err
	}
	options := func(cfg *config.Config) lint.Options {
		return c.options(cfg, func(found []schema.Diagnostic) []schema.Diagnostic { return known.apply(cfg.Apply(found)) })
	}
	if c.Fix {
		if p, err = c.fix(p, targets, options); err != nil || c.Diff {
			return err
		}
	}
	var partial []string // files that have errors as policies, but none as fragments
	run := func(t target) ([]schema.Diagnostic, error) {
		o := options(t.config)
		policies, found, err := c.run(p, t, fragments, o)
		if len(policies) == 1 && slices.ContainsFunc(found, isBuiltInError) && !c.Fragment && fragments == nil && project.FragmentOf(policies[0].Document, t.config) == nil && !hasRelease(policies[0].Document) {
			if o.Fragment = true; !schema.HasErrors(lint.Run(policies[0].Document, rules.All(), o)) {
				partial = append(partial, displayName(t.file))
			}
		}
		return found, err
	}
	if c.WriteBaseline != "" {
		return c.writeBaseline(p, targets, run)
	}
	err = c.check(p, targets, "warning", run)
	for _, name := range partial {
		if c.Quiet {
			break
		}
		fmt.Fprintf(p.stderr, "sspolicy: %s: if it is a fragment, name its policy in \"fragments\" of .sspolicy.json, or use --overlay or --fragment\n", harmless(name))
	}
	c.reportUnused(p)
	if n := known.stale(targets); n > 0 {
		fmt.Fprintf(p.stderr, "sspolicy: %s: findings that are gone: %d; run again with --write-baseline %[1]s instead of --baseline\n", c.Baseline, n)
	}
	return err
}

// isBuiltInError reports whether a finding is an error by a rule of sspolicy. A
// project's own rules are not checked in fragments.
func isBuiltInError(d schema.Diagnostic) bool {
	return d.Severity == schema.Error && rules.Lookup(d.Rule) != nil
}

// run returns the policies in a file, and their findings.
func (c *lintCmd) run(p *program, t target, fragments []*schema.Document, o lint.Options) ([]*extract.Policy, []schema.Diagnostic, error) {
	text, err := p.read(t.file)
	if err != nil {
		return nil, nil, fileError(t.file, err)
	}
	if len(c.Define) > 0 {
		extract.Names(t.file, text, c.names)
	}
	if f, ok := c.watch.known(t.file, text); ok {
		return f.policies, f.found, nil
	}
	policies, err := c.policies(t.file, text)
	if err != nil {
		return nil, nil, err
	}
	filter := o.Filter
	o.Filter = nil // positions must be those in the file
	var all []schema.Diagnostic
	for _, policy := range policies {
		c.watch.follow(project.FragmentOf(policy.Document, t.config))
		o.Shape = policy.Partial
		found, err := c.findings(p, t, policy.Document, fragments, o)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, policy.Place(found)...)
	}
	if !c.extractOptions().Plain(displayName(t.file)) {
		all = lint.Suppress(policies[0].Source(), all, rules.All(), o)
	}
	found := filter(schema.SortDiagnostics(all))
	if len(fragments) == 0 && c.Baseline == "" {
		c.watch.add(t, checkedFile{string(text), policies, found})
	}
	return policies, found, nil
}

// findings returns the findings of a policy with fragments applied, or of a
// fragment.
func (c *lintCmd) findings(p *program, t target, d *schema.Document, fragments []*schema.Document, o lint.Options) ([]schema.Diagnostic, error) {
	if c.Fragment {
		o.Fragment = true
		return lint.Run(d, rules.All(), o), nil
	}
	if len(fragments) > 0 && project.FragmentOf(d, t.config) == nil {
		return sspolicy.Overlay(d, fragments, overlay.Options{}, o).Diagnostics, nil
	}
	return project.Lint(d, t.config, readBase, o)
}

// options returns the options for checking a policy with this configuration.
func (c *lintCmd) options(cfg *config.Config, filter func([]schema.Diagnostic) []schema.Diagnostic) lint.Options {
	o := project.Options(cfg)
	o.LWS, o.At, o.With, o.Filter = c.versions(cfg), c.At, slices.Concat(c.With, cfg.With), filter
	if c.CertWarn != nil {
		o.CertWarn = time.Duration(*c.CertWarn) * project.Day
	}
	return o
}

// writeBaseline writes all findings as a baseline.
func (c *lintCmd) writeBaseline(p *program, targets []target, run checker) error {
	b := newBaseline(c.WriteBaseline)
	for _, t := range targets {
		if identity(t.file) == identity(c.WriteBaseline) {
			return usage("--write-baseline: %s is a policy", c.WriteBaseline)
		}
		found, err := run(t)
		if err != nil {
			return err
		}
		b.add(found)
	}
	return p.output(c.WriteBaseline, b.write)
}
