package ring

import "net"

// Recheck closes connections, either way, whose other side's certificate counts no longer: revoked, or at its end. Call it when enrolment has learned of
// revocations; it is done each minute besides. Who was a member loses its places because it cannot be reached any more.
func (r *Ring) Recheck() {
	now := r.cfg.Now()
	verdicts := map[string]bool{}
	fallen := func(c net.Conn) bool {
		t, ok := tlsOf(c)
		if !ok || len(t.PeerCertificates) == 0 {
			return false
		}
		key := string(t.PeerCertificates[0].Raw)
		bad, known := verdicts[key]
		if !known {
			_, err := partyOf(r.n.id, t.PeerCertificates, now)
			bad = err != nil
			verdicts[key] = bad
		}
		return bad
	}
	for _, list := range [][]net.Conn{r.w.accepted(), r.q.kept(), r.g.dialled()} {
		for _, c := range list {
			if fallen(c) {
				c.Close()
			}
		}
	}
}

// accepted are the connections that others have opened.
func (w *wire) accepted() (list []net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.open {
		list = append(list, c)
	}
	return list
}

// kept are the idle connections of requests. One that is closed is found out when it is used next, and another is opened.
func (q *requests) kept() (list []net.Conn) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, x := range q.idle {
		list = append(list, x.c)
	}
	return list
}

// dialled are the connections on which we gossip.
func (g *gossip) dialled() (list []net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, l := range g.links {
		if l.c != nil {
			list = append(list, l.c)
		}
	}
	return list
}
