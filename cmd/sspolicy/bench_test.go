//go:build unix

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/schema"
)

// generatedPolicy returns a policy without mistakes that has n streamtypes.
func generatedPolicy(n int) string {
	var b strings.Builder
	b.WriteString(`{"release":"1","retry":[{"default":{"backoff":[1000,2000,3000],"conceal":5,"jitterpc":20}}],"s":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"stream%05d":{"endpoint":"host%d.example.com","port":443,"protocol":"h1","http_method":"GET",`+
			`"http_url":"path/%d?x=${item}","metadata":[{"item":""},{"ctype":"content-type:"}],"tls":true,"opportunistic":true,"retry":"default"}}`, i, i, i)
	}
	b.WriteString("]}")
	return b.String()
}

// ajv validates the policies on its command line with a schema, like a script in a CI step.
const ajv = `
const fs = require("fs"), Ajv = require("ajv/dist/2020");
const [schema, ...files] = process.argv.slice(2);
const validate = new Ajv({strict: false, allErrors: true}).compile(JSON.parse(fs.readFileSync(schema)));
for (const f of files) if (!validate(JSON.parse(fs.readFileSync(f)))) { console.log(validate.errors); process.exitCode = 1; }
`

// buildCommand builds the command in a folder and returns its file.
func buildCommand(b *testing.B, dir string) string {
	file := filepath.Join(dir, "sspolicy")
	if out, err := exec.Command("go", "build", "-o", file, ".").CombinedOutput(); err != nil {
		b.Fatalf("go build: %v\n%s", err, out)
	}
	return file
}

// writePolicy writes a policy of n streamtypes to a folder and returns its file.
func writePolicy(b *testing.B, dir string, n int) string {
	file := filepath.Join(dir, fmt.Sprintf("%d.json", n))
	if err := os.WriteFile(file, []byte(generatedPolicy(n)), 0o644); err != nil {
		b.Fatal(err)
	}
	return file
}

// measureProcess runs a command for each iteration, and reports its CPU time and
// memory. It returns the CPU time of a run.
func measureProcess(b *testing.B, args ...string) time.Duration {
	var used time.Duration
	var memory int64
	for b.Loop() {
		c := exec.Command(args[0], args[1:]...)
		if out, err := c.Output(); err != nil {
			b.Fatalf("%v\n%.2000s", err, out)
		}
		used += c.ProcessState.UserTime() + c.ProcessState.SystemTime()
		memory = max(memory, c.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
	}
	cpu := used / time.Duration(b.N)
	b.ReportMetric(float64(cpu.Microseconds())/1000, "cpu-ms/op")
	b.ReportMetric(float64(memory)/1024, "MB")
	return cpu
}

// BenchmarkCompileProcess runs the process "sspolicy compile". It reports the time,
// CPU time and memory of a run.
func BenchmarkCompileProcess(b *testing.B) {
	dir := b.TempDir()
	sspolicy := buildCommand(b, dir)
	for _, lang := range []string{"c", "go"} {
		for _, n := range []int{5000, 20000} {
			policy := writePolicy(b, dir, n)
			b.Run(fmt.Sprintf("%s/streamtypes=%d", lang, n), func(b *testing.B) {
				measureProcess(b, sspolicy, "compile", "--lang", lang, "--output", filepath.Join(dir, "out"), policy)
			})
		}
	}
}

// BenchmarkLintProcess runs the processes "sspolicy lint" and ajv on the same policies, ajv
// with the JSON Schema of sspolicy, which covers only the shape.
//
// The largest policy has 10 MB. It reports the time, CPU time and memory of a run, for ajv
// the ratio of its CPU time to that of sspolicy, and for the larger policies the ratio to a
// tenth of the streamtypes.
func BenchmarkLintProcess(b *testing.B) {
	for _, tool := range []string{"node", "npm", "go"} {
		if _, err := exec.LookPath(tool); err != nil {
			b.Fatalf("this benchmark needs %s", tool)
		}
	}
	dir := b.TempDir()
	sspolicy := buildCommand(b, dir)
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			b.Fatal(err)
		}
		return file
	}
	write("package.json", `{"private":true}`)
	install := exec.Command("npm", "install", "--silent", "--no-audit", "--no-fund", "ajv@8")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		b.Fatalf("npm install: %v\n%s", err, out)
	}
	script, schemaFile := write("ajv.js", ajv), write("schema.json", schema.JSONSchema)

	cpu := map[string]time.Duration{}
	before := map[string]time.Duration{}
	for _, n := range []int{40, 100, 1000, 10000, 43000} {
		policy := writePolicy(b, dir, n)
		for _, p := range []struct {
			name string
			args []string
		}{
			{"sspolicy", []string{sspolicy, "lint", "--config", "none", "--format", "json", policy}},
			{"ajv", []string{"node", script, schemaFile, policy}},
		} {
			b.Run(fmt.Sprintf("streamtypes=%d/%s", n, p.name), func(b *testing.B) {
				cpu[p.name] = measureProcess(b, p.args...)
				if p.name == "ajv" {
					b.ReportMetric(float64(cpu["ajv"])/float64(cpu["sspolicy"]), "x-sspolicy")
				}
				if last := before[p.name]; (n == 1000 || n == 10000) && last > 0 {
					b.ReportMetric(float64(cpu[p.name])/float64(last), "x-of-a-tenth")
				}
			})
			before[p.name] = cpu[p.name]
		}
	}
}
