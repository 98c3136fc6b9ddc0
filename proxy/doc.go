// Package proxy executes the streams of a policy for other processes. It implements
// the protocol of the Secure Streams proxy of libwebsockets (lws); its clients are
// programs built with LWS_SS_USE_SSPC or with package runtime/sspc. Only the proxy
// has the policy, the credentials and the network.
//
// A [Proxy] serves links: connections of a unix socket, or any other byte streams.
// Each link is one stream of a [runtime.Context].
package proxy
