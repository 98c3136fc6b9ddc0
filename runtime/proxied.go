package runtime

import (
	"slices"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// unknown reports whether the stream is executed by a proxy and only the proxy
// knows the protocol.
func (x *exchange) unknown() bool { return x.st.Protocol == policy.ProtocolProxied }

// How long a Fetch with unknown protocol waits for the end of the connection after
// a verdict, which is the end over mqtt; and for the verdict after the end of a
// message, which is the end over ws. A proxy reports related events without delay.
const (
	verdictLinger = 100 * time.Millisecond
	messageLinger = time.Second
)

// lingerLocked ends a Fetch after d, unless the connection ends earlier.
func (x *exchange) lingerLocked(d time.Duration) Result {
	if x.linger != nil {
		x.linger.Stop()
	}
	x.linger = time.AfterFunc(d, func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		if !x.over {
			x.finishLocked(x.resultLocked(nil))
			x.s.Destroy()
		}
	})
	return OK
}

// addPartsLocked makes the streamtypes that have a part share the request, if only
// the proxy knows the rideshares.
func (x *exchange) addPartsLocked() {
	if !x.unknown() || len(x.out.chain) > 1 {
		return
	}
	chain := slices.Clone(x.out.chain)
	for _, p := range x.call.parts {
		if !slices.ContainsFunc(chain, func(st *policy.StreamType) bool { return st.Name == p.streamtype }) {
			chain = append(chain, &policy.StreamType{Name: p.streamtype, Protocol: policy.ProtocolProxied})
		}
	}
	x.out.chain = chain
}
