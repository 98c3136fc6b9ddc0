package codegen

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

// TestJSONSharedRetry checks that streamtypes that share a backoff scheme do not
// each print it.
func TestJSONSharedRetry(t *testing.T) {
	allocations := func(waits int) float64 {
		p := &policy.Policy{}
		r := &policy.Retry{}
		for i := range waits {
			r.Backoff = append(r.Backoff, time.Duration(i)*time.Second)
		}
		for i := range 20 {
			p.StreamTypes = append(p.StreamTypes, &policy.StreamType{Name: fmt.Sprint("s", i), Protocol: policy.ProtocolRaw, Retry: r})
		}
		return testing.AllocsPerRun(1, func() { JSON(p) })
	}
	few, many := allocations(1000), allocations(2000)
	if each := (many - few) / 1000; each > 15 {
		t.Errorf("%.0f allocations for each wait of a scheme that 20 streamtypes share", each)
	}
}

// TestDecodeWaits checks that tables with more waits than a policy may have are
// refused.
func TestDecodeWaits(t *testing.T) {
	const at = 0x1000
	key := schema.LookupKey(schema.Retry, "backoff")
	for n := range key.MaxItems + 2 {
		m := &image{machine: elf.EM_X86_64, order: binary.LittleEndian, pointer: 8}
		d := newDecoder(m, build{DefaultTarget, nil, m.abi()})
		data := make([]byte, 1000)
		s := d.shapes["lws_retry_bo_t"]
		binary.LittleEndian.PutUint64(data[s.at["retry_ms_table"].offset:], at+500)
		binary.LittleEndian.PutUint16(data[s.at["retry_ms_table_count"].offset:], uint16(n))
		m.segments = []segment{{at, data}}
		list, err := d.durations(at, key)
		if ok := n <= key.MaxItems; ok != (err == nil) || ok && len(list) != n {
			t.Errorf("%d waits: %d, error %v", n, len(list), err)
		}
	}
}
