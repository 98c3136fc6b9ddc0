package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// TestDocsGraph: docs/graph.svg is what the command draws.
func TestDocsGraph(t *testing.T) {
	const file = "../../docs/graph.svg"
	var got, stderr bytes.Buffer
	if code := run([]string{"graph", "../../fixtures/station.json"}, strings.NewReader(""), &got, &stderr); code != exitOK {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	got = *bytes.NewBuffer(bytes.ReplaceAll(got.Bytes(), []byte("../../fixtures/"), nil))
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(file); err != nil || !bytes.Equal(want, got.Bytes()) {
		t.Errorf("%s differs (%v): run make update", file, err)
	}
}
