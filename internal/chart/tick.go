package chart

import (
	"math"
	"strconv"
	"time"
)

// steps are the possible distances of ticks on an axis in seconds, from one second
// up.
var steps = []float64{1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 2 * 3600, 3 * 3600, 6 * 3600, 12 * 3600, 24 * 3600}

// ticks returns about n round values in a span.
func (u Unit) ticks(s span, n int) (values []float64) {
	step := u.step((s.max - s.min) / float64(max(n, 1)))
	for i := math.Ceil(s.min/step - 1e-9); i*step <= s.max+step*1e-9; i++ {
		values = append(values, i*step)
	}
	return values
}

// step returns the smallest round distance that is at least least.
func (u Unit) step(least float64) float64 {
	if u == Seconds && least > 0.5 {
		for _, s := range steps {
			if s >= least {
				return s
			}
		}
		day := steps[len(steps)-1]
		return Number.step(least/day) * day
	}
	power := math.Pow(10, math.Floor(math.Log10(least)))
	for _, f := range []float64{1, 2, 5} {
		if f*power >= least*(1-1e-9) {
			return f * power
		}
	}
	return 10 * power
}

// Format returns a value in a short form: 17400 as 17.4k, 90 seconds as 1m30s.
func (u Unit) Format(v float64) string {
	if u == Seconds {
		return seconds(v)
	}
	for _, p := range []struct {
		size float64
		name string
	}{{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if math.Abs(v) >= p.size*0.9995 {
			return digits(v/p.size) + p.name
		}
	}
	return digits(v)
}

// digits returns three significant digits, and all digits of an integer.
func digits(v float64) string {
	if math.Abs(v) >= 100 {
		v = math.Round(v)
	}
	if v == 0 {
		return "0"
	}
	return strconv.FormatFloat(round(v, 3), 'f', -1, 64)
}

// round rounds to a number of significant digits.
func round(v float64, n int) float64 {
	p := math.Pow(10, float64(n-1)-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*p) / p
}

func seconds(v float64) string {
	d := time.Duration(math.Round(v*1000)) * time.Millisecond
	switch {
	case d == 0:
		return "0"
	case d < 0:
		return "-" + seconds(-v)
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + "ms"
	case d < time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s"
	}
	var text string
	for _, p := range []struct {
		size time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if n := d / p.size; n > 0 {
			text += strconv.FormatInt(int64(n), 10) + p.name
		}
		d %= p.size
	}
	return text
}
