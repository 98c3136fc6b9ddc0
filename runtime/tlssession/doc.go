// Package tlssession keeps TLS sessions, so that a handshake resumes an earlier one
// instead of repeating its certificates and signatures.
//
// A [Cache] holds the sessions of servers by id. Programs can watch it, fill it and
// share it with other processes. [Keys] are ticket keys; a ticket contains an
// encrypted session, so that the server stores nothing. [Clients] holds the
// sessions of clients, optionally in a file. [Sessions] sets these up in a
// [tls.Config], which may belong to any server or client.
//
// # Ids and tickets
//
// crypto/tls has no cache of session ids: it resumes only by tickets, in TLS 1.2
// and in TLS 1.3. With a Cache, the ticket that the client receives is the id of a
// session, 32 random bytes. So a TLS 1.2 client that supports session ids but not
// tickets does not resume. A ticket of more than 32 bytes is an encrypted session.
//
// crypto/tls issues a new ticket in each handshake, including one that resumes, so
// a client that keeps returning has a recent session. A full cache therefore evicts
// the session that expires first.
package tlssession
