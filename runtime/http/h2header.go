package http

import (
	"bytes"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/secure-streams/sspolicy/runtime/internal/request"
)

const (
	// maxHeaderList limits the headers of a response, counted as in RFC 9113
	// section 10.5.1.
	maxHeaderList = request.MaxHeaderBytes

	// tableSize is the size of the compression tables of both sides.
	tableSize = 4096

	// maxNames limits the cached names of headers.
	maxNames = 256
)

// A responseHead is the content of HEADERS and its CONTINUATION.
type responseHead struct {
	status int
	header http.Header
	err    error
	length int // encoded
}

// cost returns the cost of unneeded headers for the budget.
func (h *responseHead) cost() int { return 1 + h.length>>8 }

// A headerDecoder decodes the headers of responses.
type headerDecoder struct {
	hpack   *hpack.Decoder
	names   map[string]string // canonical form of names
	h       responseHead
	size    uint32
	regular bool     // a header that is not a pseudo-header has been decoded
	values  []string // backing array for values
}

func (d *headerDecoder) init() {
	d.hpack = hpack.NewDecoder(tableSize, d.emit)
	d.hpack.SetMaxStringLength(maxHeaderList)
	d.names = make(map[string]string)
}

// read decodes HEADERS, and reads the CONTINUATION that belongs to it. The decoder
// state belongs to the connection, so the headers of all streams must be decoded.
// The error is one of the connection.
func (d *headerDecoder) read(c *h2Conn, f *http2.HeadersFrame) (responseHead, error) {
	const few = 8
	d.h = responseHead{header: make(http.Header, few)}
	d.values = make([]string, few)
	d.size, d.regular = 0, false
	d.hpack.SetEmitEnabled(true)
	fragment, ended := f.HeaderBlockFragment(), f.HeadersEnded()
	for {
		if d.h.length += len(fragment); d.h.length > maxHeaderList {
			return responseHead{}, &h2Error{http2.ErrCodeEnhanceYourCalm, "headers that are too long"}
		}
		if _, err := d.hpack.Write(fragment); err != nil {
			return responseHead{}, &h2Error{http2.ErrCodeCompression, "headers that cannot be decoded"}
		}
		if ended {
			break
		}
		if err := c.budget.spend(c, 1); err != nil {
			return responseHead{}, err
		}
		next, err := c.in.ReadFrame()
		if err != nil {
			return responseHead{}, c.frameError(err, false)
		}
		more, ok := next.(*http2.ContinuationFrame)
		if !ok {
			return responseHead{}, &h2Error{http2.ErrCodeProtocol, "headers without an end"}
		}
		fragment, ended = more.HeaderBlockFragment(), more.HeadersEnded()
	}
	if err := d.hpack.Close(); err != nil {
		return responseHead{}, &h2Error{http2.ErrCodeCompression, "headers that cannot be decoded"}
	}
	return d.h, nil
}

// emit receives a header.
func (d *headerDecoder) emit(f hpack.HeaderField) {
	if d.size += f.Size(); d.size > maxHeaderList {
		d.fail(errHeader)
		return
	}
	if strings.HasPrefix(f.Name, ":") {
		status, err := strconv.ParseUint(f.Value, 10, 16)
		if d.regular || f.Name != ":status" || d.h.status != 0 || err != nil || status < 100 || status > 999 {
			d.fail(malformed("an invalid pseudo-header"))
		}
		d.h.status = int(status)
		return
	}
	d.regular = true
	name, ok := d.names[f.Name]
	if !ok {
		if !httpguts.ValidHeaderFieldName(f.Name) || strings.ToLower(f.Name) != f.Name {
			d.fail(malformed("an invalid name of a header"))
			return
		}
		name = http.CanonicalHeaderKey(f.Name)
		if len(d.names) < maxNames {
			d.names[f.Name] = name
		}
	}
	if !httpguts.ValidHeaderFieldValue(f.Value) {
		d.fail(malformed("an invalid value of a header"))
		return
	}
	if old := d.h.header[name]; old != nil {
		d.h.header[name] = append(old, f.Value)
		return
	}
	if len(d.values) == 0 {
		d.values = make([]string, 1)
	}
	v := d.values[:1:1]
	d.values = d.values[1:]
	v[0] = f.Value
	d.h.header[name] = v
}

// fail ends the decoding of invalid headers.
func (d *headerDecoder) fail(err error) {
	d.h.err = err
	d.hpack.SetEmitEnabled(false)
}

// A headerEncoder encodes the headers of requests.
type headerEncoder struct {
	hpack *hpack.Encoder
	buf   bytes.Buffer
	names map[string]string // names in lower case
}

func (e *headerEncoder) init() {
	e.hpack = hpack.NewEncoder(&e.buf)
	e.names = make(map[string]string)
}

// resize applies SETTINGS_HEADER_TABLE_SIZE.
func (e *headerEncoder) resize(n uint32) { e.hpack.SetMaxDynamicTableSize(min(n, tableSize)) }

// authority returns the value of :authority.
func authority(req *http.Request) (string, error) {
	host := req.Host
	if host == "" {
		host = req.URL.Host
	}
	host, err := httpguts.PunycodeHostPort(host)
	if err == nil && !httpguts.ValidHostHeader(host) {
		err = errors.New("sspolicy: the host of the request is not valid")
	}
	return host, err
}

// write appends HEADERS, and CONTINUATION if necessary, to the data to be sent.
func (e *headerEncoder) write(c *h2Conn, id uint32, req *http.Request, host string) {
	e.buf.Reset()
	e.field(":authority", host)
	e.field(":method", req.Method)
	e.field(":path", req.URL.RequestURI())
	e.field(":scheme", req.URL.Scheme)
	for name, values := range req.Header {
		switch name {
		case "Host", "Content-Length", "Connection", "Proxy-Connection", "Transfer-Encoding", "Upgrade", "Keep-Alive":
			continue
		case "User-Agent":
			if len(values) == 0 || values[0] == "" {
				continue
			}
		}
		lower, ok := e.names[name]
		if !ok {
			lower = strings.ToLower(name)
			if len(e.names) < maxNames {
				e.names[name] = lower
			}
		}
		for _, v := range values {
			e.field(lower, v)
		}
	}
	if req.ContentLength > 0 || req.ContentLength == 0 && req.Body == nil && hasBody(req.Method) {
		e.field("content-length", strconv.FormatInt(req.ContentLength, 10))
	}
	block := e.buf.Bytes()
	for first := true; first || len(block) > 0; first = false {
		n := min(len(block), c.maxFrame)
		end := n == len(block)
		if first {
			_ = c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block[:n], EndStream: req.Body == nil, EndHeaders: end})
		} else {
			_ = c.framer.WriteContinuation(id, end, block[:n])
		}
		block = block[n:]
	}
}

func (e *headerEncoder) field(name, value string) {
	_ = e.hpack.WriteField(hpack.HeaderField{Name: name, Value: value})
}

// hasBody reports whether a request of that method is expected to have a body.
func hasBody(method string) bool {
	switch method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		return true
	}
	return false
}
