package ring

import (
	"time"

	"imeproxy/ucime/learn"
)

// Health of the ring as one member sees it; the numbers are those of the counter IMEDistributedCacheHealth.
type Health int

// The three states of health.
const (
	Red    Health = 0
	Yellow Health = 1
	Green  Health = 2
)

func (h Health) String() string { return [...]string{"RED", "YELLOW", "GREEN"}[h] }

// BootstrapStatus is what is known of one bootstrap server (`show ime dht summary`).
type BootstrapStatus struct {
	Name        learn.PeerID
	LastContact time.Duration // since its last token; negative: none yet
	Sequence    uint64        // of that token: the Unix second it was made
	Delay       time.Duration // from bootstrap to us, clocks' difference included
	Distance    int           // Peer Count Distance: how far its count of peer IDs is from ours
}

// Status is a member's view of the ring.
type Status struct {
	Peers        []learn.PeerID // our own
	Health       Health
	Reason       string // why it is not green
	Bootstraps   []BootstrapStatus
	Members      int  // servers, we among them
	NodeCount    int  // peer IDs (IMEDistributedCacheNodeCount)
	Quota        int  // numbers that we may publish
	QuotaUsed    int  // numbers that we were told to publish
	OverQuota    bool // QuotaUsed is more than Quota (alert IMEOverQuota)
	Placed       int  // numbers that lie with all their holders
	StoredData   int  // bytes that we hold for the ring
	StoredCount  int  // records
	Banned       bool
	Admitted     bool
	Update       bool // the ring requires newer software (alert SWUpdateRequired)
	Required     uint32
	MOTD         string
	SettingsSeq  uint64
	IsBootstrap  bool
	CertExpires  time.Time
	Contested    int    // members that gossip calls dead and that we still see
	LimitRefused uint64 // requests beyond a member's budget
	Counters
}

func (n *node) status() Status {
	now := n.now()
	n.mu.Lock()
	defer n.mu.Unlock()
	s := Status{
		Peers: n.self.peers, Members: len(n.members), NodeCount: n.countPeers(), Quota: n.quota(), QuotaUsed: len(n.pubs) + len(n.left),
		StoredData: n.store.bytes, StoredCount: n.store.n, Banned: n.banned, Admitted: n.admission != nil, IsBootstrap: n.authority,
		CertExpires: n.certEnds, Contested: len(n.contested), LimitRefused: n.storing.refused + n.reading.refused + n.asking.refused, Counters: n.count,
	}
	s.OverQuota = s.QuotaUsed > s.Quota
	late := false
	for _, p := range n.pubs {
		whole := p.hashed && len(p.seats) > 0
		for _, x := range p.seats {
			c := p.at[x.m.Name]
			whole = whole && c != nil && c.ends.After(now)
			late = late || c != nil && !c.waiting.IsZero() && now.Sub(c.waiting) > waitLimit
		}
		if whole {
			s.Placed++
		}
	}
	if g := n.settings; g != nil {
		s.MOTD, s.Required, s.SettingsSeq = g.MOTD, g.RequiredVersion, g.Sequence
		s.Update = n.software < g.RequiredVersion
		for _, b := range g.Bootstraps {
			x := BootstrapStatus{Name: b.Name, LastContact: -1}
			if l := n.tokens[b.Name]; l != nil {
				x.LastContact, x.Sequence, x.Delay = now.Sub(l.at), l.t.sequence, l.at.Sub(l.t.made)
				if x.Distance = s.NodeCount - int(l.t.peers); x.Distance < 0 {
					x.Distance = -x.Distance
				}
			}
			s.Bootstraps = append(s.Bootstraps, x)
		}
	}
	s.Health, s.Reason = n.health(&s, now, late)
	return s
}

// health is the rule of docs/protocol/ring.md. The lock is held.
func (n *node) health(s *Status, now time.Time, late bool) (Health, string) {
	switch {
	case s.Banned:
		return Red, "banned from the ring"
	case !s.Admitted:
		return Red, "not admitted by a bootstrap server"
	case n.last == nil || now.Sub(n.last.at) > 10*n.tokenEvery:
		return Red, "no bootstrap server was heard of"
	case n.hadOthers && s.Members < 2:
		return Red, "no other member is reachable"
	case now.Sub(n.last.at) > 3*n.tokenEvery:
		return Yellow, "no bootstrap server was heard of lately"
	case late:
		return Yellow, "numbers wait for a holder"
	}
	for _, b := range s.Bootstraps {
		if b.LastContact < 0 || b.LastContact > 3*n.tokenEvery {
			return Yellow, "bootstrap server " + b.Name.String() + " is silent"
		}
	}
	if l := n.last; l != nil {
		d := s.NodeCount - int(l.t.peers)
		if d = max(d, -d); d > 2 && d*5 > int(l.t.peers) {
			return Yellow, "a bootstrap server counts other members: the ring may be split"
		}
	}
	return Green, ""
}
