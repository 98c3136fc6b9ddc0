package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

type versionCmd struct {
	JSON bool `name:"json" help:"Print a JSON object."`
}

// A versionInfo describes the program. Unknown fields are empty.
type versionInfo struct {
	Version  string   `json:"version"`
	Commit   string   `json:"commit,omitempty"`
	Time     string   `json:"time,omitempty"`     // of the commit
	Modified bool     `json:"modified,omitempty"` // built from a checkout with changes
	Go       string   `json:"go"`
	OS       string   `json:"os"`
	Arch     string   `json:"arch"`
	LWS      []string `json:"lws"` // the release lines
}

// Run executes the command.
func (c versionCmd) Run(p *program) error {
	v := newVersionInfo()
	if c.JSON {
		e := json.NewEncoder(p.stdout)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	text := "sspolicy " + v.Version + "\n"
	if v.Commit != "" {
		text += "commit " + v.Commit + " " + v.Time + "\n"
	}
	_, err := fmt.Fprintf(p.stdout, "%s%s %s/%s\nlws %s\n", text, v.Go, v.OS, v.Arch, strings.Join(v.LWS, ", "))
	return err
}

func version() string { return newVersionInfo().Version }

// archive is expanded by git archive to the commit, its time, and the nearest tag.
// Elsewhere it contains the format.
//
//go:embed archive.txt
var archive string

// newVersionInfo returns the build information of the Go command. A build from an
// archive of the sources has no version there.
func newVersionInfo() versionInfo {
	v := versionInfo{Version: "(devel)", Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	for _, line := range schema.Versions {
		v.LWS = append(v.LWS, line.String())
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Version != "" {
			v.Version = info.Main.Version
		}
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				v.Commit = s.Value
			case "vcs.time":
				v.Time = s.Value
			case "vcs.modified":
				v.Modified = s.Value == "true"
			}
		}
	}
	if fields := strings.Fields(archive); v.Version == "(devel)" && len(fields) > 1 && !strings.HasPrefix(archive, "$Format") {
		v.Commit, v.Time = fields[0], fields[1]
		if len(fields) > 2 {
			v.Version = fields[2]
		}
	}
	return v
}
