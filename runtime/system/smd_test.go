package system_test

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/system"
)

// TestSMDProgram is what lws's example program for SMD does: a stream of _lws_smd
// that sends messages of two classes, one of which it does not receive, and asks
// for a check for a captive portal; beside a listener that receives all.
func TestSMDProgram(t *testing.T) {
	c := newContext(t, policy(t, strings.Replace(portalPolicy, "PORT", portOf(internet(t).URL), 1)).Policy)
	d := system.NewDetector(c, system.DetectorOptions{})
	defer d.Close()
	direct := listen(c, smd.ClassesAll)
	received := make(chan string, 100)
	const sends = 20
	s, err := c.NewStream(smd.SMDStreamType, runtime.Handlers{
		Rx: func(_ *runtime.Stream, buf []byte, _ runtime.Flags) runtime.Result {
			if class := smd.Class(binary.BigEndian.Uint64(buf)); class == smd.ClassInteraction {
				t.Errorf("the stream got %s", buf[16:])
			}
			received <- string(buf[16:])
			return runtime.OK
		},
		Tx: func(s *runtime.Stream, i uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
			class, text := smd.ClassInteraction, `{"class":"INTERACTION"}`
			if i%2 == 0 {
				class, text = smd.ClassNetwork, `{"class":"NETWORK"}`
			}
			if i == 4 {
				text = `{"trigger": "cpdcheck", "src":"test"}`
			}
			if i+1 < sends {
				s.RequestTx()
			}
			binary.BigEndian.PutUint64(buf, uint64(class))
			return 16 + copy(buf[16:], text), runtime.FlagSOM | runtime.FlagEOM, runtime.OK
		},
	}, smd.WithClasses(smd.ClassSystemState|smd.ClassMetrics|smd.ClassNetwork))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RequestTx(); err != nil {
		t.Fatal(err)
	}
	const outcome = `{"type":"cpd","result":"OK"}`
	all, told := 0, false
	for ; all < sends+1; all++ { // and the outcome
		told = direct.next() == outcome || told
	}
	if !told {
		t.Error("the listener was not told the outcome")
	}
	told = false
	for range sends/2 + 1 {
		told = <-received == outcome || told
	}
	if !told {
		t.Error("the stream was not told the outcome")
	}
}
