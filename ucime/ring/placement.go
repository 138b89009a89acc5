package ring

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"imeproxy/ucime/learn"
)

const (
	copies = 3 // holders of a record
	places = 6 // how far down the order a holder still accepts: members learn of each other at different times
)

// seat is a member's claim to hold a record: rendezvous hashing, the highest score wins.
type seat struct {
	score uint64
	m     *Member
}

func scoreOf(peers []learn.PeerID, h Hash) uint64 {
	var top uint64
	var b [48]byte
	copy(b[16:], h[:])
	for _, p := range peers {
		copy(b[:], p[:])
		sum := sha256.Sum256(b[:])
		top = max(top, binary.BigEndian.Uint64(sum[:]))
	}
	return top
}

func compareSeats(a, b seat) int {
	if c := cmp.Compare(b.score, a.score); c != 0 {
		return c
	}
	return comparePeers(a.m.Name, b.m.Name)
}

// seat puts m among the best n seats if it belongs there, and says whether it does.
func insertSeat(seats []seat, s seat, n int) ([]seat, bool) {
	i, _ := slices.BinarySearchFunc(seats, s, compareSeats)
	if i >= n {
		return seats, false
	}
	seats = slices.Insert(seats, i, s)
	return seats[:min(len(seats), n)], true
}

// best returns the n members with the highest scores for h, the highest first. A member stands once however many
// peer IDs it has: copies on one machine are one copy.
func best(members []*Member, h Hash, n int) []seat {
	seats := make([]seat, 0, n+1)
	for _, m := range members {
		seats, _ = insertSeat(seats, seat{scoreOf(m.Peers, h), m}, n)
	}
	return seats
}

// reseat gives a member that is among the seats its new description.
func reseat(seats []seat, m *Member) {
	for i := range seats {
		if seats[i].m.Name == m.Name {
			seats[i].m = m
		}
	}
}

// seated says whether a member is among the seats.
func seated(seats []seat, name learn.PeerID) bool {
	return slices.ContainsFunc(seats, func(s seat) bool { return s.m.Name == name })
}
