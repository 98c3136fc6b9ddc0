package storm

import (
	"fmt"
	"time"

	"github.com/secure-streams/sspolicy/internal/chart"
)

// Chart returns the attempts per second of the runs.
func (r *Report) Chart() *chart.Chart {
	s := r.Runs[0].Scenario
	c := &chart.Chart{
		Title: "Connection attempts per second",
		Note:  r.subject(),
		X:     chart.Axis{Unit: chart.Seconds},
		Y:     chart.Axis{Label: "attempts per second"},
	}
	if s.Outage > 0 {
		c.Bands = []chart.Band{{From: s.From.Seconds(), To: (s.From + s.Outage).Seconds(), Label: "outage"}}
	}
	longest := 0
	for _, run := range r.Runs {
		longest = max(longest, len(run.Attempts))
	}
	for _, run := range r.Runs {
		series := chart.Series{Name: run.Client.Name}
		for i, n := range run.Attempts {
			series.Points = append(series.Points, chart.Point{X: float64(i), Y: float64(n)})
		}
		if n := len(run.Attempts); n < longest && !run.Collapsed {
			series.Points = append(series.Points, chart.Point{X: float64(n), Y: 0}, chart.Point{X: float64(longest), Y: 0})
		}
		c.Series = append(c.Series, series)
	}
	return c
}

// Chart returns the share of the fleet that is connected at the end, by capacity.
func (s *Search) Chart() *chart.Chart {
	c := &chart.Chart{
		Title: "Connected at the end, by capacity",
		Note:  fmt.Sprintf("The smallest capacity that recovers is %s handshakes per second.", count(int64(s.Capacity))),
		X:     chart.Axis{Label: "handshakes per second"},
		Y:     chart.Axis{Label: "percent of the devices", Max: 100},
	}
	for _, line := range []struct {
		name   string
		shares []Share
	}{{"after the outage", s.Outage}, {"without an outage", s.Calm}} {
		series := chart.Series{Name: line.name}
		for _, p := range line.shares {
			series.Points = append(series.Points, chart.Point{X: p.Capacity, Y: 100 * p.Connected})
		}
		c.Series = append(c.Series, series)
	}
	return c
}

// subject describes the runs in one line.
func (r *Report) subject() string {
	s := r.Runs[0].Scenario
	text := fmt.Sprintf("%s devices", count(int64(s.Devices)))
	if s.Boot > 0 {
		text += fmt.Sprintf(" that boot within %s", span(s.Boot))
	}
	if s.Outage > 0 {
		text += fmt.Sprintf(", outage (%v) of %s", s.Kind, span(s.Outage))
		if s.From > 0 {
			text += fmt.Sprintf(" from %s on", span(s.From))
		}
	}
	capacity := s.Capacity
	if r.Search != nil {
		capacity = r.Search.Capacity
	}
	if capacity > 0 {
		text += fmt.Sprintf(", %s handshakes per second", count(int64(capacity)))
		if s.MaxWait > 0 {
			text += fmt.Sprintf(" and a queue of %s", span(s.MaxWait))
		}
	}
	return text
}

// count writes a number with commas.
func count(n int64) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// short formats a time: 1m28.6s, or never.
func short(d time.Duration) string {
	if d == Never {
		return "never"
	}
	return span(d.Round(100 * time.Millisecond))
}

// span writes a duration: 10m.
func span(d time.Duration) string { return chart.Seconds.Format(d.Seconds()) }
