package peerserver

import (
	"time"

	"imeproxy/ucime/enroll"
	"imeproxy/ucime/learn"
	"imeproxy/ucime/ring"
	"imeproxy/ucime/store"
	"imeproxy/ucime/vap"
)

// Status is a node's state at one moment.
type Status struct {
	Running    bool
	Failed     string // why it could not start; empty: it did, or has no certificate yet
	Enrollment enroll.MemberStatus
	Domain     string
	Setup      *Setup // never changed

	// What follows is there while it runs.
	Ring               ring.Status
	BitsIn, BitsOut    float64 // per second, of the ring
	Clients            []vap.ClientStatus
	Services           []vap.ServiceStatus
	VAP                vap.Stats
	VAPAddresses       map[string]string // by the name of the VAP server
	Learning           learn.Counters
	Pools              map[learn.PeerID]learn.Pool
	Validation         map[string]int64 // pvp.Counters.Values
	Pending            int              // VCRs that wait for their validation
	Terminating        int              // VCRs of calls that came in and can be proven
	AwaitingConfirming int              // validated numbers whose bucket is not full
	OverQuota          string
	Queue              Queue
}

// Queue is the guide's table 37 in this server's terms: work that waits, and work done in the last second, by urgency. High are handshakes of
// validators, normal are validations and numbers to be stored in the ring, low is notifying call agents, lowest is the ring's gossip.
type Queue struct {
	Present   [4]int
	Processed [4]int
}

// Status tells the node's state.
func (n *Node) Status() Status {
	s, r := n.brief()
	if r == nil {
		return s
	}
	v := r.server.VAP()
	s.Clients, s.Services, s.VAPAddresses = v.Clients(), v.Services(), map[string]string{}
	n.mu.Lock()
	instances := n.vap
	n.mu.Unlock()
	for _, i := range instances {
		if a := v.Addr(i.Name); a != nil {
			s.VAPAddresses[i.Name] = a.String()
		}
	}
	_, s.Pools = r.server.Learning()
	for _, p := range s.Pools {
		s.AwaitingConfirming += len(p.Default.Results)
		for _, b := range p.Numbers {
			s.AwaitingConfirming += len(b.Results)
		}
	}
	return s
}

// brief is the state without lists that grow with users, for a look each second.
func (n *Node) brief() (Status, *running) {
	s := Status{Enrollment: n.member.Status(), Domain: n.set.Domain, Setup: &n.set}
	n.mu.Lock()
	r := n.running
	s.Queue.Processed = n.rates.rate
	if n.failed != nil {
		s.Failed = n.failed.Error()
	}
	n.mu.Unlock()
	if r == nil {
		return s, nil
	}
	s.Running = true
	s.Ring = r.ring.Status()
	s.BitsIn, s.BitsOut = r.ring.Bandwidth()
	s.VAP = r.server.VAP().Stats()
	s.Learning = r.server.Learned()
	s.Validation = r.server.Counters().Values()
	s.Pending, s.Terminating = r.server.Awaiting()
	r.mu.Lock()
	if r.overQuota != nil {
		s.OverQuota = r.overQuota.Error()
	}
	r.mu.Unlock()
	s.Queue.Present = [4]int{int(s.Validation["Pending"]), s.Pending + s.Ring.QuotaUsed - s.Ring.Placed, 0, 0}
	return s, r
}

// look tells of what is wrong, and measures what was done since it was called last.
func (n *Node) look() {
	s, r := n.brief()
	now := n.set.Now()
	if r != nil {
		r.server.VAP().SetQuota(uint32(s.Ring.Quota))
	}
	n.mu.Lock()
	n.rates.measure(now, s)
	n.mu.Unlock()
	n.alerts.look(now, s)
}

// rates turns counters into what was done in a second.
type rates struct {
	at   time.Time
	last [4]uint64
	rate [4]int
}

func (q *rates) measure(now time.Time, s Status) {
	v := s.Validation
	done := [4]uint64{
		uint64(v["Runs"] + v["HandshakeFailed"]),
		s.Learning.ValidationAttempts + s.Ring.Stores + s.Ring.Reads,
		s.VAP.Notified + s.VAP.VCRs,
		s.Ring.TokensReceived + s.Ring.ReadsServed,
	}
	d := now.Sub(q.at).Seconds()
	for i := range done {
		q.rate[i] = 0
		if !q.at.IsZero() && d > 0 && done[i] >= q.last[i] {
			q.rate[i] = int(float64(done[i]-q.last[i])/d + 0.5)
		}
	}
	q.at, q.last = now, done
}

// Routes are all learned routes, in the order of services and numbers.
func (n *Node) Routes() ([]store.Route, error) {
	names, err := n.store.Services()
	if err != nil {
		return nil, err
	}
	var out []store.Route
	for _, name := range names {
		routes, err := n.store.Routes(name)
		if err != nil {
			return nil, err
		}
		out = append(out, routes...)
	}
	return out, nil
}
