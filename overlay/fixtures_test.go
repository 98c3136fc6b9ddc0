package overlay

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/secure-streams/sspolicy/schema"
)

// TestIdentity applies policies and an empty fragment to the policies themselves.
func TestIdentity(t *testing.T) {
	patterns := []string{"../fixtures/*.json", "../fixtures/codegen/*.json"}
	if corpus := os.Getenv("SSPOLICY_CORPUS"); corpus != "" {
		patterns = append(patterns, filepath.Join(corpus, "*", "*.json"))
	}
	checked := 0
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			d := schema.Parse(file, text)
			if !unique(d) {
				continue
			}
			for _, fragment := range []*schema.Document{d, schema.Parse("empty", []byte("{}"))} {
				r := Apply(d, []*schema.Document{fragment}, Options{})
				if r.Document == nil {
					continue // it has errors on its own
				}
				checked++
				if r.Document.String() != string(text) || len(r.Changes) > 0 {
					t.Errorf("%s over %s: %d changes", fragment.Source.Name, file, len(r.Changes))
				}
			}
		}
	}
	if checked < 8 {
		t.Errorf("%d checks", checked)
	}
}
