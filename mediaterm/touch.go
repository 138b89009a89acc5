package mediaterm

import (
	"unsafe"

	"imeproxy/mediaterm/prefetch"
)

// touch fetches what the packets of a batch are about to need into the cache. The state of a thousand calls is not there: packet by packet, each
// would wait for its own, line after line, as where one lies is known from another. Fetched for all packets at once, one step of that way at a
// time, they come side by side. The caller holds the mutex.
func (w *worker) touch(n int) {
	for i := range n {
		if e := w.slots[i].end; e != nil {
			prefetch.Lines(unsafe.Pointer(e), 1)
		}
	}
	for i := range n {
		if e := w.slots[i].end; e != nil && e.stream != nil {
			st := e.stream
			in, out := &st.legs[e.side], &st.legs[e.side.other()]
			prefetch.Lines(unsafe.Pointer(&st.class), 1)
			prefetch.Lines(unsafe.Add(unsafe.Pointer(in), cacheLine), legLines-1)
			prefetch.Lines(unsafe.Pointer(out), legLines-1)
		}
	}
	keys, watchers := w.keys[:0], w.watchers[:0]
	for i := range n {
		if e := w.slots[i].end; e != nil && e.stream != nil {
			st := e.stream
			for _, u := range [2]*keyUse{st.legs[e.side].openKey, st.legs[e.side.other()].sealKey} {
				if u != nil {
					prefetch.Lines(unsafe.Pointer(u), keyLines)
					keys = append(keys, u)
				}
			}
			if st.watcher != nil && e.side == Outside {
				st.watcher.Prefetch(0)
				watchers = append(watchers, st.watcher)
			}
		}
	}
	for _, u := range keys {
		u.own.rtp.ctr.prefetch(w.crypt.short)
	}
	for _, x := range watchers {
		x.Prefetch(1)
	}
	clear(watchers) // a stream that has ended must not be held
}

// keyLines is how many cache lines a packet needs of its key.
const keyLines = (unsafe.Offsetof(keyUse{}.first)+unsafe.Offsetof(source{}.report)-1)/cacheLine + 1

// prefetch fetches the key schedule of AES-128 and the counter.
func (k *counter) prefetch(s shortcuts) {
	if k.state != nil {
		prefetch.Lines(k.state, 3)
		prefetch.Lines(unsafe.Add(k.state, s.ctrN), 1)
	}
}
