package sspctrace

import "testing"

func TestLinks(t *testing.T) {
	links, err := Links()
	if err != nil {
		t.Fatal(err)
	}
	steps, partial := 0, 0
	for _, l := range links {
		for _, s := range l.Steps {
			if len(s.Bytes) == 0 {
				t.Errorf("%s: an empty step", l.Name())
			}
			steps++
			if s.Partial {
				partial++
			}
		}
	}
	if len(links) < 150 || steps < 1000 || partial > 20 {
		t.Errorf("%d links, %d steps, %d partial", len(links), steps, partial)
	}
}
