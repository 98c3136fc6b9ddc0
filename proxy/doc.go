// Package proxy fulfils the streams of a policy for other processes, as the Secure
// Streams proxy of libwebsockets (lws) does, in the same protocol: programs that are
// built with LWS_SS_USE_SSPC, or with package runtime/sspc, are its clients. Only the
// proxy has the policy, the credentials and the network.
//
// A [Proxy] serves links: connections of a unix socket, or others that carry bytes. Each
// link is one stream of a [runtime.Context].
package proxy
