package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/secure-streams/sspolicy/internal/breaking"
	"github.com/secure-streams/sspolicy/internal/config"
	"github.com/secure-streams/sspolicy/internal/project"
	"github.com/secure-streams/sspolicy/internal/report"
	"github.com/secure-streams/sspolicy/schema"
)

type breakingCmd struct {
	LWS      []schema.Version `name:"lws" complete:"versions" placeholder:"VERSION" help:"The lws versions of the devices, 4.1 to 5.0: compare the policies as each version reads them. By default the texts are compared."`
	Against  string           `placeholder:"git:REV:PATH" help:"Compare with this file of the git repository, in place of OLD: git:HEAD~1:policy.json."`
	Approved string           `placeholder:"FILE" help:"Do not report the changes in this file, which --format json wrote."`
	Format   string           `enum:"text,json" default:"text" help:"text (the default), or json."`
	colorFlag
	Files []string `arg:"" name:"policy" help:"The old policy, and the new one; with --against the new one alone."`
}

// Help returns the description for "sspolicy breaking --help".
func (breakingCmd) Help() string {
	return "Reports the changes that break programs (API), peers (WIRE), trust (TRUST) and the times that devices keep (TIMING), and changes of values that have an error in one of the policies (ERROR). Comments, layout, order, and names of schemes, trust stores and certificates do not count. Fails if there is one, or if the new policy has a syntax error."
}

// Validate checks the command line.
func (c *breakingCmd) Validate() error {
	want := 2
	if c.Against != "" {
		want = 1
		if err := checkRevision(c.Against); err != nil {
			return fmt.Errorf("--against: %w", err)
		}
	}
	if len(c.Files) != want {
		return fmt.Errorf("want the old and the new policy, or --against and the new one")
	}
	return nil
}

// Run executes the command.
func (c *breakingCmd) Run(p *program) error {
	if c.Against != "" {
		c.Files = append([]string{c.Against}, c.Files...)
	}
	changes, valid, err := p.changes(c.Files[0], c.Files[1], breaking.Options{LWS: c.LWS})
	if err != nil {
		return err
	}
	if c.Approved != "" {
		if changes, err = p.approve(c.Approved, changes); err != nil {
			return err
		}
	}
	list := breaking.NewReport(changes)
	if c.Format == "json" {
		err = report.Encode(p.stdout, list)
	} else {
		err = c.text(p, changes)
	}
	if err == nil && (len(list.Changes) > 0 || !valid) {
		err = errFindings
	}
	return err
}

// text writes the breaking changes as text.
func (c *breakingCmd) text(p *program, changes []breaking.Change) error {
	explained := map[*breaking.Rule]bool{}
	n := 0
	for _, ch := range changes {
		if ch.Rule == nil {
			continue
		}
		n++
		d := schema.Diagnostic{Rule: string(ch.Rule.Category) + " " + ch.Rule.ID, Severity: schema.Error, Span: ch.New, Message: ch.String()}
		if ch.LWS != nil {
			var versions []string
			for _, v := range ch.LWS {
				versions = append(versions, v.String())
			}
			d.Message += " (lws " + strings.Join(versions, ", ") + ")"
		}
		switch {
		case ch.New.Source == nil:
			d.Span = ch.Old
		case ch.Old.Source != nil:
			d.Related = []schema.Related{{Span: ch.Old, Message: "before"}}
		}
		o := report.Output{Format: report.FormatText, Color: c.color(p.stdout)}
		if err := o.Write(p.stdout, &report.Report{Diagnostics: []schema.Diagnostic{d}}); err != nil {
			return err
		}
		if !explained[ch.Rule] {
			explained[ch.Rule] = true
			if _, err := fmt.Fprintf(p.stdout, "  why: %s\n", ch.Rule.Why); err != nil {
				return err
			}
		}
	}
	if n > 0 {
		fmt.Fprintf(p.stderr, "breaking changes: %d\n", n)
	}
	return nil
}

// changes compares two policies. Either may be git:REV:PATH. A fragment in a file stands
// for its base with the fragment applied. valid reports whether the new policy has no
// syntax errors; changes reports those of both.
func (p *program) changes(old, new string, o breaking.Options) (changes []breaking.Change, valid bool, err error) {
	var docs [2]*schema.Document
	for i, file := range []string{old, new} {
		d, err := p.revision(file)
		if err != nil {
			return nil, false, err
		}
		valid = !schema.HasErrors(d.Syntax)
		if docs[i], err = p.readableText(d); err != nil {
			return nil, false, err
		}
	}
	for i, d := range docs {
		c, err := p.nearest(d)
		if err != nil {
			return nil, false, err
		}
		if docs[i], err = p.comparable(d, c, old, new); err != nil {
			return nil, false, err
		}
	}
	return breaking.Compare(docs[0], docs[1], o), valid, nil
}

// comparable returns a policy unchanged, and for a fragment its base with the fragment
// applied. It refuses a fragment if a file to compare is a revision, whose base may be
// another.
func (p *program) comparable(d *schema.Document, c *config.Config, files ...string) (*schema.Document, error) {
	if project.FragmentOf(d, c) == nil {
		return d, nil
	}
	for _, file := range files {
		if strings.HasPrefix(file, gitPrefix) {
			return nil, usage("%s is a fragment: compare fragments in files, not in revisions, whose base may be another", d.Source.Name)
		}
	}
	return p.applied(d, c)
}

// approve removes the changes that a file approves.
func (p *program) approve(file string, changes []breaking.Change) ([]breaking.Change, error) {
	text, err := p.read(file)
	if err != nil {
		return nil, fileError(file, err)
	}
	approved, err := breaking.ParseApprovals(displayName(file), text)
	if err != nil {
		return nil, usage("--approved: %w", err)
	}
	changes = approved.Approve(changes)
	if n := approved.Unused(); n > 0 {
		fmt.Fprintf(p.stderr, "sspolicy: %s: approvals of changes that are not there: %d\n", displayName(file), n)
	}
	return changes, nil
}

// gitPrefix begins the name of a file at a revision.
const gitPrefix = "git:"

// checkRevision checks the form of git:REV:PATH.
func checkRevision(name string) error {
	rest, ok := strings.CutPrefix(name, gitPrefix)
	rev, path, found := strings.Cut(rest, ":")
	if !ok || !found || rev == "" || path == "" || rev[0] == '-' {
		return fmt.Errorf("%q is not git:REV:PATH, such as git:HEAD~1:policy.json", name)
	}
	return nil
}

// revision reads a policy that may be git:REV:PATH. The path is relative to the root of
// the repository; "./" makes it relative to the working directory, as in git.
func (p *program) revision(file string) (*schema.Document, error) {
	if _, err := os.Stat(file); !strings.HasPrefix(file, gitPrefix) || err == nil {
		return p.document(file)
	}
	if err := checkRevision(file); err != nil {
		return nil, usage("%w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "git", "cat-file", "blob", strings.TrimPrefix(file, gitPrefix))
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	text, readErr := schema.ReadAll(out)
	if readErr != nil {
		cancel() // git may have more to write
	}
	err = cmd.Wait()
	if readErr != nil {
		return nil, fileError(file, readErr)
	}
	if err != nil {
		if text := strings.TrimSpace(stderr.String()); text != "" {
			err = errors.New(text)
		}
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return schema.Parse(file, text), nil
}

type diffCmd struct {
	LWS []schema.Version `name:"lws" complete:"versions" placeholder:"VERSION" help:"The lws versions of the devices, 4.1 to 5.0: compare the policies as each version reads them. By default the texts are compared."`
	Old string           `arg:"" help:"The old policy, or git:REV:PATH."`
	New string           `arg:"" help:"The new policy."`
}

// Help returns the description for "sspolicy diff --help".
func (diffCmd) Help() string {
	return "Prints all changes of meaning as lists in Markdown, for release notes: first those that breaking reports, by what they break. Comments, layout, order, and names of schemes, trust stores and certificates do not count. Fails if the new policy has a syntax error."
}

// Run executes the command.
func (c *diffCmd) Run(p *program) error {
	changes, valid, err := p.changes(c.Old, c.New, breaking.Options{LWS: c.LWS})
	if err != nil {
		return err
	}
	if err := breaking.WriteNotes(p.stdout, changes); err != nil {
		return err
	}
	if !valid {
		return errFindings
	}
	return nil
}
