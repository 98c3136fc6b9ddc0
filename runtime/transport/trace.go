package transport

import (
	"context"
	"crypto/tls"
	"net/http/httptrace"
)

// Trace returns the client trace of the context of an attempt, never nil. Packages
// net and net/http call its hooks themselves; a transport that works without them
// calls these, which are never nil: GetConn when a request begins, GotConn when
// its connection is ready, TLSHandshakeStart and TLSHandshakeDone, WroteHeaders
// when the request has been sent, GotFirstResponseByte.
func Trace(ctx context.Context) *httptrace.ClientTrace {
	if t := httptrace.ContextClientTrace(ctx); t != nil {
		return t
	}
	return &silent
}

var silent = httptrace.ClientTrace{
	GetConn:              func(string) {},
	GotConn:              func(httptrace.GotConnInfo) {},
	TLSHandshakeStart:    func() {},
	TLSHandshakeDone:     func(tls.ConnectionState, error) {},
	WroteHeaders:         func() {},
	WroteRequest:         func(httptrace.WroteRequestInfo) {},
	GotFirstResponseByte: func() {},
}
