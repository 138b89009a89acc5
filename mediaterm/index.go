package mediaterm

// replayWindow is the number of packets behind the newest that may still come, for
// SRTP, SRTCP and our own sending indices (RFC 3711 section 3.3.2 asks for 64).
const replayWindow = 128

// indexGuess extends a sequence number to the 48-bit index of RFC 3711 section 3.3.1,
// given the highest index so far. Below 2^15 the rollover counter stays 0, as libsrtp
// and pion have it: all three must agree on every packet.
func indexGuess(highest uint64, seq uint16) uint64 {
	const half = 1 << 15
	roc, last := highest>>16, int(uint16(highest))
	switch {
	case highest <= half:
		return uint64(seq)
	case last < half && int(seq)-last > half:
		roc--
	case last >= half && last-half > int(seq):
		roc++
	}
	return roc<<16 | uint64(seq)
}

// window remembers which of the last replayWindow indices were used. The zero value is
// ready. Not for concurrent use.
type window struct {
	highest uint64
	started bool
	bits    [replayWindow / 64]uint64 // bit n of the whole: index highest-n was used
}

// verdict of window.use.
type verdict int

const (
	fresh    verdict = iota
	repeated         // used before
	tooOld           // behind the window: not known whether used
)

// use marks an index; only fresh ones change the state.
func (w *window) use(index uint64) verdict {
	if !w.started {
		*w = window{highest: index, started: true, bits: [2]uint64{1}}
		return fresh
	}
	if index > w.highest {
		w.shift(index - w.highest)
		w.highest = index
		w.bits[0] |= 1
		return fresh
	}
	back := w.highest - index
	if back >= replayWindow {
		return tooOld
	}
	if mask := uint64(1) << (back % 64); w.bits[back/64]&mask == 0 {
		w.bits[back/64] |= mask
		return fresh
	}
	return repeated
}

// peek is use without a change of state.
func (w *window) peek(index uint64) verdict {
	if !w.started || index > w.highest {
		return fresh
	}
	back := w.highest - index
	switch {
	case back >= replayWindow:
		return tooOld
	case w.bits[back/64]>>(back%64)&1 != 0:
		return repeated
	}
	return fresh
}

func (w *window) shift(n uint64) {
	switch {
	case n >= replayWindow:
		w.bits = [2]uint64{}
	case n >= 64:
		w.bits = [2]uint64{0, w.bits[0] << (n - 64)}
	default:
		w.bits[1] = w.bits[1]<<n | w.bits[0]>>(64-n)
		w.bits[0] <<= n
	}
}
