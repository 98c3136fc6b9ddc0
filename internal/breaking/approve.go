package breaking

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

// jsonVersion is the version of the JSON form.
const jsonVersion = 1

// A Report is the JSON form of breaking changes. It also serves as a list of
// approvals: the changes in it are approved.
type Report struct {
	Version int          `json:"version"`
	Changes []JSONChange `json:"changes"`
}

// A JSONChange is a breaking change, or the approval of one.
type JSONChange struct {
	Rule     string   `json:"rule"`
	Category Category `json:"category,omitempty"`
	Streams  []string `json:"streams,omitempty"` // none for the whole policy
	Text     string   `json:"text"`
	LWS      []string `json:"lws,omitempty"`
	Why      string   `json:"why,omitempty"`
	Old      *Place   `json:"old,omitempty"`
	New      *Place   `json:"new,omitempty"`
	Reason   string   `json:"reason,omitempty"` // of an approval, for people

	used bool
}

// A Place is a place in a file: lines and columns count from 1.
type Place struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
}

func newPlace(s schema.Span) *Place {
	if s.Source == nil {
		return nil
	}
	at := s.Position()
	return &Place{s.Source.Name, at.Line, at.Column}
}

// NewReport returns the JSON form of the breaking ones among changes.
func NewReport(changes []Change) Report {
	r := Report{Version: jsonVersion, Changes: []JSONChange{}}
	for _, c := range changes {
		if c.Rule == nil {
			continue
		}
		j := JSONChange{Rule: c.Rule.ID, Category: c.Rule.Category, Streams: c.Streams, Text: c.Text, Why: c.Rule.Why, Old: newPlace(c.Old), New: newPlace(c.New)}
		for _, v := range c.LWS {
			j.LWS = append(j.LWS, v.String())
		}
		r.Changes = append(r.Changes, j)
	}
	return r
}

// ParseApprovals parses the JSON form of a Report. Its errors begin with the
// position in the text, which they refer to by name.
func ParseApprovals(name string, text []byte) (*Report, error) {
	source := &schema.Source{Name: name, Text: string(text)}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var r Report
	err := d.Decode(&r)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("text after the approvals")
		}
	}
	if err != nil {
		offset := int(d.InputOffset())
		if e, ok := errors.AsType[*json.SyntaxError](err); ok {
			offset = int(e.Offset) - 1
		} else if errors.Is(err, io.ErrUnexpectedEOF) {
			offset = len(text)
		} else if _, field, ok := strings.Cut(err.Error(), "unknown field "); ok {
			offset = strings.Index(source.Text, field)
		} else if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			offset, err = int(e.Offset)-1, fmt.Errorf("unexpected %s", e.Value)
		}
		return nil, fmt.Errorf("%v: %w: approvals have the form that --format json prints", schema.Span{Source: source, Start: offset, End: offset}, err)
	}
	if r.Version != jsonVersion {
		return nil, fmt.Errorf("%s: version %d, want %d", name, r.Version, jsonVersion)
	}
	for i, c := range r.Changes {
		if !slices.ContainsFunc(Rules(), func(r *Rule) bool { return r.ID == c.Rule }) {
			return nil, fmt.Errorf("%s: approval %d: unknown rule %q", name, i+1, c.Rule)
		}
	}
	return &r, nil
}

// Approve returns the changes that the report does not approve: those with another rule
// or text, and those of a streamtype or version that it does not name.
func (r *Report) Approve(changes []Change) []Change {
	return slices.DeleteFunc(slices.Clone(changes), func(c Change) bool {
		for i := range r.Changes {
			if a := &r.Changes[i]; a.approves(&c) {
				a.used = true
				return true
			}
		}
		return false
	})
}

func (a *JSONChange) approves(c *Change) bool {
	if c.Rule == nil || a.Rule != c.Rule.ID || a.Text != c.Text || (c.Streams == nil) != (len(a.Streams) == 0) {
		return false
	}
	for _, s := range c.Streams {
		if !slices.Contains(a.Streams, s) {
			return false
		}
	}
	for _, v := range c.LWS {
		if len(a.LWS) > 0 && !slices.Contains(a.LWS, v.String()) {
			return false
		}
	}
	return true
}

// Unused returns the number of approvals that approved nothing.
func (r *Report) Unused() (n int) {
	for _, c := range r.Changes {
		if !c.used {
			n++
		}
	}
	return n
}
