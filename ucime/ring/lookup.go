package ring

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"imeproxy/ucime/learn"
)

// ErrUnavailable says that no holder answered a look-up: that is not the same as "nobody claims the number".
var ErrUnavailable = errors.New("no holder of the number could be asked")

// Claim is one member's word that a number is its own. It is proved by nothing but a validation.
type Claim struct {
	Peer            learn.PeerID // the claiming peer ID; the validator's certificate must name it
	Address         string       // its validator, at the address that it has in the ring; "" where it is no member now
	Issued, Expires time.Time
	Holders         []learn.PeerID // names of the members that answered with it
}

// lookup asks the three holders of a number at once. Who finds nothing under the key asks under the previous one.
func (n *node) lookup(ctx context.Context, number learn.Number, call caller) ([]Claim, error) {
	if !number.Valid() {
		return nil, fmt.Errorf("%q is no number in +E.164 form", number)
	}
	n.mu.Lock()
	s := n.settings
	n.count.Reads++
	n.mu.Unlock()
	if s == nil {
		return nil, fmt.Errorf("the ring's settings are not known yet: %w", ErrUnavailable)
	}
	keys := [][32]byte{s.Key}
	if s.PrevKey != [32]byte{} {
		keys = append(keys, s.PrevKey)
	}
	for _, k := range keys {
		claims, err := n.lookupUnder(ctx, number, k, s.HashCost, call)
		if err != nil || len(claims) > 0 {
			return claims, err
		}
	}
	return nil, nil
}

func (n *node) lookupUnder(ctx context.Context, number learn.Number, key [32]byte, cost uint32, call caller) ([]Claim, error) {
	sec, err := derive(number, key, cost)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	seats := best(n.members, sec.hash, copies)
	n.mu.Unlock()
	if len(seats) == 0 {
		return nil, ErrUnavailable
	}
	answers := make([]found, len(seats))
	errs := make([]error, len(seats))
	var wg sync.WaitGroup
	for i, s := range seats {
		wg.Go(func() {
			body, err := call(ctx, s.m, typeRead, sec.hash[:])
			if err == nil {
				answers[i], err = decodeFound(body)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	best := map[learn.PeerID]*Claim{}
	silent := 0
	for i, f := range answers {
		if errs[i] != nil {
			silent++
			continue
		}
		for _, c := range n.weigh(f, sec) {
			have := best[c.Peer]
			switch {
			case have == nil || c.Issued.After(have.Issued):
				c.Holders = []learn.PeerID{seats[i].m.Name}
				best[c.Peer] = &c
			case c.Issued.Equal(have.Issued):
				have.Holders = append(have.Holders, seats[i].m.Name)
			}
		}
	}
	if silent == len(seats) {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, errors.Join(errs...))
	}
	var claims []Claim
	for _, c := range best {
		claims = append(claims, *c)
	}
	slices.SortFunc(claims, func(a, b Claim) int { return comparePeers(a.Peer, b.Peer) })
	if len(claims) > 0 {
		n.mu.Lock()
		n.count.ReadsFound++
		n.mu.Unlock()
	}
	return claims, nil
}

// weigh verifies a holder's answer record by record: what a holder invents or brings back counts for nothing.
func (n *node) weigh(f found, sec secrets) []Claim {
	now := n.now()
	signers := map[[32]byte]*party{}
	for _, der := range f.certs {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			continue
		}
		if p, err := partyOf(n.id, []*x509.Certificate{c}, now); err == nil {
			signers[p.print] = p
		}
	}
	var claims []Claim
	refused := uint64(0)
	for _, raw := range f.records {
		c, err := n.weighOne(raw, signers, sec, now)
		if err != nil {
			refused++
			continue
		}
		claims = append(claims, c)
	}
	n.mu.Lock()
	n.count.ClaimsRefused += refused
	n.mu.Unlock()
	return claims
}

func (n *node) weighOne(raw []byte, signers map[[32]byte]*party, sec secrets, now time.Time) (Claim, error) {
	x, err := decodeRecord(raw)
	if err != nil {
		return Claim{}, err
	}
	p := signers[x.cert]
	if p == nil {
		return Claim{}, errors.New("signed by nobody whom we know")
	}
	n.mu.Lock()
	bad := n.settings.bans(p.named)
	n.mu.Unlock()
	switch {
	case bad:
		return Claim{}, CodeBanned
	case x.hash != sec.hash, !slices.Contains(p.peers, x.owner):
		return Claim{}, CodeNotOwner
	case !x.expires.After(now), x.issued.After(now.Add(clockSkew)), x.expires.Sub(x.issued) > lifetime:
		return Claim{}, CodeTime
	case !verify(p.key, "record", x.signed(), x.signature):
		return Claim{}, CodeSignature
	}
	address, err := x.openClaim(sec.seal)
	if err != nil {
		return Claim{}, err
	}
	if address, err = n.validatorOf(p, address); err != nil {
		return Claim{}, err
	}
	return Claim{Peer: x.owner, Address: address, Issued: x.issued, Expires: x.expires}, nil
}
