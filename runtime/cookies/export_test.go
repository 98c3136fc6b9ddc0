package cookies

import (
	"io"
	"time"
)

// Read reads a file into the jar, and Text returns the file that the jar would
// write, both at the same fixed time.
func Read(j *Jar, r io.Reader) (bad int, err error) { return j.read(r, time.Unix(1e9, 0)) }
func Text(j *Jar) []byte                            { return j.textLocked(time.Unix(1e9, 0)) }
