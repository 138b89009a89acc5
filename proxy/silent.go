package proxy

import (
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"time"

	"imeproxy/mediaterm"
)

// Whoever holds a ticket says where his media goes, and may say an address that is not his: with many calls to an answering machine, a call
// agent would flood somebody who never asked. Media needs no consent before it flows, and some far ends have good reason to be silent for a while
// (early media, an announcement, no RTCP). So it flows at once; but of the streams to one network from which for a minute no packet has come with
// the key of its call, a few alone go on.

// The caps of what goes to far ends that are silent.
const (
	maxSilent    = 32          // streams to one network, after silentGrace
	silentGrace  = time.Minute // from the first packet to a silent end in a network
	silentBits   = 24          // a network: neighbours share what a flood would fill
	silentMemory = time.Hour   // of a network to which nothing goes any more
	answersFor   = 24 * time.Hour
	maxAnswering = 4096    // far ends that are remembered
	maxNetworks  = 1 << 15 // networks: more than there can be streams
)

// mediaWithheld is logged of each stream that is to wait.
const mediaWithheld = "media withheld: its far end has never sent any, and many streams go there"

// farEnd is a media address in an enterprise: another enterprise that names it as its own must hear from it by itself.
type farEnd struct {
	domain string
	addr   netip.Addr
}

func (f farEnd) network() netip.Addr {
	p, _ := f.addr.Prefix(silentBits)
	return p.Addr()
}

// silentStream is a stream whose outside end has not been heard since its address was told.
type silentStream struct {
	stream   *mediaterm.Stream
	end      farEnd
	sent     uint64 // packets, when the address was told
	flows    bool   // something has been sent since then
	withheld bool
	gone     bool
}

// silentNetwork is what goes to silent ends of one network.
type silentNetwork struct {
	since, last time.Time // the first and the last look at which something had been sent
	streams     int       // that something is sent to
}

// silentEnds withholds media from far ends that have never answered. Its zero value is not usable: see newSilent. Safe for concurrent use.
type silentEnds struct {
	log *slog.Logger
	now func() time.Time

	mu        sync.Mutex
	list      []*silentStream // in the order in which their addresses were told
	of        map[*mediaterm.Stream]*silentStream
	networks  map[netip.Addr]*silentNetwork
	answering map[farEnd]time.Time // when one was heard in a new call last
	withheld  uint64               // streams so far
}

func newSilent(log *slog.Logger, now func() time.Time) *silentEnds {
	return &silentEnds{
		log: log, now: now, of: make(map[*mediaterm.Stream]*silentStream), networks: make(map[netip.Addr]*silentNetwork), answering: make(map[farEnd]time.Time),
	}
}

// setRemote tells a stream where its outside end wants its media, and watches it until that is heard.
func (s *silentEnds) setRemote(st *mediaterm.Stream, domain string, r mediaterm.Remote) error {
	if s == nil {
		return st.SetRemote(mediaterm.Outside, r)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.of[st]; x != nil {
		x.gone = true // the next look leaves it out
		delete(s.of, st)
	}
	if err := st.SetRemote(mediaterm.Outside, r); err != nil {
		return err
	}
	from, sent, open := st.Heard(mediaterm.Outside)
	if !r.RTP.IsValid() || from.IsValid() || !open {
		return nil
	}
	x := &silentStream{stream: st, end: farEnd{domain, r.RTP.Addr()}, sent: sent}
	if _, ok := s.answering[x.end]; ok {
		return nil
	}
	s.of[st] = x
	s.list = append(s.list, x)
	if n := s.networks[x.end.network()]; n != nil && s.now().Sub(n.since) >= silentGrace {
		if n.streams++; n.streams > maxSilent {
			s.withhold(x)
		}
	}
	return nil
}

// withhold is called with the lock held, as all that follow are.
func (s *silentEnds) withhold(x *silentStream) {
	x.stream.Withhold(mediaterm.Outside, true)
	x.withheld = true
	s.withheld++
	s.log.Warn(mediaWithheld, "event", "media_withheld", "call_id", x.stream.Params().CallID, "domain", x.end.domain,
		"address", x.end.addr.String(), "maximum", maxSilent)
}

// sweep looks once a second who has been heard, and who is to wait for it.
func (s *silentEnds) sweep(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.networks {
		n.streams = 0
	}
	s.hear(now)
	keep := s.list[:0]
	for _, x := range s.list {
		if x.gone {
			continue
		}
		if _, ok := s.answering[x.end]; ok {
			s.release(x)
			delete(s.of, x.stream)
			continue
		}
		keep = append(keep, x)
		if x.flows || x.withheld {
			s.share(x, now)
		}
	}
	clear(s.list[len(keep):])
	s.list = keep
	maps.DeleteFunc(s.networks, func(_ netip.Addr, n *silentNetwork) bool { return now.Sub(n.last) > silentMemory })
	maps.DeleteFunc(s.answering, func(_ farEnd, at time.Time) bool { return now.Sub(at) > answersFor })
}

// hear notes the ends that have been heard, and leaves out the streams that are over.
func (s *silentEnds) hear(now time.Time) {
	for _, x := range s.list {
		if x.gone {
			continue
		}
		from, sent, open := x.stream.Heard(mediaterm.Outside)
		if x.flows = sent > x.sent; open && !from.IsValid() {
			continue
		}
		x.gone = true
		delete(s.of, x.stream)
		if from.Addr() == x.end.addr { // not what a NAT stands for: that another one is there says nothing
			s.remember(x.end, now)
		}
	}
}

// share lets a stream go on, or not, as many go to its network before it.
func (s *silentEnds) share(x *silentStream, now time.Time) {
	n := s.networks[x.end.network()]
	if n == nil {
		if len(s.networks) >= maxNetworks {
			maps.DeleteFunc(s.networks, func(_ netip.Addr, n *silentNetwork) bool { return n.last.Before(now) })
		}
		n = &silentNetwork{since: now}
		s.networks[x.end.network()] = n
	}
	n.last = now
	n.streams++
	switch over := n.streams > maxSilent && now.Sub(n.since) >= silentGrace; {
	case over && !x.withheld:
		s.withhold(x)
	case !over:
		s.release(x)
	}
}

func (s *silentEnds) release(x *silentStream) {
	if x.withheld {
		x.stream.Withhold(mediaterm.Outside, false)
		x.withheld = false
	}
}

// remember notes a far end that has answered; where there are too many, the one that did so longest ago makes room.
func (s *silentEnds) remember(end farEnd, now time.Time) {
	if _, ok := s.answering[end]; !ok && len(s.answering) >= maxAnswering {
		oldest := now
		for _, at := range s.answering {
			if at.Before(oldest) {
				oldest = at
			}
		}
		maps.DeleteFunc(s.answering, func(_ farEnd, at time.Time) bool { return !at.After(oldest) })
	}
	s.answering[end] = now
}

// counts are the streams that are withheld now, and those that have been so far.
func (s *silentEnds) counts() (now int, ever uint64) {
	if s == nil {
		return 0, 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.list {
		if x.withheld && !x.gone {
			now++
		}
	}
	return now, s.withheld
}
