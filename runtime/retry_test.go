package runtime_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

func TestRetrySchedule(t *testing.T) {
	table := &policy.Retry{Backoff: ms(200, 900, 1500), Conceal: 4}
	for _, tt := range []struct {
		name  string
		retry *policy.Retry
		start action
		run   run
		want  string
	}{
		{"the whole table, then its last entry", table, requestTx, unreachable,
			"CRE POL CNG UNR 200:POL 200:CNG 200:UNR 1100:POL 1100:CNG 1100:UNR " +
				"2600:POL 2600:CNG 2600:UNR 4100:POL 4100:CNG 4100:UNR 4100:ARF"},
		{"connect", table, connect, unreachable,
			"CRE CNG UNR 200:POL 200:CNG 200:UNR 1100:POL 1100:CNG 1100:UNR " +
				"2600:POL 2600:CNG 2600:UNR 4100:POL 4100:CNG 4100:UNR 4100:ARF"},
		{"no policy", nil, requestTx, unreachable, "CRE POL CNG UNR ARF"},
		{"no policy, connect", nil, connect, unreachable, "CRE CNG UNR ARF"},
		{"conceal 0", &policy.Retry{Backoff: ms(200)}, requestTx, unreachable, "CRE POL CNG UNR ARF"},
		{"empty table", &policy.Retry{Conceal: 1}, requestTx, unreachable,
			"CRE POL CNG UNR 3000:POL 3000:CNG 3000:UNR 3000:ARF"},
		{"Retry-After raises", table, requestTx, each(func(_ context.Context, l transport.Link) error {
			l.Answer(transport.Answer{RetryAfter: 2 * time.Second})
			return errFake
		}, fetch), "CRE POL CNG UNR 2000:POL 2000:CNG 2000:CON 2000:rx 2000:eom 2000:ACK 2000:DIS"},
		{"Retry-After does not lower", table, requestTx, each(func(_ context.Context, l transport.Link) error {
			l.Answer(transport.Answer{RetryAfter: time.Millisecond})
			return errFake
		}, fetch), "CRE POL CNG UNR 200:POL 200:CNG 200:CON 200:rx 200:eom 200:ACK 200:DIS"},
		{"no answer", &policy.Retry{Backoff: ms(200), Conceal: 1}, requestTx, hang,
			"CRE POL CNG 15000:UNR 15200:POL 15200:CNG 30200:UNR 30200:ARF"},
		{"a connection that lasts resets the counter", &policy.Retry{Backoff: ms(200), Conceal: 1}, connect,
			each(unreachable, loseAfter(10*time.Second), unreachable),
			"CRE CNG UNR 200:POL 200:CNG 200:CON 10200:DIS 10400:POL 10400:CNG 10400:UNR 10400:ARF"},
		{"it must last for the longest wait and its jitter", &policy.Retry{Backoff: ms(200, 60000), Conceal: 2}, connect,
			each(unreachable, loseAfter(77*time.Second), loseAfter(78*time.Second), unreachable, unreachable),
			"CRE CNG UNR 200:POL 200:CNG 200:CON 77200:DIS 137200:POL 137200:CNG 137200:CON 215200:DIS " +
				"215400:POL 215400:CNG 215400:UNR 275400:POL 275400:CNG 275400:UNR 275400:ARF"},
		{"a brief connection does not", table, connect, each(unreachable, lose, lose, lose, unreachable),
			"CRE CNG UNR 200:POL 200:CNG 200:CON 200:DIS 1100:POL 1100:CNG 1100:CON 1100:DIS " +
				"2600:POL 2600:CNG 2600:CON 2600:DIS 4100:POL 4100:CNG 4100:UNR 4100:ARF"},
		{"a complete transaction resets the counter", &policy.Retry{Backoff: ms(200), Conceal: 1}, requestTx,
			each(unreachable, fetch), "CRE POL CNG UNR 200:POL 200:CNG 200:CON 200:rx 200:eom 200:ACK 200:DIS"},
		{"a loss takes one of the retries", &policy.Retry{Backoff: ms(200), Conceal: 2}, connect,
			each(lose, unreachable),
			"CRE CNG CON DIS 200:POL 200:CNG 200:UNR 400:POL 400:CNG 400:UNR 400:ARF"},
		{"a loss without retries", nil, connect, lose, "CRE CNG CON DIS UNR ARF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr := newTrace(on{"CRE": tt.start})
			tr.times = true
			got := play(t, policy.StreamType{Protocol: policy.ProtocolRaw, Retry: tt.retry}, tt.run, tr)
			got, _, _ = strings.Cut(got, " 86400000:DES")
			if got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestJitter(t *testing.T) {
	for _, tt := range []struct {
		percent uint8
		random  uint16
		want    time.Duration
	}{
		{0, 0, 1000 * time.Millisecond},
		{0, 32768, 1150 * time.Millisecond},
		{0, 65535, 1299 * time.Millisecond},
		{20, 65535, 1199 * time.Millisecond},
		{100, 16384, 1250 * time.Millisecond},
		{255, 65535, 3549 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			c, err := runtime.NewContext(&policy.Policy{StreamTypes: []*policy.StreamType{{
				Name: "s", Protocol: policy.ProtocolRaw, Endpoint: "example.com", Port: 1,
				Retry: &policy.Retry{Backoff: ms(1000), Conceal: 1, JitterPercent: tt.percent},
			}}}, runtime.Options{
				Jitter:     func() uint16 { return tt.random },
				Transports: []transport.Transport{&fake{unreachable}},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer teststream.Shutdown(t, c)
			tr := newTrace(on{"CRE": requestTx})
			tr.Prefix = teststream.Elapsed(0)
			newStream(t, c, tr.handlers())
			time.Sleep(time.Minute)
			tr.Want(t, strings.ReplaceAll("CRE POL CNG UNR @POL @CNG @UNR @ARF", "@", tt.want.String()+":"))
		})
	}
}

// TestConcealMany checks the largest numbers of retries: 65535 means no limit.
func TestConcealMany(t *testing.T) {
	for _, tt := range []struct {
		conceal     uint16
		least, most int // attempts in a day, one each second
		end         string
	}{
		{65534, 65535, 65535, " UNR ARF DES"},
		{65535, 86400, 86401, " UNR DES"},
	} {
		n := 0
		tr := newTrace(on{"CRE": requestTx})
		got := play(t, policy.StreamType{
			Protocol: policy.ProtocolRaw,
			Retry:    &policy.Retry{Backoff: ms(1000), Conceal: tt.conceal, JitterPercent: 1},
		}, func(context.Context, transport.Link) error { n++; return errFake }, tr)
		if n < tt.least || n > tt.most || !strings.HasSuffix(got, tt.end) {
			t.Errorf("conceal %d: %d attempts in a day, then %s; want %d to %d, then%s",
				tt.conceal, n, got[len(got)-12:], tt.least, tt.most, tt.end)
		}
	}
}

func TestAfterAllRetriesFailed(t *testing.T) {
	retry := &policy.Retry{Backoff: ms(200), Conceal: 1}
	const series = "POL CNG UNR POL CNG UNR ARF"
	step := func(f action) func(*runtime.Stream) { return func(s *runtime.Stream) { f(s) } }
	for _, tt := range []struct {
		name  string
		arf   action
		steps []func(*runtime.Stream)
		want  string
	}{
		{"RequestTx makes one attempt", nil, []func(*runtime.Stream){step(requestTx), step(requestTx)},
			"CRE " + series + " | POL CNG UNR ARF | POL CNG UNR ARF DES"},
		{"Connect makes a series", nil, []func(*runtime.Stream){step(connect), step(connect)},
			"CRE " + series + " | CNG UNR POL CNG UNR ARF | CNG UNR POL CNG UNR ARF DES"},
		{"RequestTx in ARF", firstOnly(requestTx), nil, "CRE " + series + " POL CNG UNR ARF DES"},
		{"Connect in ARF", firstOnly(connect), nil, "CRE " + series + " CNG UNR POL CNG UNR ARF DES"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr := newTrace(on{"CRE": requestTx, "ARF": tt.arf})
			play(t, policy.StreamType{Protocol: policy.ProtocolRaw, Retry: retry}, unreachable, tr, tt.steps...)
			tr.Want(t, tt.want)
		})
	}
}

// TestRetries checks that Retries says whether another attempt follows.
func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := policy.StreamType{Protocol: policy.ProtocolMQTT, MQTT: &policy.MQTT{}, Retry: &policy.Retry{Backoff: ms(1), Conceal: 2}}
		c := newContext(t, st, each(unreachable, lose, unreachable))
		var got []string
		s := newStream(t, c, runtime.Handlers{State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
			got = append(got, fmt.Sprint(state.Short(), " ", s.Retries()))
			return runtime.OK
		}})
		s.RequestTx()
		time.Sleep(time.Minute)
		synctest.Wait()
		if want := "CRE false, POL false, CNG false, UNR true, POL false, CNG false, CON false, DIS true, POL false, CNG false, UNR false, ARF false"; strings.Join(got, ", ") != want {
			t.Errorf("got  %s\nwant %s", strings.Join(got, ", "), want)
		}
	})
}
