package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v5"
)

// sarifSchema is the JSON Schema of SARIF 2.1.0 with Errata 01, by OASIS.
// testdata/README.md has the source of this copy.
var sarifSchema = sync.OnceValue(func() *jsonschema.Schema {
	text, err := os.ReadFile("testdata/sarif-schema-2.1.0.json")
	if err != nil {
		panic(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat = true
	if err := c.AddResource("sarif.json", bytes.NewReader(text)); err != nil {
		panic(err)
	}
	return c.MustCompile("sarif.json")
})

// validSARIF checks a log against the schema of OASIS and further requirements of
// readers.
func validSARIF(text []byte, r *Report) error {
	var doc any
	if err := json.Unmarshal(text, &doc); err != nil {
		return err
	}
	if err := sarifSchema().Validate(doc); err != nil {
		return fmt.Errorf("%#v", err)
	}
	var log sarifLog
	if err := json.Unmarshal(text, &log); err != nil {
		return err
	}
	run := log.Runs[0]
	if len(run.Results) != len(r.Diagnostics) || run.Results == nil {
		return fmt.Errorf("%d results for %d diagnostics", len(run.Results), len(r.Diagnostics))
	}
	seen := map[string]bool{}
	for i, result := range run.Results {
		if run.Tool.Driver.Rules[result.RuleIndex].ID != result.RuleID {
			return fmt.Errorf("result %d: rule %q, but index %d is another rule", i, result.RuleID, result.RuleIndex)
		}
		regions := []sarifRegion{}
		for _, l := range append(result.Locations, result.RelatedLocations...) {
			regions = append(regions, l.PhysicalLocation.Region)
			at := l.PhysicalLocation.ArtifactLocation.URI
			if u, err := url.Parse(at); err != nil || at == "" || u.Fragment != "" || u.RawQuery != "" {
				return fmt.Errorf("result %d: URI %q: %v", i, at, err)
			}
		}
		for _, f := range result.Fixes {
			for _, c := range f.ArtifactChanges {
				for _, p := range c.Replacements {
					regions = append(regions, p.DeletedRegion)
				}
			}
		}
		for _, g := range regions {
			if g.EndLine < g.StartLine || g.EndLine == g.StartLine && g.EndColumn < g.StartColumn {
				return fmt.Errorf("result %d: region %v ends before it starts", i, g)
			}
		}
		key := result.Locations[0].PhysicalLocation.ArtifactLocation.URI + result.PartialFingerprints[fingerprintName]
		if seen[key] {
			return fmt.Errorf("result %d: the fingerprint is not unique", i)
		}
		seen[key] = true
	}
	return nil
}

func TestSARIF(t *testing.T) {
	r := sample()
	if err := validSARIF(write(t, Output{Format: FormatSARIF}, r), r); err != nil {
		t.Error(err)
	}
}

// TestSARIFSchema checks that validSARIF finds mistakes.
func TestSARIFSchema(t *testing.T) {
	good := write(t, Output{Format: FormatSARIF}, sample())
	for _, test := range []struct{ from, to string }{
		{`"version": "2.1.0"`, `"version": "2.0.0"`},
		{`"startColumn": 1`, `"startColumn": 0`},
		{`"level": "note"`, `"level": "info"`},
		{`"artifactChanges"`, `"changes"`},
		{`"uri": "tabs.json"`, `"uri": "a b%"`},
		{`"columnKind": "unicodeCodePoints"`, `"columnKind": "bytes"`},
	} {
		bad := bytes.Replace(good, []byte(test.from), []byte(test.to), 1)
		if bytes.Equal(good, bad) {
			t.Errorf("no %s in the log", test.from)
		}
		if validSARIF(bad, sample()) == nil {
			t.Errorf("no error for %s", test.to)
		}
	}
}
