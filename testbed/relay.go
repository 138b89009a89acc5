package testbed

import (
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Impairment is what a relay in the Internet does to the media that an enterprise sends. The zero value lets it pass at once.
type Impairment struct {
	Seed      uint64        // one seed makes the same choices for the same packets
	Delay     time.Duration // of every packet
	Jitter    time.Duration // added by chance, from 0 up to it; more than the distance of packets puts them out of order
	InOrder   bool          // none overtakes another: jitter piles up instead
	Reorder   float64       // share of packets that skip the delay, 0 to 1
	Duplicate float64       // share of packets that come twice, 0 to 1
	Rate      int           // bit/s of IP packets, 0: no limit; what waits longer than MaxQueue is lost
	MaxQueue  time.Duration // 0: 200 ms
	Loss      Loss          // which packets are lost before all that
}

// Relay carries media through user space, where the kernel of a laboratory has no queueing discipline that impairs it. Everything else goes the kernel's way. Make it by
// Internet.Relay.
type Relay struct {
	i   *Internet
	tun *os.File
	wg  sync.WaitGroup

	mu    sync.Mutex // guards what follows
	ways  map[netip.Prefix]*relayWay
	queue relayQueue
	wake  chan struct{}
	ended chan struct{}
	stats RelayStats
}

// RelayStats count packets.
type RelayStats struct{ In, Out, Lost, Duplicated, Overtaking, QueueLost int }

type relayWay struct {
	Impairment
	random *rand.Rand
	n      int       // packets so far, for Loss
	free   time.Time // when the rate lets the next packet begin
	last   time.Time // when the packet before leaves, for InOrder
}

type relayPacket struct {
	due time.Time
	seq int
	b   []byte
}

// relayQueue is a heap by time, then by arrival.
type relayQueue struct {
	all []relayPacket
	seq int
}

func (q *relayQueue) Len() int { return len(q.all) }
func (q *relayQueue) Less(i, j int) bool {
	if q.all[i].due.Equal(q.all[j].due) {
		return q.all[i].seq < q.all[j].seq
	}
	return q.all[i].due.Before(q.all[j].due)
}
func (q *relayQueue) Swap(i, j int) { q.all[i], q.all[j] = q.all[j], q.all[i] }
func (q *relayQueue) Push(x any)    { q.all = append(q.all, x.(relayPacket)) }
func (q *relayQueue) Pop() any {
	x := q.all[len(q.all)-1]
	q.all = q.all[:len(q.all)-1]
	return x
}

// Names and numbers of the relay inside the Internet's namespace.
const (
	relayLink  = "relay"
	relayTable = "79"
	relayMark  = "0x4f"
)

// Relay puts a relay into the Internet; Set says what it does. It stands until the lab is removed.
func (l *Lab) Relay(t T) *Relay {
	t.Helper()
	r := &Relay{i: l.Internet, ways: map[netip.Prefix]*relayWay{}, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	if err := l.Internet.Do(r.open); err != nil {
		t.Fatalf("relay: %v", err)
	}
	for _, args := range [][]string{
		{"ip", "link", "set", relayLink, "up"}, {"ip", "rule", "add", "fwmark", relayMark, "lookup", relayTable}, {"ip", "route", "add", "default", "dev", relayLink, "table", relayTable},
	} {
		l.Internet.MustRun(t, args[0], args[1:]...)
	}
	// What comes back from the relay has sources of other interfaces.
	for _, key := range []string{"net/ipv4/conf/all/rp_filter", "net/ipv4/conf/" + relayLink + "/rp_filter"} {
		if err := l.Internet.Sysctl(key, "0"); err != nil {
			t.Fatalf("relay: %v", err)
		}
	}
	r.wg.Go(r.read)
	r.wg.Go(r.write)
	l.onClose(r.close)
	return r
}

func (r *Relay) open() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("/dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(relayLink)
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	r.tun = os.NewFile(uintptr(fd), "/dev/net/tun")
	return nil
}

func (r *Relay) close() {
	close(r.ended)
	_ = r.tun.Close()
	r.wg.Wait()
}

// Set replaces what the relay does to the media of each enterprise, at once and while calls stand; packets that are under way arrive as they were to. Media of an enterprise that is
// not named does not go through it.
func (r *Relay) Set(t T, all map[*Enterprise]Impairment) {
	t.Helper()
	ways, rules := map[netip.Prefix]*relayWay{}, []string{}
	for e, im := range all {
		ways[e.Outside.Masked()] = newRelayWay(im)
		rules = append(rules, fmt.Sprintf("iifname \"e%s\" udp dport 16384-32767 meta mark set %s", e.Letter, relayMark))
	}
	r.mu.Lock()
	r.ways = ways
	r.mu.Unlock()
	text := "table ip relay { }\ndelete table ip relay\n"
	if len(rules) > 0 {
		text += "table ip relay {\n chain prerouting { type filter hook prerouting priority mangle; policy accept;\n  " + strings.Join(rules, "\n  ") + "\n }\n}\n"
	}
	cmd := exec.Command("ip", "netns", "exec", r.i.NS, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("relay: nft: %v: %s", err, out)
	}
}

func newRelayWay(im Impairment) *relayWay {
	if im.MaxQueue == 0 {
		im.MaxQueue = 200 * time.Millisecond
	}
	return &relayWay{Impairment: im, random: rand.New(rand.NewPCG(im.Seed, 1))}
}

// Stats reads the counters.
func (r *Relay) Stats() RelayStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

func (r *Relay) read() {
	b := make([]byte, 65536)
	for {
		n, err := r.tun.Read(b)
		if err != nil {
			return
		}
		r.take(append([]byte(nil), b[:n]...), time.Now())
	}
}

// take decides what becomes of a packet.
func (r *Relay) take(b []byte, now time.Time) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return
	}
	src := netip.AddrFrom4([4]byte(b[12:16]))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.In++
	var w *relayWay
	for p, x := range r.ways {
		if p.Contains(src) {
			w = x
		}
	}
	if w == nil {
		r.put(b, now)
		return
	}
	due, copies, what := w.judge(len(b), now)
	switch what {
	case "lost":
		r.stats.Lost++
	case "queue":
		r.stats.QueueLost++
	case "overtaking":
		r.stats.Overtaking++
	}
	if copies > 1 {
		r.stats.Duplicated++
	}
	for range copies {
		r.put(b, due)
	}
}

func (r *Relay) put(b []byte, due time.Time) {
	r.queue.seq++
	heap.Push(&r.queue, relayPacket{due, r.queue.seq, b})
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// judge says when a packet of a size leaves, and how often. It draws the same numbers for each packet, whatever comes of them, so that a seed means the same with other settings.
func (w *relayWay) judge(size int, now time.Time) (due time.Time, copies int, what string) {
	n := w.n
	w.n++
	jitter, reorder, duplicate := w.random.Float64(), w.random.Float64(), w.random.Float64()
	if len(w.Loss) > 0 && w.Loss[n%len(w.Loss)] {
		return now, 0, "lost"
	}
	begin := now
	if w.Rate > 0 {
		if begin = w.free; begin.Before(now) {
			begin = now
		}
		if begin.Sub(now) > w.MaxQueue {
			return now, 0, "queue"
		}
		begin = begin.Add(time.Duration(size) * 8 * time.Second / time.Duration(w.Rate))
		w.free = begin
	}
	copies = 1
	if duplicate < w.Duplicate {
		copies = 2
	}
	if reorder < w.Reorder {
		return begin, copies, "overtaking"
	}
	due = begin.Add(w.Delay + time.Duration(jitter*float64(w.Jitter)))
	if w.InOrder && due.Before(w.last) {
		due = w.last
	}
	w.last = due
	return due, copies, ""
}

// write sends packets when they are due.
func (r *Relay) write() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		r.mu.Lock()
		wait := time.Hour
		var b []byte
		if len(r.queue.all) > 0 {
			if wait = time.Until(r.queue.all[0].due); wait <= 0 {
				b = heap.Pop(&r.queue).(relayPacket).b
				r.stats.Out++
			}
		}
		r.mu.Unlock()
		if b != nil {
			if _, err := r.tun.Write(b); err != nil && errors.Is(err, os.ErrClosed) {
				return
			}
			continue
		}
		timer.Reset(wait)
		select {
		case <-r.ended:
			return
		case <-r.wake:
		case <-timer.C:
		}
	}
}
