package main

import (
	"slices"
	"testing"

	"github.com/secure-streams/sspolicy/lint"
)

func TestParserRules(t *testing.T) {
	for _, name := range parserRules {
		if !slices.ContainsFunc(lint.Rules(), func(r *lint.Rule) bool { return r.Name == name }) {
			t.Errorf("there is no rule %s", name)
		}
	}
	if !slices.IsSorted(parserRules) {
		t.Error("the rules are not sorted")
	}
}

func TestMakeName(t *testing.T) {
	for name, want := range map[string]string{
		"a.json": "a.json", "a b": `a\ b`, "$x": "$$x", "#": `\#`, "C:/x": `C\:/x`, `a\ b`: `a\\\ b`, "ä%": "ä%",
	} {
		if got := makeName(name); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
}
