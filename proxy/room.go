package proxy

import (
	"net/netip"
	"time"

	"imeproxy/sipalg/dialog"
)

// strangersShare is how many sessions one source may hold when `tls-proxy maximum-sessions` is reached without having shown a valid ticket on
// them; roomEvery is how often at most more than that are looked for: it costs a look at all sessions.
const (
	strangersShare = 256
	roomEvery      = 10 * time.Millisecond
)

// acquire takes one of the sessions that may stand, after making room where none is left.
func (a *Appliance) acquire() bool {
	if a.limiter.Full() {
		a.makeRoom()
	}
	return a.limiter.Acquire()
}

// makeRoom ends the oldest session of the source that holds the most of those that only cost: begun by it, without a valid ticket so far and
// without a call. A certificate is easy to get, and without this whoever has one could keep all others out. Sources within strangersShare are
// left alone.
func (a *Appliance) makeRoom() {
	a.room.Lock()
	defer a.room.Unlock()
	now := a.now()
	if now.Sub(a.roomMade) < roomEvery && !now.Before(a.roomMade) {
		return
	}
	a.roomMade = now
	idle := make(map[netip.Addr]int)
	oldest := make(map[netip.Addr]*session)
	var most netip.Addr
	list, _ := a.sessions.snapshot()
	for _, s := range list {
		if !s.useless() {
			continue
		}
		src := s.remote.Addr()
		idle[src]++
		if o := oldest[src]; o == nil || s.id < o.id {
			oldest[src] = s
		}
		if idle[src] > idle[most] {
			most = src
		}
	}
	if idle[most] > strangersShare {
		oldest[most].end("others need the room: its source holds too many sessions without a valid ticket")
	}
}

// useless tells whether nobody but a stranger has had any use of the session.
func (s *session) useless() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opener == dialog.Outside && !s.ours && !s.welcome && s.calls <= 0 && !s.ended
}

// welcomed notes that a valid ticket was shown on the session.
func (s *session) welcomed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.welcome = true
}
