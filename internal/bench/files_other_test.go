//go:build !unix

package bench

import (
	"testing"
	"time"
)

func needFiles(*testing.B, int) {}

func cpuTime() time.Duration { return 0 }
