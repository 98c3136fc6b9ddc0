package playground

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/secure-streams/sspolicy/internal/chart"
	"github.com/secure-streams/sspolicy/internal/storm"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A Picture is an SVG document.
type Picture struct {
	Title string `json:"title"`
	SVG   string `json:"svg"`
}

// maxSchemes is the maximum number of backoff schemes that are drawn.
const maxSchemes = 10

// retries draws the waits of each backoff scheme, and the attempts of a fleet that
// boots while its server is down.
func retries(in *input) (Response, error) {
	p, err := in.compile()
	if err != nil {
		return Response{}, err
	}
	users := map[*policy.Retry][]*policy.StreamType{}
	var list []*policy.Retry
	for _, st := range p.Policy.StreamTypes {
		if st.Retry == nil {
			continue
		}
		if users[st.Retry] == nil {
			list = append(list, st.Retry)
		}
		users[st.Retry] = append(users[st.Retry], st)
	}
	if list == nil {
		return Response{Text: "No streamtype has a backoff scheme, so nothing is retried."}, nil
	}
	var r Response
	if more := len(list) - maxSchemes; more > 0 {
		r.Text = fmt.Sprintf("The first %d backoff schemes; %d more are not drawn.", maxSchemes, more)
		list = list[:maxSchemes]
	}
	for _, retry := range list {
		fleet, err := fleetChart(users[retry][0])
		if err != nil {
			return Response{}, err
		}
		for _, c := range []*chart.Chart{retryChart(retry, users[retry]), fleet} {
			c.Width, c.Height = 640, 300
			r.Pictures = append(r.Pictures, Picture{strings.TrimSuffix(c.Title, ".") + ". " + c.Note, c.SVG()})
		}
	}
	return r, nil
}

// fleetChart draws the attempts of 1,000 devices that boot within 10 s, while their
// server is down for 5 minutes.
func fleetChart(st *policy.StreamType) (*chart.Chart, error) {
	run, err := storm.Run(storm.Client{Name: st.Name, Stream: st}, storm.Scenario{
		Devices: 1000, Seed: 1, Boot: 10 * time.Second, Outage: 5 * time.Minute, For: 10 * time.Minute,
	})
	if err != nil {
		return nil, err
	}
	c := (&storm.Report{Runs: []*storm.Result{run}}).Chart()
	c.Title = "1,000 devices of " + st.Name + " boot without their server: attempts per second"
	c.Note = fmt.Sprintf("%d attempts in all.", run.Total)
	return c, nil
}

// maxRetries is the maximum number of retries in a chart.
const maxRetries = 50

func retryChart(r *policy.Retry, users []*policy.StreamType) *chart.Chart {
	least, most := chart.Series{Name: "least"}, chart.Series{Name: "most, with jitter"}
	n := min(int(r.Conceal), max(len(r.Backoff)+3, 8), maxRetries)
	for i := range n {
		x := float64(i + 1)
		least.Points = append(least.Points, chart.Point{X: x, Y: r.Delay(uint16(i), 0).Seconds()})
		most.Points = append(most.Points, chart.Point{X: x, Y: r.Delay(uint16(i), math.MaxUint16).Seconds()})
	}
	return &chart.Chart{
		Title: fmt.Sprintf("Backoff scheme %s: the wait before each retry", r.Name), Note: outcome(r) + " Used by " + names(users) + ".",
		X: chart.Axis{Label: "retry", Max: float64(max(n, 1))}, Y: chart.Axis{Label: "wait", Unit: chart.Seconds},
		Series: []chart.Series{least, most},
	}
}

// outcome describes what follows when all attempts fail.
func outcome(r *policy.Retry) string {
	if r.Conceal == math.MaxUint16 {
		return "It retries for ever."
	}
	var least, most time.Duration
	for i := range r.Conceal {
		least += r.Delay(i, 0)
		most += r.Delay(i, math.MaxUint16)
	}
	retries := fmt.Sprintf("%d retries", r.Conceal)
	if r.Conceal == 1 {
		retries = "1 retry"
	}
	return fmt.Sprintf("It gives up after %s, which wait %v to %v in all.", retries, least.Round(time.Millisecond), most.Round(100*time.Millisecond))
}

// names joins the first names of a list.
func names(users []*policy.StreamType) string {
	const most = 4
	var list []string
	for _, st := range users {
		list = append(list, st.Name)
	}
	if more := len(list) - most; more > 0 {
		list = append(slices.Clone(list[:most]), fmt.Sprintf("%d more", more))
	}
	return strings.Join(list, ", ")
}
