package mediaterm

import (
	"bytes"
	"errors"
	"net"
	"os"
	"slices"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// EngineXDP is the name of engine tproxy when it transmits through AF_XDP sockets.
const EngineXDP = "xdp"

// captureLook is how often a worker with packets to send looks whether somebody captures them: so long a capture that begins lacks what an xsk
// sends. The time between two packets of most streams.
const captureLook = 20 * time.Millisecond

// output makes the xsks of a worker those of the links. One that cannot be had is done without: the packets go by the packet socket.
func (w *worker) output(links []*net.Interface) {
	if !w.engine.xdp {
		return
	}
	w.mu.Lock()
	old := w.wanted
	w.mu.Unlock()
	var now []*xsk
	for _, link := range links {
		if at := slices.IndexFunc(old, func(x *xsk) bool { return int(x.index) == link.Index }); at >= 0 {
			now = append(now, old[at])
			continue
		}
		x, err := openXSK(link, w.number)
		switch {
		case err == nil:
			now = append(now, x)
		case errors.Is(err, unix.ENETDOWN): // the link's coming up is told
		case errors.Is(err, unix.EBUSY) && w.engine.holdsAll(link): // as it must be where a card has fewer queues than there are workers
			w.engine.log.Debug("media leaves through a packet socket: other workers have the queues of the card", "interface", link.Name, "worker", w.number)
		case !slices.Contains(w.without, link.Name):
			w.without = append(w.without, link.Name)
			w.engine.log.Info("media leaves through a packet socket, which costs more", "interface", link.Name, "worker", w.number, "err", err)
		}
	}
	w.mu.Lock()
	// One that broke meanwhile is closed already.
	w.wanted = slices.DeleteFunc(now, func(x *xsk) bool { return slices.Contains(old, x) && !slices.Contains(w.wanted, x) })
	w.mu.Unlock()
	w.wake()
}

// holdsAll tells whether workers have all queues of a link.
func (e *TProxy) holdsAll(link *net.Interface) bool {
	held := 0
	for _, w := range e.workers {
		w.mu.Lock()
		if slices.ContainsFunc(w.wanted, func(x *xsk) bool { return int(x.index) == link.Index }) {
			held++
		}
		w.mu.Unlock()
	}
	return held >= txQueues(link)
}

// begin prepares a batch: it takes over the xsks that output has made, looks who captures, and tries once more what the kernel did not take.
func (w *worker) begin() {
	if !w.engine.xdp {
		return
	}
	w.mu.Lock()
	if !slices.Equal(w.outs, w.wanted) {
		w.adopt()
	}
	if w.now.Sub(w.looked) >= captureLook {
		w.looked = w.now
		w.look()
	}
	w.mu.Unlock()
	for _, x := range w.outs {
		if x.left() > 0 {
			w.hand(x, x.pushed, true)
			x.mark = x.pushed
		}
		x.reclaim() // what has left last is still in the cache, and put takes it first
	}
	w.dropBroken()
}

// adopt takes the xsks over that output has made, and closes those that are no longer wanted: only the worker's own thread uses them, as it
// sends without the mutex. The caller holds the mutex.
func (w *worker) adopt() {
	for _, x := range w.outs {
		if !slices.Contains(w.wanted, x) {
			w.hand(x, x.pushed, false)
			_ = x.close()
		}
	}
	w.outs = append(w.outs[:0], w.wanted...)
}

// leave sends what is left over when the worker ends.
func (w *worker) leave() {
	for _, x := range w.outs {
		w.hand(x, x.pushed, false)
	}
}

// waiting tells whether the kernel has left frames of an earlier batch in a ring.
func (w *worker) waiting() bool {
	return slices.ContainsFunc(w.outs, func(x *xsk) bool { return x.left() > 0 })
}

// offer queues a frame at the xsk of its link, where there is one and nothing speaks against it. Else it notes whether the frame might overtake
// others, or they it: the link of one that the kernel routes is not known.
func (w *worker) offer(s *slot, link *linkState) bool {
	for _, x := range w.outs {
		if x.index != link.index && link.index != 0 {
			continue
		}
		free := link.direct && !link.shaped && !captures(w.seen, x.index)
		if free && !w.spilled && x.put(s.frame) {
			w.mixed = w.mixed || x.others
			s.xsk, s.number = x, x.pushed
			return true
		}
		w.spilled = w.spilled || free
		x.others = true
		w.mixed = w.mixed || x.left() > 0
	}
	return false
}

// captures tells whether somebody captures what goes through a link: a list of links, in which 0 is all of them.
func captures(list []int32, link int32) bool {
	for _, i := range list {
		if i == link || i == 0 {
			return true
		}
	}
	return false
}

// hand gives frames of an xsk to the kernel, up to a number. What it does not take may wait, for xskPatience, where nothing follows by another
// way; else, and when the xsk fails, it goes by the packet socket.
func (w *worker) hand(x *xsk, to uint32, mayWait bool) {
	if x.consumed == to {
		return
	}
	var err error
	if !x.broken {
		err = x.send(to)
		switch {
		case x.consumed == to:
			x.since = time.Time{}
			return
		case err != nil || !mayWait:
		case x.since.IsZero():
			x.since = w.now
			return
		case w.now.Sub(x.since) < xskPatience:
			return
		}
		x.broken = true
		w.engine.log.Info("media leaves through a packet socket until the interface is seen to work again", "index", x.index, "worker", w.number, "err", err)
	}
	for number, frame := range x.queued {
		dst := unix.RawSockaddrLinklayer{Family: unix.AF_PACKET, Protocol: networkOrder(unix.ETH_P_IP), Ifindex: x.index, Halen: 6}
		_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(w.direct), uintptr(unsafe.Pointer(&frame[0])), uintptr(len(frame)), unix.MSG_DONTWAIT,
			uintptr(unsafe.Pointer(&dst)), unix.SizeofSockaddrLinklayer)
		if errno != 0 {
			w.refused(x, number)
		}
		if x.consumed = number; number == to {
			break
		}
	}
}

// refused counts a frame of an xsk that the system would not take: at its stream, if it is of this batch.
func (w *worker) refused(x *xsk, number uint32) {
	for _, s := range w.txSlot[viaXDP][:w.txN[viaXDP]] {
		if s.xsk == x && s.number == number {
			s.failed = true
			return
		}
	}
	w.late++
}

// handRun hands frames of a batch on after which others come by another way.
func (w *worker) handRun(run []*slot) {
	for _, x := range w.outs {
		to := x.consumed
		for _, s := range run {
			if s.xsk == x {
				to = s.number
			}
		}
		w.hand(x, to, false)
	}
}

// sendEarlier sends what is left over from earlier batches.
func (w *worker) sendEarlier() {
	for _, x := range w.outs {
		if !x.since.IsZero() {
			w.hand(x, x.mark, false)
		}
	}
}

// dropBroken gives up the xsks that failed, until the links are looked at again.
func (w *worker) dropBroken() {
	if !slices.ContainsFunc(w.outs, func(x *xsk) bool { return x.broken }) {
		return
	}
	w.mu.Lock()
	w.wanted = slices.DeleteFunc(slices.Clone(w.wanted), func(x *xsk) bool { return x.broken })
	w.adopt()
	w.mu.Unlock()
}

// look finds the links on which others capture packets: what an xsk sends no packet socket sees, so that as long as somebody listens to all that
// goes through an interface, as tcpdump does, media is sent so that it is seen. Where the system does not tell, nobody is taken to listen. The
// caller holds the mutex.
func (w *worker) look() {
	links, err := w.list.read()
	if err != nil {
		links = nil
	}
	for _, t := range w.taps {
		for range w.engine.workers { // each has one there
			if at := slices.Index(links, int32(t.index)); at >= 0 {
				links = slices.Delete(links, at, at+1)
			}
		}
	}
	w.seen = links
}

// captureList is the kernel's list of packet sockets, which is read anew so often that nothing is opened or allocated for it.
type captureList struct {
	fd    int
	text  []byte
	links []int32
}

func openCaptureList() (captureList, error) {
	fd, err := unix.Open("/proc/thread-self/net/packet", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return captureList{fd: -1}, &os.PathError{Op: "open", Path: "/proc/thread-self/net/packet", Err: err}
	}
	return captureList{fd: fd, text: make([]byte, 4096)}, nil
}

// read returns the links of the sockets that are given the packets of all protocols, 0 for all links; valid until the next call.
func (l *captureList) read() ([]int32, error) {
	for end := 0; ; {
		// The raw call keeps the thread's processor: it does not block.
		n, _, errno := unix.RawSyscall6(unix.SYS_PREAD64, uintptr(l.fd), uintptr(unsafe.Pointer(&l.text[end])), uintptr(len(l.text)-end), uintptr(end), 0, 0)
		if errno != 0 {
			return nil, os.NewSyscallError("pread", errno)
		}
		if n == 0 {
			l.links = capturedLinks(l.links[:0], l.text[:end])
			return l.links, nil
		}
		if end += int(n); end == len(l.text) {
			l.text = append(l.text, make([]byte, len(l.text))...)
		}
	}
}

// capturedLinks adds to links what the text of such a list has.
func capturedLinks(links []int32, text []byte) []int32 {
	for line := range bytes.Lines(text) {
		// sk RefCnt Type Proto Iface R Rmem User Inode
		var proto, link []byte
		i := 0
		for f := range bytes.FieldsSeq(line) {
			switch i {
			case 3:
				proto = f
			case 4:
				link = f
			}
			i++
		}
		if n, err := strconv.Atoi(string(link)); err == nil && string(proto) == "0003" {
			links = append(links, int32(n))
		}
	}
	return links
}
