package explain

import (
	"fmt"
	"strings"

	"github.com/secure-streams/sspolicy/faulttest"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A FaultDoc is the JSON form of a fault.
type FaultDoc struct {
	Name      string       `json:"name"`
	Family    string       `json:"family"`
	Summary   string       `json:"summary"`
	Why       string       `json:"why"`
	Protocols []string     `json:"protocols"`
	Params    []FaultParam `json:"params"`
}

// A FaultParam is the JSON form of a parameter.
type FaultParam struct {
	Name    string   `json:"name"`
	Help    string   `json:"help"`
	Default string   `json:"default"`
	Min     *int     `json:"min,omitempty"`
	Max     *int     `json:"max,omitempty"`
	Unit    string   `json:"unit,omitempty"`
	Choices []string `json:"choices,omitempty"`
}

// A FaultTable is the JSON form of the catalogue.
type FaultTable struct {
	Version int         `json:"version"`
	Faults  []*FaultDoc `json:"faults"`
}

// FaultList returns the catalogue for JSON.
func FaultList() *FaultTable {
	t := &FaultTable{Version: 1}
	for _, f := range faulttest.All() {
		d := &FaultDoc{Name: f.Name, Family: f.Family, Summary: f.Summary, Why: f.Why, Protocols: protocols(f), Params: []FaultParam{}}
		for _, p := range f.Params {
			q := FaultParam{Name: p.Name, Help: p.Help, Default: p.Default, Unit: p.Unit, Choices: p.Choices}
			if p.Choices == nil {
				q.Min, q.Max = &p.Min, &p.Max
			}
			d.Params = append(d.Params, q)
		}
		t.Faults = append(t.Faults, d)
	}
	return t
}

// protocols returns the protocols that a fault is for.
func protocols(f *faulttest.Fault) (names []string) {
	for p := policy.ProtocolH1; p.Named(); p++ {
		st := &policy.StreamType{Protocol: p, HTTP: &policy.HTTP{}, MQTT: &policy.MQTT{Topic: "t", Subscribe: "t", QoS: 1}}
		plain, _ := f.Fits(st)
		st.TLS = true
		if secure, _ := f.Fits(st); plain || secure {
			names = append(names, p.String())
		}
	}
	return names
}

// Fault returns the page of a fault. docs is the address of the documentation, with a
// slash at its end.
func Fault(f *faulttest.Fault, docs string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n%s.\n\n%s\n\n", f.Name, f.Summary, f.Why)
	fmt.Fprintf(&b, "Protocols: %s", strings.Join(protocols(f), ", "))
	if f.Family == "tls" {
		b.WriteString(", with TLS")
	}
	b.WriteString(".\n")
	if len(f.Params) > 0 {
		b.WriteString("\n## Parameters\n\n| name | default | values | meaning |\n|---|---|---|---|\n")
		for _, p := range f.Params {
			values := strings.Join(p.Choices, ", ")
			if p.Choices == nil {
				values = strings.TrimSpace(fmt.Sprintf("%d to %d %s", p.Min, p.Max, p.Unit))
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", p.Name, p.Default, values, p.Help)
		}
	}
	fmt.Fprintf(&b, "\n## What a stream does\n\nWith `conceal` 2, and not `opportunistic`; the short names of the states are in\n[docs/runtime.md](%sruntime.md):\n\n| protocol | states |\n|---|---|\n", docs)
	for _, row := range faulttest.Examples(f) {
		fmt.Fprintf(&b, "| %s | %s |\n", row.Name, strings.ReplaceAll(row.Want, "|", `\|`))
	}
	fmt.Fprintf(&b, "\n    sspolicy fault run %s --stream NAME policy.json\n", f.Name)
	return b.String()
}

// FaultIndex returns the table of all faults, with links to their pages.
func FaultIndex() string {
	var b strings.Builder
	b.WriteString("# Faults\n\nEach fault is a healthy peer with one misbehaviour; [faults.md](../faults.md) shows how to use\nthem. The tests run each fault against streams of all applicable protocols, and check that the\nsame test fails with a healthy peer.\n\n")
	b.WriteString("| fault | family | summary |\n|---|---|---|\n")
	for _, f := range faulttest.All() {
		fmt.Fprintf(&b, "| [%s](%s.md) | %s | %s |\n", f.Name, f.Name, f.Family, f.Summary)
	}
	b.WriteString("\n## Presets\n\n`sspolicy fault matrix --fault NAME` also takes a preset.\n\n| preset | summary | faults |\n|---|---|---|\n")
	for _, s := range faulttest.Presets {
		var names []string
		for _, f := range s.Faults {
			names = append(names, f.Name)
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", s.Name, s.Summary, strings.Join(names, ", "))
	}
	return b.String()
}
