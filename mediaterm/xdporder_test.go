package mediaterm

import (
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bench is a worker that the test drives, with one stream whose packets leave through an xsk or past it.
type bench struct {
	now time.Time // of the worker
	w   *worker
	x   *xsk
	st  *tproxyStream
	hop *hop
	to  netip.AddrPort
	n   int // numbers queued
	got int // numbers that have arrived
}

func newBench(t *testing.T) (b *bench, next func() []byte) {
	t.Helper()
	inOwnNamespace(t)
	x, link, next := sender(t)
	for _, args := range [][]string{
		{"addr", "add", "10.9.0.1/24", "dev", link.Name}, {"neigh", "replace", "10.9.0.2", "lladdr", "02:00:00:00:00:08", "dev", link.Name},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	e := &TProxy{xdp: true, portLimit: portLimit, log: slog.New(slog.DiscardHandler)}
	w, err := newWorker(e, 0, newCrypt(shortcuts{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.close(); err != nil {
			t.Error(err)
		}
	})
	e.workers = []*worker{w}
	b = &bench{now: time.Now(), w: w, x: x, to: netip.MustParseAddrPort("10.9.0.2:4000"), hop: &hop{dst: netip.MustParseAddr("10.9.0.2")}}
	ours := netip.MustParseAddrPort("10.9.0.1:20000")
	b.st = &tproxyStream{relay: *newRelay(EngineSpec{Local: [2]netip.AddrPort{ours, ours}, Media: "audio"}, time.Now), engine: e, worker: w}
	b.st.legs[Outside].hop = b.hop
	state := &linkState{direct: true, index: int32(link.Index), mtu: 1500}
	copy(state.ether[:], numbered(0, 4))
	b.hop.link.Store(state)
	b.adopt(x)
	return b, next
}

func (b *bench) adopt(x *xsk) {
	b.x = x
	b.w.wanted = []*xsk{x}
}

// way changes how packets leave from now on.
func (b *bench) way(change func(*linkState)) {
	state := *b.hop.link.Load()
	change(&state)
	b.hop.link.Store(&state)
}

// begin is what a worker does before a batch, with somebody who captures or nobody.
func (b *bench) begin(captured bool) {
	b.now = b.now.Add(20 * time.Microsecond) // the machine's own may pass all of xskPatience meanwhile
	b.w.now, b.w.looked = b.now, b.now
	if b.w.seen = nil; captured {
		b.w.seen = []int32{b.x.index}
	}
	b.w.begin()
}

// queue takes packets of the next numbers to their way.
func (b *bench) queue(n int) {
	for range n {
		s := &b.w.slots[b.w.txN[viaLink]+b.w.txN[viaKernel]+b.w.txN[viaXDP]]
		data := s.rx[headroom:][:100]
		binary.BigEndian.PutUint32(data, uint32(b.n))
		s.out = departure{side: Outside, to: b.to, data: data}
		b.w.queue(s, b.st)
		b.n++
	}
}

func (b *bench) send() {
	b.w.sendAll()
	b.w.account()
}

// refusing makes the kernel take at most some frames of a call, or none, for so many calls.
func (b *bench) refusing(calls int, errno unix.Errno) {
	real := b.x.sendto
	b.x.kick = func() unix.Errno {
		if calls > 0 {
			calls--
			return errno
		}
		return real()
	}
}

// arrived demands all that is not left over, in order.
func (b *bench) arrived(t *testing.T, next func() []byte) {
	t.Helper()
	for ; b.got < b.n-int(b.x.left()); b.got++ {
		if got := int(binary.BigEndian.Uint32(next())); got != b.got {
			t.Fatalf("packet %d came where %d was due, of %d", got, b.got, b.n)
		}
	}
}

// Frames that the kernel does not take are sent with the next batch, or when there is none; and when it takes none for long, by the packet
// socket.
func TestXSKLeftOver(t *testing.T) {
	for name, after := range map[string]func(b *bench){
		"no packet follows": func(b *bench) { b.begin(false) },
		"more follow":       func(b *bench) { b.begin(false); b.queue(5); b.send() },
		"somebody captures": func(b *bench) { b.begin(true); b.queue(5); b.send() },
		"the neighbour is gone": func(b *bench) {
			b.way(func(l *linkState) { l.direct = false })
			b.begin(false)
			b.queue(5)
			b.send()
		},
		"the link is given up": func(b *bench) { b.w.wanted = nil; b.begin(false) },
		"the engine is closed": func(b *bench) { b.w.leave() },
		"it never takes any": func(b *bench) {
			b.refusing(1<<30, unix.EAGAIN)
			for b.w.waiting() {
				b.begin(false)
			}
			b.queue(5)
			b.send()
		},
		"it never takes any, and somebody captures": func(b *bench) {
			b.refusing(1<<30, unix.EAGAIN)
			b.begin(true)
			b.queue(5)
			b.send()
		},
		"it fails": func(b *bench) { b.refusing(1<<30, unix.ENXIO); b.begin(false) },
	} {
		t.Run(name, func(t *testing.T) {
			b, next := newBench(t)
			b.begin(false)
			b.queue(10)
			b.send()
			b.refusing(xskTries, unix.EAGAIN)
			b.begin(false)
			b.queue(10)
			b.send()
			if n := b.x.left(); n != 10 || !b.w.waiting() {
				t.Fatalf("%d frames are left over, want 10", n)
			}
			after(b)
			if b.w.waiting() {
				t.Errorf("%d frames are still left over", b.x.left())
			}
			b.arrived(t, next)
			if n := b.w.count.SendErrors; n != 0 {
				t.Errorf("%d send errors", n)
			}
		})
	}
}

// A full ring sends those that find no room another way, and none overtakes another.
func TestXSKFull(t *testing.T) {
	b, next := newBench(t)
	b.refusing(1<<30, unix.EAGAIN)
	for range xskChunks/batchSize - 1 {
		b.begin(false)
		b.queue(batchSize)
		b.send()
	}
	b.begin(false)
	b.queue(batchSize / 2)
	b.send()
	if b.x.broken || int(b.x.left()) != xskChunks-batchSize/2 {
		t.Fatalf("%d frames wait, broken: %v", b.x.left(), b.x.broken)
	}
	b.begin(false)
	b.queue(batchSize)
	b.send()
	b.arrived(t, next)
	if got := b.w.count; got.SendErrors != 0 || got.SentDirect != uint64(b.n) {
		t.Errorf("%d packets: %+v", b.n, got)
	}
}

// What the packet socket refuses too is counted, at the stream where that is still known.
func TestXSKLinkDown(t *testing.T) {
	b, _ := newBench(t)
	b.refusing(1<<30, unix.EAGAIN)
	b.begin(false)
	b.queue(3)
	b.send()
	if out, err := exec.Command("ip", "link", "set", "xska", "down").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b.x.kick = b.x.sendto
	b.w.now = time.Now()
	b.queue(4)
	b.send()
	if n, own := b.w.count.SendErrors, b.st.legs[Outside].drops().SendErrors; n != 7 || own != 4 {
		t.Errorf("%d send errors, %d of them at the stream; want 7 and 4", n, own)
	}
	if len(b.w.outs) != 0 {
		t.Error("the ring is still used")
	}
}

// Whatever changes between packets and within a batch, all arrive once and in order: captures, queueing disciplines, neighbours that come and go,
// a kernel that takes nothing for a while, rings that fail and are made anew.
func TestXSKOrder(t *testing.T) {
	b, next := newBench(t)
	link := b.hop.link.Load().index
	random := rand.New(rand.NewPCG(1, 2))
	ways := [ways]uint64{}
	for range 3000 {
		if random.IntN(20) == 0 {
			errnos := []unix.Errno{0, unix.EAGAIN, unix.ENOBUFS, unix.EINTR}
			b.refusing(random.IntN(4*xskTries), errnos[random.IntN(len(errnos))])
		}
		if random.IntN(200) == 0 {
			b.refusing(1<<30, []unix.Errno{unix.EAGAIN, unix.ENXIO}[random.IntN(2)])
		}
		b.begin(random.IntN(10) == 0)
		for range 1 + random.IntN(4) {
			if random.IntN(10) == 0 {
				b.way(func(l *linkState) {
					l.direct, l.shaped = random.IntN(3) > 0, random.IntN(5) == 0
					if l.index = link; !l.direct && random.IntN(2) == 0 {
						l.index = 0
					}
				})
			}
			b.queue(random.IntN(batchSize/4) + 1)
		}
		b.send()
		b.arrived(t, next)
		if !slices.Contains(b.w.wanted, b.x) {
			b.adopt(reopened(t, int(link)))
		}
	}
	for b.w.waiting() {
		b.begin(false)
	}
	ways[viaLink], ways[viaKernel], ways[viaXDP] = b.w.count.SentDirect-b.w.count.SentXDP, b.w.count.SentRouted, b.w.count.SentXDP
	for way, n := range ways {
		if n < 1000 {
			t.Errorf("%d packets by way %d: the test has not tried it", n, way)
		}
	}
	if b.arrived(t, next); b.got != b.n {
		t.Errorf("%d of %d packets arrived", b.got, b.n)
	}
}

// reopened is another xsk for a link whose queue the kernel gives free a little after the one before was closed.
func reopened(t *testing.T, index int) *xsk {
	t.Helper()
	x, err := openXSKQueue(index, 0)
	for deadline := time.Now().Add(patience); err != nil && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		x, err = openXSKQueue(index, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return x
}
