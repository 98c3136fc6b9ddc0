package system_test

import (
	"encoding/binary"
	"testing"
	"testing/synctest"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/smd"
	"github.com/secure-streams/sspolicy/runtime/system"
)

// TestSMDProgram does the same as lws's example program for SMD: a stream of _lws_smd sends
// messages of two classes, receives one of them, and triggers a check for a captive portal.
// A listener receives all messages.
func TestSMDProgram(t *testing.T) { synctest.Test(t, testSMDProgram) } // SMD drops old messages

func testSMDProgram(t *testing.T) {
	c := newBench(t, compile(t, portal("generate_204")), internet)
	c.newDetector(t, system.DetectorOptions{})
	direct := c.listen(smd.ClassesAll)
	received := make(chan string, 100)
	const sends = 20
	s, err := c.NewStream(smd.StreamType, runtime.Handlers{
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
	found := false
	for range sends + 1 { // with the outcome
		found = <-direct == outcome || found
	}
	if !found {
		t.Error("the listener did not get the outcome")
	}
	found = false
	for range sends/2 + 1 {
		found = <-received == outcome || found
	}
	if !found {
		t.Error("the stream did not get the outcome")
	}
}
