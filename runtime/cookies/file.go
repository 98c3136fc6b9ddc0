package cookies

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/secure-streams/sspolicy/internal/atomicfile"
	"github.com/secure-streams/sspolicy/internal/readfile"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// maxFile is the maximum size of a file in bytes.
const maxFile = 16 << 20

// maxLines is the maximum number of lines that are read.
const maxLines = 10 * MaxJar

// saveAfter is the time from a change to the write of the file.
const saveAfter = time.Second

// scopeLine begins the line before the cookies of a scope, except the empty one.
// For lws and curl it is a comment.
const scopeLine = "# sspolicy scope: "

// httpOnlyMark begins the line of a cookie with HttpOnly, as in curl.
const httpOnlyMark = "#HttpOnly_"

// Open returns a jar with the cookies of the file, if that exists. It ignores
// invalid lines. The caller must call Close, which writes the last changes.
func Open(o Options) (*Jar, error) {
	j := New()
	j.o = o
	if o.File == "" {
		return j, nil
	}
	f, err := readfile.Open(o.File)
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil
	} else if err != nil {
		return nil, fmt.Errorf("sspolicy: cookies: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, fmt.Errorf("sspolicy: cookies: %w", err)
	} else if info.Size() > maxFile {
		return nil, fmt.Errorf("sspolicy: cookies: %s: larger than %d MiB", o.File, maxFile>>20)
	}
	bad, err := j.read(f, time.Now())
	if err != nil {
		return nil, fmt.Errorf("sspolicy: cookies: %s: %w", o.File, err)
	}
	if bad > 0 && o.Logger != nil {
		o.Logger.Warn("sspolicy: the cookie file has invalid lines", "file", o.File, "lines", bad)
	}
	return j, nil
}

// read reads a file and returns the number of invalid lines.
func (j *Jar) read(r io.Reader, now time.Time) (bad int, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	lines := bufio.NewScanner(io.LimitReader(r, maxFile))
	lines.Buffer(nil, maxFile+1)
	var key transport.CookieScope
	known := true // key is valid
	for n := 0; lines.Scan(); n++ {
		if n == maxLines {
			return bad + 1, nil
		}
		line := strings.TrimSuffix(lines.Text(), "\r")
		httpOnly := false
		switch {
		case strings.HasPrefix(line, scopeLine):
			if key, known = parseScope(line[len(scopeLine):]); !known {
				bad++
			}
			continue
		case strings.HasPrefix(line, httpOnlyMark):
			line, httpOnly = line[len(httpOnlyMark):], true
		case line == "", line[0] == '#':
			continue
		}
		u, c, ok := parseLine(line)
		if !ok || !known {
			bad++
			continue
		}
		c.HttpOnly = httpOnly
		if c.Expires.IsZero() || c.Expires.After(now) {
			before := j.order
			if j.setLocked(j.key(key), u, c, now); j.order == before {
				bad++
			}
		}
	}
	return bad, lines.Err()
}

// parseScope returns the scope of a scopeLine.
func parseScope(text string) (key transport.CookieScope, ok bool) {
	for _, to := range []*string{&key.StreamType, &key.Peer} {
		quoted, err := strconv.QuotedPrefix(text)
		if err != nil {
			return key, false
		}
		text = strings.TrimPrefix(text[len(quoted):], " ")
		*to, _ = strconv.Unquote(quoted)
	}
	return key, text == ""
}

// parseLine returns the cookie of a line, and a URL that may set it.
//
// curl and lws disagree about the second column: in files of curl TRUE means that
// subdomains get the cookie too, and the domain begins with a dot; in files of lws
// it means that they do not. So the dot decides: no host gets a cookie of another
// one.
func parseLine(line string) (u *url.URL, c *http.Cookie, ok bool) {
	f := strings.Split(line, "\t")
	if len(f) == 6 {
		f = append(f, "") // an empty value
	}
	if len(f) != 7 || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) || strings.Contains(f[5]+f[6], ";") {
		return nil, nil, false
	}
	expires, err := strconv.ParseInt(f[4], 10, 64)
	if err != nil || expires < 0 || !strings.HasPrefix(f[2], "/") {
		return nil, nil, false
	}
	// Parse it like a Set-Cookie header, so that it passes the same checks.
	if c, ok = parseSetCookie(f[5] + "=" + f[6]); !ok || c.Name != f[5] {
		return nil, nil, false
	}
	c.Path, c.Secure = f[2], f[3] == "TRUE"
	if expires > 0 {
		c.Expires = time.Unix(min(expires, 1<<40), 0)
	}
	host, dot := strings.CutPrefix(f[0], ".")
	if host == "" || strings.ContainsAny(host, "/?#@[]%\\ ") {
		return nil, nil, false
	}
	if dot {
		c.Domain = host
	}
	return (&cookie{id: id{path: c.Path}}).url(host), c, true
}

// textLocked returns the contents of the file.
func (j *Jar) textLocked(now time.Time) []byte {
	var b bytes.Buffer
	b.WriteString("# Netscape HTTP Cookie File\n")
	keys := make([]transport.CookieScope, 0, len(j.scopes))
	for key := range j.scopes {
		keys = append(keys, key)
	}
	// The empty scope comes first and has no scopeLine.
	slices.SortFunc(keys, func(a, b transport.CookieScope) int {
		return strings.Compare(a.StreamType+"\x00"+a.Peer, b.StreamType+"\x00"+b.Peer)
	})
	truth := map[bool]string{false: "FALSE", true: "TRUE"}
	for _, key := range keys {
		s := j.scopes[key]
		if key != (transport.CookieScope{}) {
			fmt.Fprintf(&b, "%s%q %q\n", scopeLine, key.StreamType, key.Peer)
		}
		all := make([]*cookie, 0, len(s.cookies))
		for _, k := range s.cookies {
			all = append(all, k)
		}
		slices.SortFunc(all, func(a, b *cookie) int { return int(int64(a.order) - int64(b.order)) })
		for _, k := range all {
			if k.expired(now) || strings.ContainsFunc(k.path, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				continue
			}
			if k.httpOnly {
				b.WriteString(httpOnlyMark)
			}
			domain, expires := k.domain, int64(0)
			if !k.hostOnly {
				domain = "." + domain
			}
			if !k.expires.IsZero() {
				expires = k.expires.Unix()
			}
			fmt.Fprintf(&b, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", domain, truth[!k.hostOnly], k.path, truth[k.secure], expires, k.name, k.value)
		}
	}
	return b.Bytes()
}

// saveLaterLocked schedules a write of the file.
func (j *Jar) saveLaterLocked() {
	if j.o.File == "" || j.save != nil || j.closed {
		return
	}
	j.save = time.AfterFunc(saveAfter, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.save == nil {
			return
		}
		j.save = nil
		if err := j.writeLocked(); err != nil && j.o.Logger != nil {
			j.o.Logger.Error("sspolicy: cannot write the cookies", "err", err)
		}
	})
}

// Close writes the file if the cookies have changed. After Close the jar works in
// memory only.
func (j *Jar) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	if j.save == nil && !j.failed {
		return nil
	}
	if j.save != nil {
		j.save.Stop()
		j.save = nil
	}
	return j.writeLocked()
}

// writeLocked writes the file.
func (j *Jar) writeLocked() error {
	err := atomicfile.WritePrivate(j.o.File, j.textLocked(time.Now()))
	if j.failed = err != nil; j.failed {
		return fmt.Errorf("sspolicy: cookies: %w", err)
	}
	return nil
}
