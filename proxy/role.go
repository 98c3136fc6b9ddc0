package proxy

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Role defines what some clients may do. A Proxy keeps it and never changes it.
type Role struct {
	Name string

	// Users and Groups select clients of unix sockets, on Linux, by the user and
	// the primary group of the process. Certificates selects clients of TLS, by the
	// common name or a DNS name of the certificate. A client that matches one of
	// them has the role. If all are empty, every client has it.
	Users, Groups []uint32
	Certificates  []string

	// StreamTypes are patterns, as for [path.Match], of the streamtypes that the
	// role may use; nil means all.
	StreamTypes []string

	// MaxLinks limits the number of concurrent links of the role, MaxBuffered the
	// bytes that they buffer, and MaxRate the bytes of payload per second in both
	// directions together. 0 means no limit. If MaxBuffered or MaxRate is reached,
	// the client or its peer has to wait; each link can always buffer one frame.
	// Metadata counts against MaxBuffered until the link ends; a link that sets
	// more than 4 KiB of it while the role has reached MaxBuffered is closed.
	MaxLinks    int
	MaxBuffered int64
	MaxRate     int64

	// HideErrors hides the causes of failed connections, which may name hosts, from
	// clients of package sspc. Clients of lws never receive them.
	HideErrors bool
}

// matches reports whether a client has the role.
func (r *Role) matches(p Peer) bool {
	if len(r.Users)+len(r.Groups)+len(r.Certificates) == 0 {
		return true
	}
	return p.Known && (slices.Contains(r.Users, p.UID) || slices.Contains(r.Groups, p.GID)) ||
		slices.ContainsFunc(p.Names, func(name string) bool { return slices.Contains(r.Certificates, name) })
}

// allows reports whether the role may use a streamtype.
func (r *Role) allows(streamtype string) bool {
	return r.StreamTypes == nil || slices.ContainsFunc(r.StreamTypes, func(pattern string) bool {
		ok, err := path.Match(pattern, streamtype)
		return ok && err == nil
	})
}

// errors reports whether a client may see the causes of failures.
func (b *budget) errors() bool { return b != nil && !b.role.HideErrors }

// A budget tracks the usage of the links of a role.
type budget struct {
	role     *Role
	links    atomic.Int64
	buffered atomic.Int64 // bytes
	bucket   bucket
}

func newBudgets(roles []*Role) []*budget {
	if roles == nil {
		return []*budget{{role: new(Role)}}
	}
	all := []*budget{} // not nil: nothing is allowed
	for _, r := range roles {
		all = append(all, &budget{role: r, bucket: bucket{rate: float64(r.MaxRate)}})
	}
	return all
}

// The errors of refusals.
var (
	errNoRole      = errors.New("no role matches this client")
	errRoleLinks   = errors.New("too many links of the role")
	errRoleForbids = errors.New("the role may not use the streamtype")

	errRoleMetadata = fmt.Errorf("more than %d bytes of metadata while the role holds max_buffered", readSize)
)

// enter returns the budget for a new stream.
func (p *Proxy) enter(peer Peer, streamtype string) (*budget, error) {
	key := peer.key()
	p.mu.Lock()
	budgets, links := p.budgets, p.peers[key].named
	p.mu.Unlock()
	i := slices.IndexFunc(budgets, func(b *budget) bool { return b.role.matches(peer) })
	if i < 0 {
		return nil, errNoRole
	}
	b := budgets[i]
	if !b.role.allows(streamtype) {
		return nil, fmt.Errorf("role %q: %w", b.role.Name, errRoleForbids)
	}
	if b.role.MaxLinks == 0 && key != "" && links >= max(1, p.o.MaxLinks/namedShare) {
		return nil, errTooManyNamed
	}
	if n := b.links.Add(1); b.role.MaxLinks > 0 && n > int64(b.role.MaxLinks) {
		b.links.Add(-1)
		return nil, fmt.Errorf("role %q: %w", b.role.Name, errRoleLinks)
	}
	return b, nil
}

// SetRoles replaces the roles for new links; nil allows everything to everybody.
// Existing links keep their role.
func (p *Proxy) SetRoles(roles []*Role) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.budgets = newBudgets(roles)
}

// full reports whether the role has reached MaxBuffered.
func (b *budget) full() bool {
	return b != nil && b.role.MaxBuffered > 0 && b.buffered.Load() >= b.role.MaxBuffered
}

// spend counts n bytes of payload, and returns how long to wait.
func (b *budget) spend(n int) time.Duration {
	if b == nil || b.role.MaxRate <= 0 {
		return 0
	}
	return b.bucket.take(n)
}

// accountLocked updates the budget with the size of the link's buffers.
func (l *link) accountLocked() {
	if l.budget == nil {
		return
	}
	n := int64(l.in.cost() + len(l.out.buf) + l.setSize + l.reading)
	l.budget.buffered.Add(n - l.accounted)
	l.accounted = n
}

// leaveLocked returns the link's part of the budget.
func (l *link) leaveLocked() {
	if l.budget == nil {
		return
	}
	l.budget.links.Add(-1)
	l.budget.buffered.Add(-l.accounted)
	l.budget = nil
}

// A bucket limits a rate. It allows a burst of one second.
type bucket struct {
	mu   sync.Mutex
	rate float64 // per second
	debt float64 // exceeds the burst if more than rate
	last time.Time
}

// take takes n, and returns how long to wait.
func (b *bucket) take(n int) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.decayLocked()
	b.debt += float64(n)
	return time.Duration(max(0, b.debt-b.rate) / b.rate * float64(time.Second))
}

// allow takes 1 if that needs no wait, and reports whether it did.
func (b *bucket) allow() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.decayLocked()
	if b.debt+1 > b.rate {
		return false
	}
	b.debt++
	return true
}

func (b *bucket) decayLocked() {
	now := time.Now()
	if !b.last.IsZero() {
		b.debt = max(0, b.debt-now.Sub(b.last).Seconds()*b.rate)
	}
	b.last = now
}
