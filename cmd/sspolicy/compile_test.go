package main

import "testing"

func TestMakeName(t *testing.T) {
	for name, want := range map[string]string{
		"a.json": "a.json", "a b": `a\ b`, "$x": "$$x", "#": `\#`, "C:/x": `C\:/x`, `a\ b`: `a\\\ b`, "ä%": "ä%",
	} {
		if got := makeName(name); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
}
