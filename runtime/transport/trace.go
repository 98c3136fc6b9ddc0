package transport

import (
	"context"
	"crypto/tls"
	"net/http/httptrace"
)

// Trace returns the client trace of an attempt's context. The trace and the hooks
// below are never nil. A transport calls those that package net and its library do
// not:
//
//   - GetConn when a request begins; it discards the figures of an earlier one
//   - ConnectStart and ConnectDone
//   - GotConn when its connection is ready
//   - TLSHandshakeStart and TLSHandshakeDone, which Setup.Dial calls
//   - WroteHeaders and WroteRequest when it has been sent
//   - GotFirstResponseByte
func Trace(ctx context.Context) *httptrace.ClientTrace {
	if httptrace.ContextClientTrace(ctx) == nil {
		return &noTrace
	}
	t := noTrace // WithClientTrace adds the hooks of ctx to it
	return httptrace.ContextClientTrace(httptrace.WithClientTrace(ctx, &t))
}

var noTrace = httptrace.ClientTrace{
	GetConn:              func(string) {},
	ConnectStart:         func(string, string) {},
	ConnectDone:          func(string, string, error) {},
	GotConn:              func(httptrace.GotConnInfo) {},
	TLSHandshakeStart:    func() {},
	TLSHandshakeDone:     func(tls.ConnectionState, error) {},
	WroteHeaders:         func() {},
	WroteRequest:         func(httptrace.WroteRequestInfo) {},
	GotFirstResponseByte: func() {},
}
