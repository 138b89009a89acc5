package peerserver

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"

	"imeproxy/ucime/enroll"
	"imeproxy/ucime/learn"
	"imeproxy/ucime/ring"
	"imeproxy/ucime/vap"
)

// Ring is the distributed cache as a Directory.
type Ring struct{ *ring.Ring }

// Lookup asks the ring who claims a number.
func (r Ring) Lookup(ctx context.Context, number learn.Number) ([]Claim, error) {
	found, err := r.Ring.Lookup(ctx, number)
	if err != nil {
		return nil, fmt.Errorf("ring: %w", err)
	}
	var out []Claim
	for _, c := range found {
		out = append(out, Claim{Peer: c.Peer, Addr: c.Address})
	}
	return out, nil
}

// ringIdentity is our identity towards other validators: whom the ring has banned may prove no call either, and is asked for none.
type ringIdentity struct {
	*enroll.Member
	ring *ring.Ring
}

// Admitted says why the holder may not take part: revoked, or banned.
func (i ringIdentity) Admitted(cert *x509.Certificate) error {
	if err := i.Member.Admitted(cert); err != nil {
		return err
	}
	return i.ring.Barred(cert)
}

// Publish makes the numbers of all services, and no others of published, ours in the ring. published is what was published last; it returns what is now, also when
// the quota has no room for all: the ring takes up the rest as soon as it has.
func (r Ring) Publish(published []learn.Number, all []vap.Publication) ([]learn.Number, error) {
	var now []learn.Number
	for _, p := range all {
		now = slices.AppendSeq(now, p.Numbers.All())
	}
	slices.Sort(now)
	now = slices.Compact(now)
	var gone []learn.Number
	for _, n := range published {
		if _, still := slices.BinarySearch(now, n); !still {
			gone = append(gone, n)
		}
	}
	if len(gone) > 0 {
		r.Unpublish(gone)
	}
	if err := r.Ring.Publish(now); err != nil {
		return now, fmt.Errorf("publish %d numbers in the ring: %w", len(now), err)
	}
	return now, nil
}
