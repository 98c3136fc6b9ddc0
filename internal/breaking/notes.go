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
	{API, "Breaks programs"}, {Wire, "Breaks peers"}, {Trust, "Changes whom devices trust"}, {Timing, "Changes when devices connect and give up"}, {"", "Other changes"},
}

// WriteNotes writes changes as lists in Markdown.
func WriteNotes(w io.Writer, changes []Change) error {
	if len(changes) == 0 {
		_, err := fmt.Fprintln(w, "No changes.")
		return err
	}
	var lists []string
	for _, h := range headings {
		list := ""
		for _, c := range changes {
			if c.category() == h.category {
				list += "- " + markdown(c.String()) + "\n"
			}
		}
		if list != "" {
			lists = append(lists, "## "+h.title+"\n\n"+list)
		}
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

// markdown escapes what Markdown would not show as it is. Texts quote names, so they
// hold no control characters.
var markdown = strings.NewReplacer(`\`, `\\`, "`", "\\`", "*", `\*`, "<", "&lt;", "[", `\[`).Replace
