package storm

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// A Report shows one or more runs of the same scenario.
type Report struct {
	Runs   []*Result
	Search *Search // of the first run, or nil
}

// Text returns the report for a terminal with a number of columns.
func (r *Report) Text(columns int) string {
	var b strings.Builder
	b.WriteString(r.Chart().Text(columns, 8) + "\n")
	b.WriteString(r.table() + "\n")
	if r.Search != nil {
		b.WriteString(r.Search.Chart().Text(columns, 8) + "\n")
	}
	for _, run := range r.Runs {
		for _, line := range run.Remarks() {
			if len(r.Runs) > 1 {
				line = run.Client.Name + ": " + line
			}
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// table returns the numbers of the runs side by side.
func (r *Report) table() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(name string, value func(*Result) string) {
		fmt.Fprint(w, name)
		for _, run := range r.Runs {
			fmt.Fprint(w, "\t", value(run))
		}
		fmt.Fprintln(w)
	}
	s := r.Runs[0].Scenario
	if len(r.Runs) > 1 {
		row("", func(r *Result) string { return r.Client.Name })
	}
	row("peak", func(r *Result) string {
		return fmt.Sprintf("%s attempts in second %d", count(int64(r.Peak)), r.At)
	})
	if s.Outage > 0 {
		row("end of the outage", func(r *Result) string { return count(int64(r.Level+0.5)) + " attempts per second" })
	}
	since := "back after the outage"
	if s.Outage == 0 {
		since = "connected after the start"
	}
	row(since, func(r *Result) string {
		if r.Back.P50 == Never {
			return "never"
		}
		return fmt.Sprintf("50 %%: %s, 90 %%: %s, 99 %%: %s, max: %s", short(r.Back.P50), short(r.Back.P90), short(r.Back.P99), short(r.Back.Max))
	})
	row("attempts per device", func(r *Result) string {
		return fmt.Sprintf("50 %%: %d, 90 %%: %d, 99 %%: %d, max: %d", r.PerDevice.P50, r.PerDevice.P90, r.PerDevice.P99, r.PerDevice.Max)
	})
	row("total attempts", func(r *Result) string { return count(r.Total) })
	row("gave up", func(r *Result) string { return count(int64(r.GaveUp)) })
	row("not connected at the end", func(r *Result) string { return count(int64(r.Away)) })
	if r.any(func(r *Result) bool { return r.Unnoticed > 0 }) {
		row("did not notice the outage", func(r *Result) string { return count(int64(r.Unnoticed)) })
	}
	if r.any(func(r *Result) bool { return r.Scenario.Capacity > 0 }) {
		row("longest wait in the queue", func(r *Result) string { return short(r.Longest) })
		row("wasted handshakes", func(r *Result) string { return count(r.Wasted) })
		row("refused (queue full)", func(r *Result) string { return count(r.Refused) })
	}
	row("simulated", func(r *Result) string { return short(r.Elapsed) })
	w.Flush()
	var lines []string
	for line := range strings.Lines(b.String()) {
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	return strings.Join(lines, "\n") + "\n"
}

func (r *Report) any(is func(*Result) bool) bool {
	for _, run := range r.Runs {
		if is(run) {
			return true
		}
	}
	return false
}

// Remarks explain the numbers in words, and suggest improvements.
func (r *Result) Remarks() (lines []string) {
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	s, st := r.Scenario, r.Client.Stream
	if r.Client.FirstWait && st.Retry != nil && len(st.Retry.Backoff) > 1 {
		add("This lws keeps only the first wait, %v, of a policy in JSON; C tables have all %d.", span(st.Retry.Backoff[0]), len(st.Retry.Backoff))
	}
	if r.Collapsed {
		add("The fleet does not recover: the server makes handshakes for clients that have given up. Increase the capacity, shorten the queue (--max-wait), or lengthen the waits in the policy.")
	}
	if r.GaveUp > 0 {
		switch {
		case st.Retry == nil:
			add("%s devices gave up: the streamtype has no backoff scheme, so it does not retry until the program requests a connection (--every).", count(int64(r.GaveUp)))
		case st.Opportunistic:
			add("%s devices wait for their program: the streamtype is opportunistic, so it does not reconnect by itself (--every).", count(int64(r.GaveUp)))
		default:
			add("%s devices gave up: the policy retries only %d failures in a row (conceal). They stay away until the program requests a connection (--every); with conceal 65535 they never give up.", count(int64(r.GaveUp)), st.Retry.Conceal)
		}
	}
	if r.Unnoticed > 0 {
		add("%s devices did not notice the outage: no validity check of the policy failed during it.", count(int64(r.Unnoticed)))
	}
	if b := r.Burst(); b.Ratio >= Synchronised {
		add("The devices are synchronised: %s into the outage the busiest second has %s attempts, %.1f times the mean of %s. More jitter would spread them.",
			span(s.Outage), count(int64(b.Peak)), b.Ratio, count(int64(b.Mean+0.5)))
	}
	return lines
}

// CSV returns the attempts and the connected devices of each second.
func (r *Report) CSV() string {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	head := []string{"second"}
	longest := 0
	for _, run := range r.Runs {
		name := ""
		if len(r.Runs) > 1 {
			name = " " + run.Client.Name
		}
		head = append(head, "attempts"+name, "connected"+name)
		longest = max(longest, len(run.Attempts))
	}
	_ = w.Write(head) // a Buffer does not fail
	for i := range longest {
		row := []string{strconv.Itoa(i)}
		for _, run := range r.Runs {
			if i < len(run.Attempts) {
				row = append(row, strconv.Itoa(run.Attempts[i]), strconv.Itoa(run.Connected[i]))
			} else {
				row = append(row, "", "") // the run has ended
			}
		}
		_ = w.Write(row)
	}
	w.Flush()
	return b.String()
}

// seconds is a time in JSON: seconds, or null for never.
type seconds time.Duration

func (s seconds) MarshalJSON() ([]byte, error) {
	if time.Duration(s) == Never {
		return []byte("null"), nil
	}
	return strconv.AppendFloat(nil, time.Duration(s).Seconds(), 'f', -1, 64), nil
}

type jsonQuantiles[T any] struct {
	P50 T `json:"p50"`
	P90 T `json:"p90"`
	P99 T `json:"p99"`
	Max T `json:"max"`
}

type jsonRun struct {
	Name      string                 `json:"name"`
	Stream    string                 `json:"stream"`
	FirstWait bool                   `json:"firstWaitOnly"`
	Timeout   seconds                `json:"timeout"`
	Peak      int                    `json:"peak"`
	PeakAt    int                    `json:"peakSecond"`
	Level     float64                `json:"lateInOutage"`
	Back      jsonQuantiles[seconds] `json:"back"`
	PerDevice jsonQuantiles[int]     `json:"attemptsOfDevice"`
	Total     int64                  `json:"attemptsInAll"`
	GaveUp    int                    `json:"gaveUp"`
	Away      int                    `json:"notConnected"`
	Unnoticed int                    `json:"unnoticed"`
	Longest   seconds                `json:"longestQueueWait"`
	Wasted    int64                  `json:"wastedHandshakes"`
	Refused   int64                  `json:"refused"`
	Collapsed bool                   `json:"collapsed"`
	Burst     float64                `json:"burst"`
	Elapsed   seconds                `json:"simulated"`
	Remarks   []string               `json:"remarks"`
	Attempts  []int                  `json:"attempts"`
	Connected []int                  `json:"connected"`
}

type jsonShare struct {
	Capacity  float64 `json:"capacity"`
	Connected float64 `json:"connected"`
}

type jsonSearch struct {
	Capacity float64     `json:"capacity"`
	Outage   []jsonShare `json:"afterOutage"`
	Calm     []jsonShare `json:"withoutOutage"`
}

type jsonScenario struct {
	Devices     int     `json:"devices"`
	Seed        uint64  `json:"seed"`
	Boot        seconds `json:"boot"`
	From        seconds `json:"from"`
	Outage      seconds `json:"outage"`
	For         seconds `json:"for"`
	Kind        string  `json:"kind"`
	RetryAfter  seconds `json:"retryAfter"`
	Notice      seconds `json:"notice"`
	Every       seconds `json:"every"`
	ClockSpread seconds `json:"clockSpread"`
	ClockError  float64 `json:"clockError"`
	Churn       seconds `json:"churn"`
	RTT         seconds `json:"rtt"`
	Capacity    float64 `json:"capacity"`
	MaxWait     seconds `json:"maxWait"`
}

// MarshalJSON writes the report; times are seconds, and null is never.
func (r *Report) MarshalJSON() ([]byte, error) {
	s := r.Runs[0].Scenario
	out := struct {
		Version  int          `json:"version"`
		Scenario jsonScenario `json:"scenario"`
		Runs     []jsonRun    `json:"runs"`
		Search   *jsonSearch  `json:"search,omitempty"`
	}{Version: 1, Scenario: jsonScenario{
		s.Devices, s.Seed, seconds(s.Boot), seconds(s.From), seconds(s.Outage), seconds(s.end()), s.Kind.String(), seconds(s.RetryAfter),
		seconds(s.Notice), seconds(s.Every), seconds(s.ClockSpread), s.ClockError, seconds(s.Churn), seconds(s.rtt()), s.Capacity, seconds(s.MaxWait),
	}}
	for _, x := range r.Runs {
		remarks := x.Remarks()
		if remarks == nil {
			remarks = []string{}
		}
		b := x.Back
		out.Runs = append(out.Runs, jsonRun{
			x.Client.Name, x.Client.Stream.Name, x.Client.FirstWait, seconds(x.Client.timeout()), x.Peak, x.At, x.Level,
			jsonQuantiles[seconds]{seconds(b.P50), seconds(b.P90), seconds(b.P99), seconds(b.Max)}, jsonQuantiles[int](x.PerDevice),
			x.Total, x.GaveUp, x.Away, x.Unnoticed, seconds(x.Longest), x.Wasted, x.Refused, x.Collapsed, x.Burst().Ratio,
			seconds(x.Elapsed), remarks, x.Attempts, x.Connected,
		})
	}
	if r.Search != nil {
		out.Search = &jsonSearch{Capacity: r.Search.Capacity, Outage: shares(r.Search.Outage), Calm: shares(r.Search.Calm)}
	}
	return json.Marshal(out)
}

func shares(list []Share) (all []jsonShare) {
	for _, s := range list {
		all = append(all, jsonShare(s))
	}
	return all
}
