package ring

import (
	"bufio"
	"io"
	"net"

	"imeproxy/ucime/learn"
)

// serveSync hands an accepted stream to memberlist, which closes it after 10 s at the latest.
func (g *gossip) serveSync(p *party, c net.Conn) {
	if !g.started.Load() { // nobody would take it, and it would hold its place until the other side closes
		c.Close()
		return
	}
	select {
	case g.streams <- g.newStream(c, p.name, true):
	case <-g.w.ctx.Done():
		c.Close()
	}
}

// stream is a sync connection: bounded, only in memberlist's plain forms, and what it says of members is verified before memberlist sees it.
type stream struct {
	net.Conn
	g        *gossip
	by       learn.PeerID // the other end
	accepted bool
	begun    bool
	from     io.Reader
	head     []byte      // has been looked at, and memberlist has not read it yet
	entries  int         // of a push/pull that follow
	err      error       // that ended it
	stop     func() bool // nil for an accepted one
}

func (g *gossip) newStream(c net.Conn, by learn.PeerID, accepted bool) *stream {
	return &stream{Conn: c, g: g, by: by, accepted: accepted, from: bufio.NewReader(io.LimitReader(c, syncMax))}
}

func (s *stream) Close() error {
	if s.stop != nil {
		s.stop()
	}
	return s.Conn.Close()
}

func (s *stream) Read(b []byte) (int, error) {
	if len(s.head) == 0 && s.err == nil {
		s.next()
	}
	if s.err != nil {
		return 0, s.err
	}
	if len(s.head) > 0 {
		k := copy(b, s.head)
		s.head = s.head[k:]
		return k, nil
	}
	return s.from.Read(b)
}

// next reads the head of the stream, then the next entry; after the last one there is nothing to look at.
func (s *stream) next() {
	switch {
	case !s.begun:
		s.begun = true
		if s.head, s.entries, s.err = readHead(s.from); s.err == nil && s.accepted && s.head[0] == mlPushPull && !s.g.maySync(s.by) {
			s.err = CodeThrottled
		}
	case s.entries > 0:
		s.entries--
		s.head, s.err = s.g.entry(s.from, s.by)
	}
}

// maySync spends a member's budget of full syncs: each is answered with all members.
func (g *gossip) maySync(by learn.PeerID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.syncing.take(by, g.w.n.now(), syncsBurst, syncsEach/g.every.Seconds(), 1)
}
