package certs

import (
	"crypto/x509"
	"errors"
	"fmt"
	"math/bits"
	"time"
)

// mostCerts is the maximum size of a store for Minimize, which tries all subsets,
// small ones first.
const mostCerts = 24

// Minimize returns the smallest part of a store, as indexes, with which all
// questions have the same answer as with the whole store, which must be yes. Of two
// parts of the same size it prefers the one whose certificates are valid for
// longer. If the store allows it, each chain ends in a root, as OpenSSL requires.
func Minimize(store []*x509.Certificate, questions []Question) ([]int, error) {
	if len(store) > mostCerts {
		return nil, fmt.Errorf("the store has %d certificates, and %d is the most", len(store), mostCerts)
	}
	if len(questions) == 0 {
		return nil, errors.New("no chain")
	}
	accepts := acceptsFromRoots
	all := uint32(1)<<len(store) - 1
	for _, q := range questions {
		if !acceptsFromRoots(store, all, q) {
			accepts = acceptsFromAny
			if !acceptsFromAny(store, all, q) {
				q.Store = store
				a := Check(q)
				return nil, fmt.Errorf("the whole store does not verify the chain of %s: %s", subject(q.Chain[0]), a.Problem)
			}
		}
	}
	var best uint32
	var until time.Time
	for size := 1; size <= len(store) && best == 0; size++ {
		for part := uint32(1)<<size - 1; part <= all; part = nextPart(part) {
			if end := earliest(store, part); end.After(until) && acceptsAll(store, part, questions, accepts) {
				best, until = part, end
			}
		}
	}
	var indexes []int
	for i := range store {
		if best&(1<<i) != 0 {
			indexes = append(indexes, i)
		}
	}
	return indexes, nil
}

// nextPart returns the next larger number with as many bits set.
func nextPart(n uint32) uint32 {
	low := n & -n
	ripple := n + low
	if ripple < n {
		return ^uint32(0)
	}
	return ripple | (n^ripple)>>(2+bits.TrailingZeros32(low))
}

// earliest returns when the first certificate of a part expires.
func earliest(store []*x509.Certificate, part uint32) (end time.Time) {
	for i, c := range store {
		if part&(1<<i) != 0 && (end.IsZero() || c.NotAfter.Before(end)) {
			end = c.NotAfter
		}
	}
	return end
}

type acceptFunc func(store []*x509.Certificate, part uint32, q Question) bool

func acceptsAll(store []*x509.Certificate, part uint32, questions []Question, accepts acceptFunc) bool {
	for _, q := range questions {
		if !accepts(store, part, q) {
			return false
		}
	}
	return true
}

// acceptsFromAny verifies like crypto/x509: each certificate of a store can end a
// chain.
func acceptsFromAny(store []*x509.Certificate, part uint32, q Question) bool {
	var roots []*x509.Certificate
	for i, c := range store {
		if part&(1<<i) != 0 {
			roots = append(roots, c)
		}
	}
	_, err := q.Chain[0].Verify(q.options(roots, false))
	return err == nil
}

// acceptsFromRoots verifies like OpenSSL: a chain ends in a self-signed
// certificate, and the other certificates of the store are links of it.
func acceptsFromRoots(store []*x509.Certificate, part uint32, q Question) bool {
	var roots, links []*x509.Certificate
	for i, c := range store {
		switch {
		case part&(1<<i) == 0:
		case SelfIssued(c):
			roots = append(roots, c)
		default:
			links = append(links, c)
		}
	}
	o := q.options(roots, false)
	for _, c := range links {
		o.Intermediates.AddCert(c)
	}
	_, err := q.Chain[0].Verify(o)
	return err == nil
}
