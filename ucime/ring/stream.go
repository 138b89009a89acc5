package ring

import "net"

// serveSync hands an accepted stream to memberlist, which closes it after 10 s at the latest.
func (g *gossip) serveSync(c net.Conn) {
	if !g.started.Load() { // nobody would take it, and it would hold its place until the other side closes
		c.Close()
		return
	}
	select {
	case g.streams <- &stream{Conn: c, left: syncMax}:
	case <-g.w.ctx.Done():
		c.Close()
	}
}

// stream is a sync connection: bounded, and only in memberlist's plain forms.
type stream struct {
	net.Conn
	left  int
	begun bool
	head  []byte      // has been looked at, and memberlist has not read it yet
	stop  func() bool // nil for an accepted one
}

func (s *stream) Close() error {
	if s.stop != nil {
		s.stop()
	}
	return s.Conn.Close()
}

func (s *stream) Read(b []byte) (int, error) {
	if !s.begun {
		s.begun = true
		var err error
		if s.head, err = readHead(s.Conn); err != nil {
			s.left, s.head = 0, nil
			return 0, err
		}
		s.left -= len(s.head)
	}
	if len(s.head) > 0 {
		k := copy(b, s.head)
		s.head = s.head[k:]
		return k, nil
	}
	if s.left <= 0 {
		return 0, errSize
	}
	if len(b) > s.left {
		b = b[:s.left]
	}
	k, err := s.Conn.Read(b)
	s.left -= k
	return k, err
}
