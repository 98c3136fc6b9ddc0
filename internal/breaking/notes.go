package breaking

import (
	"fmt"
	"io"
	"strings"
)

// headings are the titles of the lists in notes, by category; "" is for changes that
// break nothing.
var headings = []struct {
	category Category
	title    string
}{
	{API, "Breaks programs"}, {Wire, "Breaks peers"}, {Trust, "Changes whom devices trust"}, {Timing, "Changes when devices connect and give up"},
	{Error, "Could not be compared"}, {"", "Other changes"},
}

// A Group is the changes of a category, in their order.
type Group struct {
	Category Category // "" for changes that break nothing
	Title    string
	Changes  []Change
}

// Groups returns changes by category. Groups without changes are left out.
func Groups(changes []Change) (groups []Group) {
	for _, h := range headings {
		g := Group{Category: h.category, Title: h.title}
		for _, c := range changes {
			if c.category() == h.category {
				g.Changes = append(g.Changes, c)
			}
		}
		if g.Changes != nil {
			groups = append(groups, g)
		}
	}
	return groups
}

// WriteNotes writes changes as lists in Markdown.
func WriteNotes(w io.Writer, changes []Change) error {
	if len(changes) == 0 {
		_, err := fmt.Fprintln(w, "No changes.")
		return err
	}
	var lists []string
	for _, g := range Groups(changes) {
		var b strings.Builder
		fmt.Fprintf(&b, "## %s\n\n", g.Title)
		for _, c := range g.Changes {
			fmt.Fprintf(&b, "- %s\n", markdown(c.String()))
		}
		lists = append(lists, b.String())
	}
	_, err := io.WriteString(w, strings.Join(lists, "\n"))
	return err
}

func (c *Change) category() Category {
	if c.Rule == nil {
		return ""
	}
	return c.Rule.Category
}

// markdown escapes text for Markdown. Texts quote names, so they contain no control
// characters.
var markdown = strings.NewReplacer(`\`, `\\`, "`", "\\`", "*", `\*`, "<", "&lt;", "[", `\[`).Replace
