package sim

import (
	"fmt"
	"os"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

var protocols = []*protocol{
	rawProtocol("raw", 4, false),
	httpProtocol("h1", policy.ProtocolH1, 4, 4, false),
	httpProtocol("h2", policy.ProtocolH2, 4, 4, false),
	wsProtocol("ws", 4, false),
	mqttProtocol("mqtt", 4, 4, false),
	rawProtocol("raw+tls", 4, true),
	httpProtocol("h1+tls", policy.ProtocolH1, 4, 4, true),
	httpProtocol("h2+tls", policy.ProtocolH2, 4, 4, true),
	wsProtocol("ws+tls", 4, true),
	mqttProtocol("mqtt+tls", 4, 4, true),
	serverProtocol(rawProtocol("raw", 4, false), rawServer, func(k *serverStream) serverTalk { return &rawServerTalk{serverStream: k} }),
	serverProtocol(httpProtocol("h1", policy.ProtocolH1, 4, 4, false), httpServer(policy.ProtocolH1), func(k *serverStream) serverTalk { return &httpServerTalk{serverStream: k} }),
	serverProtocol(httpProtocol("h2", policy.ProtocolH2, 4, 4, false), httpServer(policy.ProtocolH2), func(k *serverStream) serverTalk { return &httpServerTalk{serverStream: k} }),
	serverProtocol(wsProtocol("ws", 4, false), wsServer, func(k *serverStream) serverTalk { return &wsServerTalk{serverStream: k} }),
	proxied(httpProtocol("h1", policy.ProtocolH1, 4, 4, false), newProxiedHTTP),
	proxied(httpProtocol("h2", policy.ProtocolH2, 4, 4, false), newProxiedHTTP),
	proxied(wsProtocol("ws", 4, false), newProxiedTalk),
	proxied(mqttProtocol("mqtt", 4, 4, false), newProxiedTalk),
	h3Protocol("h3", 4, 4),
	h3Protocol("h3+shared", 1, 4),
	httpProtocol("h2+shared", policy.ProtocolH2, 1, 4, false),
	mqttProtocol("mqtt+shared", 1, 4, false),
}

// shortRun is the minutes of faults of a run in make test, normalRun in make sim.
const (
	shortRun  = 1
	normalRun = 5
)

// TestSame checks that a seed has one trace on any number of cores, and that no law is
// broken. For protocols with free packets, half of the seeds must have one trace.
func TestSame(t *testing.T) {
	for _, pr := range protocols {
		t.Run(pr.name, func(t *testing.T) {
			seeds := number(t, "SAME", 20)
			if strings.Contains(pr.name, "+") { // the transports are those of another protocol
				seeds = (seeds + 3) / 4
			}
			if pr.free {
				copied := *pr
				pr = &copied
				pr.small = true
				seeds = (seeds + 1) / 2 // they take longer
			}
			differ := 0
			for seed := range uint64(seeds) {
				var first *outcome
				cores := []int{1, 2}
				if pr.shared {
					cores = cores[1:]
				}
				for _, cores := range cores {
					before := goruntime.GOMAXPROCS(cores)
					o := simulate(t, pr, seed, shortRun, alone)
					goruntime.GOMAXPROCS(before)
					if first == nil {
						first = o
						report(t, pr, seed, shortRun, o)
					} else if o.sum != first.sum && pr.free {
						differ++
					} else if o.sum != first.sum {
						t.Fatalf("seed %d has another trace on %d cores:\n%s", seed, cores, firstDifference(first.trace, o.trace))
					}
				}
			}
			if differ > seeds/2 {
				t.Errorf("%d of %d seeds have several traces", differ, seeds)
			} else if differ > 0 {
				t.Logf("%d of %d seeds have several traces", differ, seeds)
			}
		})
	}
}

// alone reports whether an event has its own instant. The events of Shutdown depend on the
// instant of the last answer, and Shutdown of net/http takes a random time. An event with a
// cue is nanoseconds from another one, so a transport may handle the two in either order.
func alone(e *event) bool { return e.kind != shutdown && e.kind != drainListener && e.on == nil }

func firstDifference(a, b *trace) string {
	x, y := a.comparedLocked(), b.comparedLocked()
	for i := range x {
		if i >= len(y) || x[i] != y[i] {
			return fmt.Sprintf("A:\n%s\nB:\n%s", lines(x[max(0, i-5):min(len(x), i+8)]), lines(y[max(0, min(i, len(y))-5):min(len(y), i+8)]))
		}
	}
	return "none"
}

// report fails the test if laws were broken. It searches for a minimal set of events.
func report(t *testing.T, pr *protocol, seed uint64, minutes int, o *outcome) {
	t.Helper()
	if len(o.findings) == 0 {
		return
	}
	all := len(o.plan.events)
	if os.Getenv("SHRINK") == "no" {
		t.Error(o.findings[0])
		return
	}
	o = shrink(t, pr, seed, minutes, o)
	var numbers []string
	for _, e := range o.plan.events {
		numbers = append(numbers, strconv.Itoa(e.number))
	}
	t.Errorf("%s\n%s\nTo repeat: make sim PROTOCOL=%s SEED=%d MINUTES=%d EVENTS=%s (%d of %d events)",
		o.excerpt, o.findings[0], pr.name, seed, minutes, strings.Join(numbers, ","), len(numbers), all)
}

// number returns the value of an environment variable, or otherwise.
func number(t *testing.T, name string, otherwise int) int {
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestSim runs seeds: the one in SEED, or SEEDS of them starting with FROM, of the protocol
// in PROTOCOL or of all. EVENTS, a list of numbers, keeps only these events of the plan.
// MINUTES is the time with faults.
func TestSim(t *testing.T) {
	if os.Getenv("SEEDS") == "" && os.Getenv("SEED") == "" {
		t.Skip("SEEDS and SEED are not set")
	}
	n, from, minutes := number(t, "SEEDS", 1), number(t, "FROM", 0), number(t, "MINUTES", normalRun)
	if os.Getenv("SEED") != "" {
		n, from = 1, number(t, "SEED", 0)
	}
	for _, pr := range protocols {
		if p := os.Getenv("PROTOCOL"); p != "" && !slices.Contains(strings.Split(p, ","), pr.name) {
			continue
		}
		t.Run(pr.name, func(t *testing.T) {
			if pr.free {
				defer goruntime.GOMAXPROCS(goruntime.GOMAXPROCS(1))
			}
			begin := time.Now()
			states, found := 0, 0
			var elapsed time.Duration
			for seed := from; seed < from+n; seed++ {
				o := simulate(t, pr, uint64(seed), minutes, selected())
				states += o.states
				elapsed += o.elapsed
				if os.Getenv("TRACE") != "" {
					t.Logf("trace:\n%v", o.trace)
				}
				report(t, pr, uint64(seed), minutes, o)
				if len(o.findings) > 0 {
					found++
				}
				if found == number(t, "STOP", 3) {
					n = seed - from + 1
					break
				}
			}
			real := time.Since(begin)
			t.Logf("%s: %d seeds, %d with findings; %d states; %.0f hours, %.0f times real time, in %v",
				pr.name, n, found, states, elapsed.Hours(), elapsed.Seconds()/real.Seconds(), real.Round(time.Millisecond))
		})
	}
}

// selected returns a function that reports whether EVENTS lists an event; nil selects all.
func selected() func(*event) bool {
	v, set := os.LookupEnv("EVENTS")
	if !set {
		return nil
	}
	return func(e *event) bool { return slices.Contains(strings.Split(v, ","), strconv.Itoa(e.number)) }
}
