package mediaterm

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// EngineXDP is the name of engine tproxy when it transmits through AF_XDP sockets.
const EngineXDP = "xdp"

// captureLook is how often it is looked whether somebody captures packets.
const captureLook = 100 * time.Millisecond

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

// adopt takes the xsks over that output has made, and closes those that are no longer wanted: only the worker's own thread uses them, as it
// sends without the mutex. The caller holds the mutex.
func (w *worker) adopt() {
	for _, x := range w.outs {
		if !slices.Contains(w.wanted, x) {
			_ = x.close()
		}
	}
	w.outs = append(w.outs[:0], w.wanted...)
}

// putXDP queues a frame at the xsk of its link, where there is one and nothing speaks against it.
func (w *worker) putXDP(frame []byte, link *linkState) bool {
	if len(w.outs) == 0 || w.spilled || link.shaped || w.engine.captured.Load() {
		return false
	}
	for _, x := range w.outs {
		if x.index == link.index {
			w.spilled = !x.put(frame)
			return !w.spilled
		}
	}
	return false
}

// sendXDP hands all that is queued to the kernel. An xsk that fails is given up until the links are looked at again: what it holds would
// be sent when its link is up again, much too late.
func (w *worker) sendXDP() {
	slots := w.txSlot[viaXDP][:w.txN[viaXDP]]
	for _, x := range slices.Clone(w.outs) {
		if x.consumed == x.pushed {
			continue
		}
		left, err := x.send()
		if err == nil {
			continue
		}
		for i := len(slots) - 1; i >= 0 && left > 0; i-- {
			if slots[i].link.Ifindex == x.index {
				slots[i].failed = true
				left--
			}
		}
		w.engine.log.Info("media leaves through a packet socket until the interface is seen to work again", "index", x.index, "worker", w.number, "err", err)
		w.mu.Lock()
		w.wanted = slices.DeleteFunc(slices.Clone(w.wanted), func(y *xsk) bool { return x == y })
		w.adopt()
		w.mu.Unlock()
	}
}

// lookForCaptures runs until stop is closed. What an xsk sends no packet socket sees; while somebody listens to all that
// goes through an interface, as tcpdump does, media is sent so that it is seen.
func (e *TProxy) lookForCaptures(stop chan struct{}) {
	tick := time.NewTicker(captureLook)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		f, err := os.Open("/proc/thread-self/net/packet")
		if err != nil {
			continue
		}
		all := countCaptures(f)
		_ = f.Close()
		for _, w := range e.workers {
			all -= len(w.openTaps())
		}
		e.captured.Store(all > 0)
	}
}

// countCaptures counts the packet sockets of a list of the kernel's that are given the packets of all protocols.
func countCaptures(list io.Reader) int {
	n := 0
	for s := bufio.NewScanner(list); s.Scan(); {
		// sk RefCnt Type Proto Iface R Rmem User Inode
		if f := strings.Fields(s.Text()); len(f) > 3 && f[3] == "0003" {
			n++
		}
	}
	return n
}
