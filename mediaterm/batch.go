package mediaterm

import "encoding/binary"

// sumList is sums of a batch that are made together.
type sumList struct {
	n    int
	jobs [batchSize]sumJob
	tags [batchSize][]byte // where the sums go, of packets that are sealed
}

// forget lets go of the messages: a ring's memory must not be held.
func (l *sumList) forget() {
	clear(l.jobs[:l.n])
	clear(l.tags[:l.n])
	l.n = 0
}

// batch takes n datagrams to their streams, and queues what is to be sent for them, in their order. The sums of those that come sealed are made
// together before the first of them is opened; those of what leaves sealed, before the first is queued. The caller holds the mutex.
func (w *worker) batch(n int) {
	w.touch(n)
	if w.crypt.short.lanes > 0 {
		w.foresee(n)
		w.crypt.later = &w.sealed
	}
	for i := range n {
		w.one(&w.slots[i])
	}
	w.crypt.later = nil
	w.crypt.sumAll(w.sealed.jobs[:w.sealed.n])
	for i := range w.sealed.n {
		copy(w.sealed.tags[i], w.sealed.jobs[i].sum[:])
	}
	for i := range n {
		s := &w.slots[i]
		if s.leaves {
			w.queue(s, s.end.stream)
		}
		s.pkt, s.sum = nil, nil
		s.tapped.release()
	}
	w.opened.forget()
	w.sealed.forget()
}

// foresee makes the sums that opening the packets of a batch will need, as far as that can be told now.
func (w *worker) foresee(n int) {
	l := &w.opened
	for i := range n {
		s := &w.slots[i]
		e := s.end
		if e == nil || e.stream == nil || e.glutted(s, w.engine.portLimit) {
			continue
		}
		if j := &l.jobs[l.n]; e.stream.legs[e.side].foresee(j, s.pkt) {
			s.sum = j
			l.n++
		}
	}
	w.crypt.sumAll(l.jobs[:l.n])
}

// glutted tells whether flooded will be true whatever else comes.
func (e *portEnd) glutted(s *slot, limit int) bool {
	who := 0
	if s.src == e.friend {
		who = 1
	}
	return sliceOf(s.at) == e.slice && int(e.came[who]) >= limit
}

// foresee describes the sum that opening a packet under the current key will need. ok is false when it will need none, as a replay does, or when
// that is not worth finding out. What is foreseen need not come true: others of the batch come first.
func (l *leg) foresee(j *sumJob, pkt []byte) (ok bool) {
	u := l.openKey
	if u == nil || u.crypt == nil || u.own.rtp.aead != nil || len(pkt) >= maxDatagram || classify(pkt) != kindRTP || u.spent(kindRTP) {
		return false
	}
	h := parseRTP(pkt)
	index := indexGuess(0, h.seq)
	if s := u.find(h.ssrc); s != nil {
		index = indexGuess(s.index.highest, h.seq)
		if s.index.peek(index) != fresh {
			return false
		}
	} else if u.sources() >= maxSSRCs {
		return false
	}
	n := len(pkt) - int(u.overhead)
	if n < rtpHeaderSize(pkt) || !u.own.hasMKI(pkt[n:n+len(u.own.mki)]) {
		return false
	}
	j.mac, j.msg, j.extra = &u.own.rtp.mac, pkt[:n], rocLen
	binary.BigEndian.PutUint32(j.more[:], uint32(index>>16))
	return true
}
