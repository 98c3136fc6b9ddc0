package overview

import (
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/secure-streams/sspolicy/internal/breaking"
	"github.com/secure-streams/sspolicy/internal/chart"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A curve is the waits of a backoff scheme.
type curve struct {
	Name    string
	Text    string // when it gives up
	Streams string
	Chart   template.HTML
}

// mostRetries is the maximum number of retries in a curve.
const mostRetries = 12

func (d *policyData) curves(p *policy.Policy) {
	users := map[*policy.Retry][]string{}
	var order []*policy.Retry
	for _, st := range p.StreamTypes {
		if r := st.Retry; r != nil && !st.Server {
			if users[r] == nil {
				order = append(order, r)
			}
			users[r] = append(users[r], st.Name)
		}
	}
	for _, r := range order {
		d.Curves = append(d.Curves, newCurve(r, users[r]))
	}
}

func newCurve(r *policy.Retry, streams []string) curve {
	schedule := breaking.NewSchedule(r)
	c := curve{Name: r.Name, Text: "Gives up " + schedule.String() + ".", Streams: list(streams, 3)}
	shown := min(mostRetries, max(3, len(r.Backoff)+2))
	if schedule.Retries >= 0 {
		shown = min(shown, schedule.Retries)
	} else {
		c.Text = "Never gives up."
	}
	if shown == 0 {
		return c
	}
	shortest, longest := chart.Series{Name: "shortest"}, chart.Series{Name: "longest, with jitter"}
	first := chart.Series{Name: "lws 4.4 to 5.0, from JSON"}
	for k := range shown {
		x := float64(k + 1)
		low, high := r.Delay(uint16(k), 0), r.Delay(uint16(k), math.MaxUint16)
		shortest.Points = append(shortest.Points, chart.Point{X: x, Y: low.Seconds()})
		longest.Points = append(longest.Points, chart.Point{X: x, Y: high.Seconds()})
		first.Points = append(first.Points, chart.Point{X: x, Y: r.Delay(0, 0).Seconds()})
	}
	series := []chart.Series{shortest, longest}
	if len(r.Backoff) > 1 && slices.ContainsFunc(r.Backoff, func(d time.Duration) bool { return d != r.Backoff[0] }) {
		series = append(series, first)
	}
	c.Chart = template.HTML((&chart.Chart{ // which escapes names
		X: chart.Axis{Label: "retry"}, Y: chart.Axis{Label: "wait before it", Unit: chart.Seconds},
		Series: series, Width: 360, Height: 250,
	}).SVG())
	return c
}

// list joins names, up to a maximum number.
func list(names []string, most int) string {
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
