package proxy

import "time"

// start is the origin of the times in payload frames. lws uses a monotonic clock
// too.
var start = time.Now()

// now returns the microseconds since start.
func now() uint64 { return uint64(time.Since(start).Microseconds()) }
