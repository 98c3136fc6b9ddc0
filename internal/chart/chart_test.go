package chart

import (
	"encoding/xml"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the expected charts")

// examples are the charts of the tests.
func examples() map[string]*Chart {
	storm := Series{Name: "policy.json"}
	other := Series{Name: "other.json"}
	for i := range 1200 {
		x := float64(i)
		y := 1800.0
		switch {
		case i < 3:
			y = 20000 / float64(i+1)
		case i > 900:
			y = 0
		}
		storm.Points = append(storm.Points, Point{x, y})
		other.Points = append(other.Points, Point{x, 17400 * math.Exp(-x/400)})
	}
	one := &Chart{
		Title: "Connection attempts per second", Note: "20,000 devices",
		X: Axis{Unit: Seconds}, Y: Axis{Label: "attempts per second"},
		Series: []Series{storm}, Bands: []Band{{0, 600, "outage"}},
	}
	two := *one
	two.Series = []Series{storm, other}
	narrow := two
	narrow.Width, narrow.Height = 390, 300
	return map[string]*Chart{
		"one": one, "two": &two, "narrow": &narrow, "empty": {},
		"gap": {Title: "a & <b>", X: Axis{Label: "capacity"}, Y: Axis{Unit: Seconds, Max: 100}, Series: []Series{{"s", []Point{
			{0, 10}, {1, 20}, {2, math.Inf(1)}, {3, math.NaN()}, {4, 150}, {10, 30}}}}},
	}
}

func TestGolden(t *testing.T) {
	for name, c := range examples() {
		for file, got := range map[string]string{name + ".svg": c.SVG(), name + ".txt": c.Text(76, 8)} {
			file = filepath.Join("testdata", file)
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("%s (-want +got; -update rewrites it)\n%s", file, d)
			}
		}
	}
}

// checkSVG checks that a text is well-formed and refers to nothing outside of it.
func checkSVG(t *testing.T, text string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		_, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%v in %s", err, text)
		}
	}
	outside := regexp.MustCompile(`(?i)https?://|url\(|@import|<script|href`)
	if m := outside.FindString(strings.Replace(text, `xmlns="http://www.w3.org/2000/svg"`, "", 1)); m != "" {
		t.Errorf("refers to the outside: %s", m)
	}
	if strings.Contains(text, "NaN") || strings.Contains(text, "Inf") {
		t.Errorf("a number that is none: %s", text)
	}
}

func TestSVG(t *testing.T) {
	for _, c := range examples() {
		checkSVG(t, c.SVG())
	}
}

func TestManyPoints(t *testing.T) {
	var s Series
	for i := range 1_000_000 {
		s.Points = append(s.Points, Point{float64(i), 1})
	}
	s.Points[777_777].Y = 1000
	c := &Chart{Series: []Series{s}}
	text := c.SVG()
	if len(text) > 100_000 {
		t.Errorf("%d bytes", len(text))
	}
	d := &drawing{chart: c, width: 800, height: 360}
	d.draw()
	if highest := " " + regexp.MustCompile(`\.$`).ReplaceAllString(strings.TrimSpace(formatPixel(d.top)), ""); !strings.Contains(text, highest) {
		t.Errorf("the peak at y =%s is not drawn", highest)
	}
	if !strings.ContainsRune(c.Text(80, 8), '█') {
		t.Error("the peak is not in the text")
	}
}

func formatPixel(v float64) string {
	var d drawing
	d.printf("%.1f", v)
	return d.String()
}

func TestFormat(t *testing.T) {
	for _, x := range []struct {
		unit Unit
		v    float64
		want string
	}{
		{Number, 0, "0"}, {Number, 7, "7"}, {Number, 0.25, "0.25"}, {Number, 999, "999"}, {Number, 1000, "1k"}, {Number, 17400, "17.4k"},
		{Number, 999_999, "1M"}, {Number, 2.5e6, "2.5M"}, {Number, -1500, "-1.5k"}, {Number, 3e12, "3T"},
		{Seconds, 0, "0"}, {Seconds, 0.25, "250ms"}, {Seconds, 1.5, "1.5s"}, {Seconds, 90, "1m30s"}, {Seconds, 3600, "1h"}, {Seconds, 90000, "1d1h"}, {Seconds, -5, "-5s"},
	} {
		if got := x.unit.Format(x.v); got != x.want {
			t.Errorf("%v: got %s, want %s", x.v, got, x.want)
		}
	}
}

// FuzzChart checks that any chart is drawn, as well-formed SVG and with lines of the
// requested width.
func FuzzChart(f *testing.F) {
	f.Add("a", 0.0, 1.0, 2.0, 3.0, 40, 5, true)
	f.Add("\x1b[2J<&", math.Inf(1), math.NaN(), 1e300, -1e300, 0, 0, false)
	f.Add("", 1e-300, 1e-300, 5.0, 5.0, 500, 40, true)
	f.Fuzz(func(t *testing.T, name string, x0, y0, x1, y1 float64, columns, rows int, seconds bool) {
		const limit = 1e15
		for _, v := range []float64{x0, y0, x1, y1} {
			if math.Abs(v) > limit && !math.IsInf(v, 0) {
				t.Skip()
			}
		}
		if columns > 500 || rows > 100 {
			t.Skip()
		}
		c := &Chart{Title: name, Series: []Series{{name, []Point{{x0, y0}, {x1, y1}}}, {Name: name}}, Bands: []Band{{0, 1, name}}}
		if seconds {
			c.X.Unit, c.Y.Unit = Seconds, Seconds
		}
		checkSVG(t, c.SVG())
		text := c.Text(columns, rows)
		if !utf8.ValidString(text) || strings.ContainsRune(text, '\x1b') {
			t.Errorf("%q", text)
		}
	})
}
