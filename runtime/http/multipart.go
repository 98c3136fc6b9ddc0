package http

import (
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/textproto"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A form is the layout of a multipart/form-data request (RFC 7578): the headers of
// its parts, each of which holds the message of a streamtype.
type form struct {
	parts    []textproto.MIMEHeader
	overhead int64 // bytes of the body without the messages
}

// newForm returns the form of the streamtypes that share a request, or nil if the
// request is not multipart.
func newForm(chain []*policy.StreamType) (*form, error) {
	if !slices.ContainsFunc(chain, func(st *policy.StreamType) bool { return isMultipart(st.HTTP) }) {
		return nil, nil
	}
	f := &form{}
	for _, st := range chain {
		if !isMultipart(st.HTTP) {
			continue
		}
		h, err := partHeader(st.HTTP)
		if err != nil {
			return nil, fmt.Errorf("streamtype %q: %w", st.Name, err)
		}
		f.parts = append(f.parts, h)
	}
	switch first := chain[0]; {
	case len(f.parts) < len(chain):
		return nil, fmt.Errorf("%w: rideshare of %q: set http_multipart_name on all streamtypes that share a request, or on none",
			transport.ErrUnsupported, first.Name)
	case first.HTTP.WWWFormURLEncoded:
		return nil, fmt.Errorf("%w: http_multipart_name together with http_www_form_urlencoded", transport.ErrUnsupported)
	}
	var n countingWriter
	w := multipart.NewWriter(&n)
	for _, h := range f.parts {
		_, _ = w.CreatePart(h)
	}
	_ = w.Close()
	f.overhead = int64(n) // all boundaries have the same length
	return f, nil
}

func isMultipart(h *policy.HTTP) bool {
	return h.Multipart || h.MultipartName != "" || h.MultipartFilename != "" || h.MIMEContentType != ""
}

// partHeader returns the headers of the part of a streamtype. Names are escaped as
// mime/multipart does.
func partHeader(h *policy.HTTP) (textproto.MIMEHeader, error) {
	if h.MultipartName == "" && !h.Multipart { // required by RFC 7578 section 4.2
		return nil, fmt.Errorf("%w: a part without a name: set http_multipart_name", transport.ErrUnsupported)
	}
	for _, k := range []struct{ key, value string }{
		{"http_multipart_name", h.MultipartName},
		{"http_multipart_filename", h.MultipartFilename},
		{"http_mime_content_type", h.MIMEContentType},
	} {
		if strings.ContainsFunc(k.value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return nil, fmt.Errorf("%w: %s with a control character", transport.ErrUnsupported, k.key)
		}
	}
	disposition := multipart.FileContentDisposition(h.MultipartName, h.MultipartFilename)
	if h.MultipartFilename == "" {
		disposition = strings.TrimSuffix(disposition, `; filename=""`)
	}
	header := textproto.MIMEHeader{"Content-Disposition": {disposition}}
	if h.MIMEContentType != "" {
		if _, _, err := mime.ParseMediaType(h.MIMEContentType); err != nil {
			return nil, fmt.Errorf("%w: http_mime_content_type %q: %w", transport.ErrUnsupported, h.MIMEContentType, err)
		}
		header["Content-Type"] = []string{h.MIMEContentType}
	}
	return header, nil
}

type countingWriter int64

func (n *countingWriter) Write(p []byte) (int, error) {
	*n += countingWriter(len(p))
	return len(p), nil
}

// begin writes the boundary and headers before the message of part i.
func (f *form) begin(w *multipart.Writer, i int) { _, _ = w.CreatePart(f.parts[i]) }

// end writes the last boundary.
func (f *form) end(w *multipart.Writer) { _ = w.Close() }

var _ io.Writer = (*countingWriter)(nil)
