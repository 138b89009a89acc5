package mediaterm

import "unsafe"

// touch reads a word of each cache line that the packets of a batch are about to need. The state of a thousand calls is not in the cache: packet by
// packet, each would wait for its own, line after line, as where one lies is known from another. Read for all packets at once, one step of
// that way at a time, the loads do not wait for each other. The caller holds the mutex.
func (w *worker) touch(n int) {
	var sum uint64
	for i := range n {
		if e := w.slots[i].end; e != nil {
			sum += uint64(e.slice) + uint64(e.friend.Port())
		}
	}
	keys := w.keys[:0]
	for i := range n {
		if e := w.slots[i].end; e != nil && e.stream != nil {
			in, out := &e.stream.legs[e.side], &e.stream.legs[e.side.other()]
			sum += in.touch() + out.touch() + in.stats.RxRTPPackets + in.receptions.first[0].received + out.stats.TxRTPBytes
			if u := in.rx.current(); u != nil {
				keys = append(keys, u)
			}
			if u := out.tx.current(); u != nil {
				keys = append(keys, u)
			}
		}
	}
	for _, u := range keys {
		sum += u.touch()
	}
	for _, u := range keys {
		sum += u.own.rtp.ctr.touch(w.crypt.short)
	}
	w.touched = sum
}

func (l *leg) touch() uint64 {
	return uint64(l.mode) + uint64(l.local.Port()) + uint64(l.source[portRTP].Port()) + uint64(l.remote.RTP.Port())
}

func (u *keyUse) touch() uint64 {
	h := &u.own.rtp
	return u.rtp + u.first.index.highest + uint64(h.salt[0]) + uint64(h.tag)
}

// touch reads the key schedule of AES-128 and the counter.
func (k *counter) touch(s shortcuts) (sum uint64) {
	if k.state == nil {
		return 0
	}
	for at := uintptr(0); at < 256; at += 64 {
		sum += uint64(*(*byte)(unsafe.Add(k.state, at)))
	}
	return sum + *(*uint64)(unsafe.Add(k.state, s.ctrN))
}
