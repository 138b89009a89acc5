package pvp

import (
	"net/netip"
	"sync"
	"time"

	"imeproxy/ucime/learn"
)

// placeTime is how long a validation keeps its place whoever else comes: honest ones take less.
const placeTime = 2 * time.Second

// places are the validations that run on the called side at a time. When all are taken, one that has taken longer than placeTime gives way: of the network that has the most,
// of its peer that has the most, the oldest. So peers that open connections and say nothing drive out each other.
type places struct {
	most int

	mu   sync.Mutex // guards what follows
	open []*place   // the oldest first
}

type place struct {
	peer    learn.PeerID
	network netip.Prefix
	since   time.Time
	cut     func() // ends the connection
}

// enter takes a place, nil where there is none; victim is the one that ends in its stead.
func (s *places) enter(p place, now time.Time) (mine, victim *place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	mine = &p
	mine.since = now
	if len(s.open) >= s.most {
		if victim = s.surplus(mine, now); victim == nil {
			return nil, nil
		}
		s.drop(victim)
	}
	s.open = append(s.open, mine)
	return mine, victim
}

func (s *places) surplus(newcomer *place, now time.Time) (victim *place) {
	networks, peers := map[netip.Prefix]int{newcomer.network: 1}, map[learn.PeerID]int{newcomer.peer: 1}
	for _, o := range s.open {
		networks[o.network]++
		peers[o.peer]++
	}
	for _, o := range s.open {
		if now.Sub(o.since) < placeTime {
			continue
		}
		if victim == nil || networks[o.network] > networks[victim.network] || networks[o.network] == networks[victim.network] && peers[o.peer] > peers[victim.peer] {
			victim = o
		}
	}
	return victim
}

func (s *places) drop(p *place) {
	for i, o := range s.open {
		if o == p {
			s.open = append(s.open[:i], s.open[i+1:]...)
			return
		}
	}
}

// leave gives a place back, also one that has given way.
func (s *places) leave(p *place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(p)
}
