package lsp

import (
	"context"
	"fmt"

	"github.com/secure-streams/sspolicy/schema"
)

// The commands of lenses. The client implements them, and lists those that it supports in
// its initialization options.
const (
	// commandRun runs a stream. Its arguments are the URI of the policy and the name of
	// the streamtype.
	commandRun = "sspolicy.run"

	// commandOverlays shows locations. Its arguments are the URI and the position of the
	// streamtype, and its locations in fragments.
	commandOverlays = "sspolicy.overlays"
)

// codeLenses returns lenses that run a streamtype, and that show it in the fragments that
// change it. A fragment runs with its base.
func (s *server) codeLenses(_ context.Context, snap *snapshot, _ documentParams) (any, error) {
	list := []codeLens{}
	run, show := s.has(commandRun), s.has(commandOverlays)
	if f := snap.fragment(); f != nil {
		run, show = run && f.Base != "", false
	}
	var others []*relative
	if show {
		others = s.relatives(snap)[1:]
	}
	for _, d := range snap.scan().policy.Section(schema.Streams) {
		r := snap.span(d.NameSpan)
		if run {
			list = append(list, codeLens{r, command{"Run", commandRun, []any{snap.uri, d.Name}}})
		}
		places := []location{}
		for _, other := range others {
			for _, u := range other.uses(name{section: schema.Streams, text: d.Name}) {
				if u.defines {
					places = append(places, u.location())
				}
			}
		}
		switch {
		case len(places) == 1:
			list = append(list, codeLens{r, command{"1 overlay", commandOverlays, []any{snap.uri, r.Start, places}}})
		case len(places) > 1:
			list = append(list, codeLens{r, command{fmt.Sprintf("%d overlays", len(places)), commandOverlays, []any{snap.uri, r.Start, places}}})
		}
	}
	return list, nil
}
