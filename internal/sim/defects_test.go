package sim

import (
	"encoding/json"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A defect is a mistake that the simulation must find. It replaces old, which must occur
// once in the file, with new.
type defect struct {
	name     string
	protocol string // protocol that finds it
	file     string // below the root of the module
	old, new string
}

const root = "../.."

// defects are typical mistakes in such code. Those marked (real) occurred in it.
var defects = []defect{
	{"a request to send is not signalled", "raw", "runtime/stream.go",
		"\t\t\ts.link.signalTxLocked()\n\t\t}\n\t} else if s.machine.Request() {", "\t\t}\n\t} else if s.machine.Request() {"},
	{"the timer of a long wait is not started", "h1", "runtime/stream.go",
		"\ts.e.timers.Start(s.retry, d)\n", "\tif d < 5*time.Second {\n\t\ts.e.timers.Start(s.retry, d)\n\t}\n"},
	{"each connection ends the series of failures", "raw", "runtime/internal/machine/machine.go",
		"if !f.Failed || !f.Brief {", "if !f.Failed || f.Brief || !f.Brief {"},
	{"Connect continues the series of failures", "h1", "runtime/internal/machine/machine.go",
		"\tif m.byCall {\n\t\tm.tries = 0\n\t}\n", ""},
	{"a connection leaks", "raw", "runtime/raw/session.go",
		"\tdefer transport.Close(s.base)\n", ""},
	{"SetPolicy drops streams without a state", "h1", "runtime/swap.go",
		"\t\ts.destroy(false, ErrPolicyChanged)\n", "\t\ts.kill()\n"},
	{"Overlay and SetPolicy leave streams as they are", "h1", "runtime/swap.go",
		"\tfor _, s := range gone {\n\t\ts.destroy(false, ErrPolicyChanged)\n\t}\n", "\t_ = gone[:min(len(gone), cap(gone))]\n\tc.engine.timers.Resumed(time.Millisecond)\n"},
	{"an ACK is delivered twice", "mqtt", "runtime/mqtt/send.go",
		"\tfor range n {\n", "\tfor range n + n/3 + n%2 {\n"},
	{"a timeout swallows the ACK of a request (real)", "h1", "runtime/link.go",
		"func (l *link) Done(good bool) error {\n", "func (l *link) Done(good bool) error {\n\tl.s.mu.Lock()\n\tl.done = true\n\tl.s.mu.Unlock()\n"},
	{"two connections use a session (real)", "mqtt+shared", "runtime/mqtt/conn.go",
		"\tif before != nil {\n\t\tbefore.fail(transport.ErrClosed)\n\t}\n", "\t_ = before\n"},
	{"a session that may have been replaced keeps its filters (real)", "mqtt", "runtime/mqtt/conn.go",
		"\tif doubt {", "\tif doubt && now().IsZero() {"},
	{"no PINGREQ while unanswered messages are sent (real)", "mqtt", "runtime/mqtt/liveness.go",
		"keep > 0 && (ping == 0 || ping > keep)", "keep < 0 && (ping == 0 || ping > keep)"},
	{"close_notify waits for the peer (real)", "raw+tls", "runtime/transport/close.go",
		"const closeWait = time.Second\n", "const closeWait = time.Minute\n"},
	{"a timer outlives the connection of a stream that gives up (real)", "h1", "runtime/internal/machine/machine.go",
		"\treturn m.Retries()\n}", "\treturn m.again\n}"},
	{"a connection may be silent for ever (real)", "h3", "runtime/h3/h3.go",
		"\t\tMaxIdleTimeout:             defaultHangup,\n\t\tKeepAlivePeriod:            defaultPing,\n", "\t\tMaxIdleTimeout: 24 * time.Hour,\n"},
	{"a socket leaks", "h3", "runtime/h3/h3.go",
		"\t\tt.Conn.Close()\n", ""},
	{"a dial outlives its attempt (real)", "h3", "runtime/h3/h3.go",
		"\t\td.last = p.count\n\t\td.cancel()\n\t\tdelete(p.dials, address)\n", "\t\td.last = p.count\n"},
	{"CancelTimeout does nothing", "h1", "runtime/stream.go",
		"\t\ts.cancelTimeoutLocked()\n\t\treturn\n\t}\n\ts.stopTimeoutLocked()\n", "\t\ts.cancelTimeoutLocked()\n\t\treturn\n\t}\n"},
	{"an attempt has no limit", "h1", "runtime/link.go",
		"\t\tl.e.timers.Start(&l.timer, d)\n", ""},
	{"waits have no jitter", "h1", "runtime/policy/retry.go",
		"\tms += ms * percent * uint64(random) / 65536 / 100\n", "\t_, _ = percent, random\n"},
	{"PauseRx has no effect", "raw", "runtime/link.go",
		"hold := s.paused && size != notPayload; hold", "hold := s.paused && size < notPayload; hold"},
	{"callbacks overlap", "raw", "runtime/link.go",
		"\t\t} else if !s.busy {\n\t\t\tbreak\n", "\t\t} else if !s.busy || size > 1000 {\n\t\t\tbreak\n"},
	{"a message with QoS 2 is delivered again", "mqtt", "runtime/mqtt/session.go",
		"return known && (certain || dup)", "return known && certain && !dup"},
	{"the newest stream survives the context", "h1", "runtime/context.go",
		"\tfor _, s := range c.refuse() {\n\t\ts.destroy(true, ErrClosed)\n", "\tfor i, s := range c.refuse() {\n\t\tif i == 0 {\n\t\t\tcontinue\n\t\t}\n\t\ts.destroy(true, ErrClosed)\n"},
	{"timers are not kept in order", "h1", "runtime/internal/timers/timers.go",
		"\t\tif h[parent].at <= e.at {\n\t\t\tbreak\n", "\t\tif h[parent].at <= e.at || i == 2 {\n\t\t\tbreak\n"},
	{"credentials are kept", "h1", "runtime/internal/request/header.go",
		"\t\tvalue, err := s.setup.Secret(ctx, k.blob, k.index)\n", "\t\tkept, ok := keptSecrets.Load(s.setup)\n\t\tif !ok {\n\t\t\tkept, _ = s.setup.Secret(ctx, k.blob, k.index)\n\t\t\tkeptSecrets.Store(s.setup, kept)\n\t\t}\n\t\tvalue, err := kept.(string), error(nil)\n"},
	{"metadata of the previous response is kept", "h1", "runtime/stream.go",
		"\ts.meta.forgetReceived()\n", ""},
	{"messages are acknowledged while the connection closes (real)", "mqtt", "runtime/mqtt/read.go",
		"if last && c.retired && ", "if last && c.retired && c.kept && "},
	{"a lost message counts as a duplicate (real)", "mqtt", "runtime/mqtt/receive.go",
		"case !handOver && st.c.err == nil:", "case !handOver:"},
	{"a proxy merges two messages (real)", "mqtt+proxy", "proxy/inbox.go",
		"if b.open && messages && ", "if b.open && !messages && "},
	{"a proxy keeps its links", "ws+proxy", "proxy/proxy.go",
		"\tdelete(p.links, l)\n", ""},
	{"a listener does not wait for its clients", "h1+server", "runtime/port.go",
		"\tfor p.first != nil {\n", "\tfor p.first != nil && p.first == nil {\n"},
}

// missed maps the defects that the simulation does not find to the reason.
var missed = map[string]string{
	"a dial outlives its attempt (real)": "it costs the next attempt, as many faults do, and the stream recovers in time",
}

// apply returns the file of a defect, with the defect planted.
func (d *defect) apply(t *testing.T) []byte {
	t.Helper()
	source, err := os.ReadFile(filepath.Join(root, d.file))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), d.old); n != 1 {
		t.Fatalf("%s: the text to replace occurs %d times in %s", d.name, n, d.file)
	}
	text := strings.Replace(string(source), d.old, d.new, 1)
	if strings.Contains(d.new, "keptSecrets") {
		text = strings.Replace(text, "import (\n", "import (\n\t\"sync\"\n", 1) + "\nvar keptSecrets sync.Map\n"
	}
	if strings.Contains(d.new, "now()") {
		text += "\nfunc now() time.Time { return time.Now() }\n"
	}
	if strings.Contains(d.new, "time.") && !strings.Contains(text, "\t\"time\"\n") {
		text = strings.Replace(text, "import (\n", "import (\n\t\"time\"\n", 1)
	}
	if _, err := parser.ParseFile(token.NewFileSet(), d.file, text, 0); err != nil {
		t.Errorf("%s: %v", d.name, err)
	}
	return []byte(text)
}

var (
	summary = regexp.MustCompile(`: (\d+) seeds, (\d+) with findings`)

	// crash matches the output of a test binary that crashes during a simulation, rather
	// than that of the go command.
	crash = regexp.MustCompile(`(?s)\n=== RUN   TestSim/.*?\n((?:panic|fatal error): [^\n]*)`)
)

// TestDefects checks that every defect can be planted. DEFECTS is a regular expression of
// names: TestDefects plants the matching ones, one at a time, and reports the number of
// seeds until the simulation finds each. It fails if a defect does not compile, or is
// neither found nor in missed.
func TestDefects(t *testing.T) {
	pattern := os.Getenv("DEFECTS")
	found, all := 0, 0
	for _, d := range defects {
		text := d.apply(t)
		if pattern == "" || !regexp.MustCompile(pattern).MatchString(d.name) {
			continue
		}
		all++
		dir := t.TempDir()
		path := filepath.Join(dir, "planted.go")
		overlay := filepath.Join(dir, "overlay.json")
		original, err := filepath.Abs(filepath.Join(root, d.file))
		if err != nil {
			t.Fatal(err)
		}
		text2, err := json.Marshal(map[string]any{"Replace": map[string]string{original: path}})
		if err != nil {
			t.Fatal(err)
		}
		if os.WriteFile(path, text, 0o644) != nil || os.WriteFile(overlay, text2, 0o644) != nil {
			t.Fatal("cannot write")
		}
		cmd := exec.Command("go", "test", "-count=1", "-vet=off", "-timeout=0", "-v", "-overlay", overlay, "-run", "^TestSim$", ".")
		env := slices.DeleteFunc(os.Environ(), func(v string) bool {
			return strings.HasPrefix(v, "SEED") || strings.HasPrefix(v, "EVENTS=") || strings.HasPrefix(v, "MINUTES=")
		})
		cmd.Env = append(env, "SEEDS=1000", "STOP=1", "SHRINK=no", "PROTOCOL="+d.protocol)
		out, err := cmd.CombinedOutput()
		m, c := summary.FindSubmatch(out), crash.FindSubmatch(out)
		switch {
		case m != nil && string(m[2]) != "0":
			found++
			t.Logf("%-60s %-8s found by seed %s of 1000", d.name, d.protocol, m[1])
		case c != nil:
			found++
			t.Logf("%-60s %-8s found: %.100q", d.name, d.protocol, c[1])
		case m == nil:
			t.Errorf("%-60s %-8s does not compile or run: %v\n%s", d.name, d.protocol, err, tailOf(out))
		case missed[d.name] != "":
			t.Logf("%-60s %-8s not found: %s", d.name, d.protocol, missed[d.name])
		default:
			t.Errorf("%-60s %-8s not found: %v\n%s", d.name, d.protocol, err, tailOf(out))
		}
	}
	if pattern != "" {
		if all == 0 {
			t.Errorf("no defect matches %q", pattern)
		}
		t.Logf("%d of %d defects found", found, all)
	}
}

func tailOf(out []byte) string { return string(out[max(0, len(out)-600):]) }
