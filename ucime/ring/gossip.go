package ring

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"imeproxy/ucime/learn"
)

const (
	maxLinks       = 128 // outbound gossip connections
	linkQueue      = 64  // packets that wait for one of them
	packetQueue    = 256 // packets that wait for memberlist
	packetsRate    = 200 // messages in packets, a second and member
	packetsBurst   = 400
	packetSize     = 8192     // bytes; settings fit
	syncMax        = 12 << 20 // bytes of one push/pull in one direction
	syncsBurst     = 12       // push/pulls that a member may ask for at once, and how many in the time between two of its own
	syncsEach      = 6
	maxLost        = 64 // addresses of lost members that are tried again
	userSettings   = 1
	userToken      = 2
	mlCompound     = 7 // memberlist's message types
	mlUser         = 8
	mlCompress     = 9
	mlEncrypt      = 10
	mlCRC          = 12
	mlErr          = 13
	mlLabel        = 244
	compoundNested = 1
)

var (
	errStranger = errors.New("no member or bootstrap server has this address")
	errForm     = errors.New("form of message that the ring does not take")
)

// gossip carries memberlist over our TLS, and is its delegate.
type gossip struct {
	w       *wire
	addr    netip.AddrPort // ours
	queue   *memberlist.TransmitLimitedQueue
	packets chan *memberlist.Packet
	streams chan net.Conn
	dropped atomic.Uint64
	news    func() // settings changed

	started atomic.Bool   // memberlist takes connections
	every   time.Duration // between two push/pulls of a member
	log     *slog.Logger

	mu      sync.Mutex
	rates   buckets
	syncing buckets
	accused buckets
	links   map[string]*link
	extra   map[netip.AddrPort]bool // bootstrap servers and lost members: may be dialled although they are no members now
	lost    []netip.AddrPort
	closed  bool
}

// link is an outbound gossip connection and what waits for it.
type link struct {
	packets chan []byte
	quit    chan struct{}
	used    time.Time
	c       net.Conn // nil while it is being opened; guarded by gossip.mu
}

func newGossip(w *wire, addr netip.AddrPort, every time.Duration, news func(), log *slog.Logger) *gossip {
	if every == 0 {
		every = memberlist.DefaultWANConfig().PushPullInterval
	}
	g := &gossip{
		w: w, addr: addr, every: every, news: news, log: log, packets: make(chan *memberlist.Packet, packetQueue), streams: make(chan net.Conn),
		links: map[string]*link{}, extra: map[netip.AddrPort]bool{},
	}
	g.queue = &memberlist.TransmitLimitedQueue{RetransmitMult: 4, NumNodes: func() int {
		w.n.mu.Lock()
		defer w.n.mu.Unlock()
		return max(1, len(w.n.members))
	}}
	return g
}

// screen says whether memberlist may see a packet: nothing compressed, encrypted, labelled or nested, and every form but those known.
func screen(b []byte, depth int) error {
	if len(b) == 0 {
		return errShort
	}
	switch b[0] {
	case mlCRC:
		if depth > 0 || len(b) < 6 || b[5] == mlCRC {
			return errForm
		}
		return screen(b[5:], depth)
	case mlCompound:
		if depth > 0 || len(b) < 2 {
			return errForm
		}
		k := int(b[1])
		lengths, rest := b[2:], []byte(nil)
		if len(lengths) < 2*k {
			return errShort
		}
		rest = lengths[2*k:]
		for i := range k {
			n := int(binary.BigEndian.Uint16(lengths[2*i:]))
			if n > len(rest) {
				return errShort
			}
			if err := screen(rest[:n], depth+compoundNested); err != nil {
				return err
			}
			rest = rest[n:]
		}
		return nil
	case mlCompress, mlEncrypt, mlErr, mlLabel:
		return errForm
	}
	if b[0] > 11 {
		return errForm
	}
	return nil
}

// messages screens a packet and counts what is in it: memberlist works for each message, up to 255 of a packet.
func messages(b []byte) (n int, err error) {
	if err := screen(b, 0); err != nil {
		return 1, err
	}
	if b[0] == mlCRC {
		b = b[5:]
	}
	if b[0] == mlCompound {
		return max(1, int(b[1])), nil
	}
	return 1, nil
}

// serve takes an accepted connection of gossip or sync and closes it in the end.
func (g *gossip) serve(alpn string, p *party, c net.Conn) {
	if alpn == alpnSync {
		g.serveSync(p, c)
		return
	}
	defer c.Close()
	for {
		if err := c.SetReadDeadline(time.Now().Add(2 * idleTimeout)); err != nil {
			return
		}
		b, err := readPacket(c)
		if err != nil {
			return
		}
		k, err := messages(b)
		g.mu.Lock()
		ok := g.rates.take(p.name, g.w.n.now(), packetsBurst, packetsRate, float64(k))
		g.mu.Unlock()
		if !ok {
			g.w.pause(throttled) // so that it cannot make us read without end either
		}
		if !ok || err != nil {
			g.dropped.Add(1)
			continue
		}
		if b = g.sift(b, p.name); b == nil {
			continue
		}
		select {
		case g.packets <- &memberlist.Packet{Buf: b, From: c.RemoteAddr(), Timestamp: time.Now()}:
		default:
			g.dropped.Add(1)
		}
	}
}

// The transport of memberlist.

func (g *gossip) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.IP(g.addr.Addr().AsSlice()), int(g.addr.Port()), nil
}

func (g *gossip) PacketCh() <-chan *memberlist.Packet { return g.packets }
func (g *gossip) StreamCh() <-chan net.Conn           { return g.streams }

func (g *gossip) WriteTo(b []byte, addr string) (time.Time, error) {
	return g.WriteToAddress(b, memberlist.Address{Addr: addr})
}

func (g *gossip) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return g.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

func (g *gossip) Shutdown() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for addr, l := range g.links {
		close(l.quit)
		delete(g.links, addr)
	}
	return nil
}

// known returns the member that an address belongs to; the zero name for bootstrap servers and lost members.
func (g *gossip) known(a memberlist.Address) (learn.PeerID, error) {
	addr, err := netip.ParseAddrPort(a.Addr)
	if err != nil {
		return learn.PeerID{}, err
	}
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	if name, err := learn.ParsePeerID(a.Name); err == nil {
		if m := g.w.n.member(name); m != nil && m.Addr == addr {
			return name, nil
		}
	}
	g.w.n.mu.Lock()
	for _, m := range g.w.n.members {
		if m.Addr == addr {
			g.w.n.mu.Unlock()
			return m.Name, nil
		}
	}
	g.w.n.mu.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.extra[addr] {
		return learn.PeerID{}, nil
	}
	return learn.PeerID{}, fmt.Errorf("%s: %w", a.Addr, errStranger)
}

// WriteToAddress hands a packet to the connection of that member, without waiting; what finds no room is dropped, as a datagram would be.
func (g *gossip) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	now := time.Now()
	name, err := g.known(a)
	if err != nil || len(b) > 65535 {
		g.dropped.Add(1)
		return now, err
	}
	framed := append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(b)), uint16(len(b))), b...)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || g.w.ctx.Err() != nil {
		return now, net.ErrClosed
	}
	l := g.links[a.Addr]
	if l == nil {
		g.room()
		l = &link{packets: make(chan []byte, linkQueue), quit: make(chan struct{})}
		g.links[a.Addr] = l
		g.w.wg.Go(func() { g.send(l, a.Addr, name) })
	}
	l.used = now
	select {
	case l.packets <- framed:
	default:
		g.dropped.Add(1)
	}
	return now, nil
}

// room closes the link that was not used for longest when all are taken. The lock is held.
func (g *gossip) room() {
	if len(g.links) < maxLinks {
		return
	}
	oldest := ""
	for addr, l := range g.links {
		if oldest == "" || l.used.Before(g.links[oldest].used) {
			oldest = addr
		}
	}
	close(g.links[oldest].quit)
	delete(g.links, oldest)
}

func (g *gossip) send(l *link, addr string, name learn.PeerID) {
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.links[addr] == l {
			delete(g.links, addr)
		}
	}()
	c, _, err := g.w.dial(g.w.ctx, addr, alpnGossip, name)
	if err != nil {
		return
	}
	defer c.Close()
	g.mu.Lock()
	l.c = c
	g.mu.Unlock()
	stop := context.AfterFunc(g.w.ctx, func() { c.Close() })
	defer stop()
	idle := time.NewTimer(idleTimeout)
	defer idle.Stop()
	for {
		select {
		case b := <-l.packets:
			c.SetWriteDeadline(time.Now().Add(callTimeout))
			if _, err := c.Write(b); err != nil {
				return
			}
			idle.Reset(idleTimeout)
		case <-l.quit:
			return
		case <-idle.C:
			return
		}
	}
}

// DialAddressTimeout opens a stream for a push/pull.
func (g *gossip) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	name, err := g.known(a)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(g.w.ctx, timeout)
	defer cancel()
	c, p, err := g.w.dial(ctx, a.Addr, alpnSync, name)
	if err != nil {
		return nil, err
	}
	s := g.newStream(c, p.name, false)
	s.stop = context.AfterFunc(g.w.ctx, func() { c.Close() })
	return s, nil
}

// allow lets an address be dialled although no member has it.
func (g *gossip) allow(a netip.AddrPort) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.extra) < maxLost+maxBootstraps {
		g.extra[a] = true
	}
}

// lose keeps the address of a member that is gone, to find it again after a partition; the oldest makes room.
func (g *gossip) lose(a netip.AddrPort) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.extra[a] {
		return
	}
	if len(g.lost) >= maxLost {
		delete(g.extra, g.lost[0])
		g.lost = append(g.lost[:0], g.lost[1:]...)
	}
	g.lost = append(g.lost, a)
	g.extra[a] = true
}

// lostOne returns the next address of a lost member, round and round.
func (g *gossip) lostOne() (a netip.AddrPort, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.lost) == 0 {
		return a, false
	}
	a = g.lost[0]
	g.lost = append(g.lost[1:], a)
	return a, true
}

// back forgets a lost member that is back.
func (g *gossip) back(a netip.AddrPort) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, x := range g.lost {
		if x == a {
			g.lost = append(g.lost[:i], g.lost[i+1:]...)
			delete(g.extra, a)
			return
		}
	}
}

// The delegates of memberlist. Those about members are called under its lock and must not call it.

func (g *gossip) NodeMeta(int) []byte {
	g.w.n.mu.Lock()
	defer g.w.n.mu.Unlock()
	return g.w.n.descRaw
}

func (g *gossip) judge(x *memberlist.Node) (*Member, error) {
	m, err := g.w.n.recall(x.Meta)
	if err == nil {
		ip, _ := netip.AddrFromSlice(x.Addr)
		if m.Name.String() != x.Name || m.Addr != netip.AddrPortFrom(ip.Unmap(), x.Port) {
			err = errors.New("the description is of another member or address")
		}
	}
	if err != nil {
		g.w.n.refused()
	}
	return m, err
}

// NotifyAlive keeps out whoever no bootstrap server admitted, and who says that it speaks other versions of memberlist's protocol than we: it compares
// nothing with anybody any more once a single member that it has let in does not fit the others, so that one liar would keep all newcomers out.
func (g *gossip) NotifyAlive(x *memberlist.Node) error {
	_, err := g.judge(x)
	if err == nil && !speaksOurs(x) {
		g.w.n.refused()
		err = errVersion
	}
	return err
}

// The versions that config sets.
const (
	mlVersion         = memberlist.ProtocolVersion2Compatible
	mlDelegateVersion = 0
)

func speaksOurs(x *memberlist.Node) bool {
	return x.PMin <= mlVersion && mlVersion <= x.PMax && x.PCur == mlVersion &&
		x.DMin == mlDelegateVersion && x.DCur == mlDelegateVersion
}

func (g *gossip) NotifyJoin(x *memberlist.Node) {
	if m, err := g.judge(x); err == nil {
		g.w.n.join(m)
		g.back(m.Addr)
	}
}

func (g *gossip) NotifyUpdate(x *memberlist.Node) { g.NotifyJoin(x) }

func (g *gossip) NotifyLeave(x *memberlist.Node) {
	if name, err := learn.ParsePeerID(x.Name); err == nil {
		g.w.n.contest(name)
	}
}

// NotifyMsg is for messages of other kinds than memberlist's: sift has heard them.
func (g *gossip) NotifyMsg([]byte) {}

// hear takes settings or a token, and passes on what is news.
func (g *gossip) hear(kind byte, b []byte) (err error) {
	switch kind {
	case userSettings:
		if err = g.w.n.learnSettings(b, nil); err == nil {
			g.spread(userSettings, b)
			g.news()
		}
	case userToken:
		if err = g.w.n.learnToken(b); err == nil {
			g.spread(userToken, b)
		}
	}
	return err
}

// spread queues a message of ours or one that was news.
func (g *gossip) spread(kind byte, b []byte) {
	name := "settings"
	if kind == userToken && len(b) > 17 {
		name = string(b[1:17]) // the bootstrap server: its last token takes the place of one before
	}
	g.queue.QueueBroadcast(&broadcast{name, append([]byte{kind}, b...)})
}

type broadcast struct {
	name string
	b    []byte
}

func (b *broadcast) Name() string    { return b.name }
func (b *broadcast) Message() []byte { return b.b }
func (b *broadcast) Finished()       {}
func (b *broadcast) Invalidates(o memberlist.Broadcast) bool {
	x, ok := o.(*broadcast)
	return ok && x.name == b.name
}

func (g *gossip) GetBroadcasts(overhead, limit int) [][]byte {
	return g.queue.GetBroadcasts(overhead, limit)
}

func (g *gossip) LocalState(bool) []byte {
	n := g.w.n
	n.mu.Lock()
	defer n.mu.Unlock()
	b := put16(nil, n.raw)
	for _, t := range n.tokens {
		b = put16(b, t.t.encode())
	}
	return b
}

func (g *gossip) MergeRemoteState(b []byte, _ bool) {
	r := reader{b: b}
	if s := r.bytes16(); len(s) > 0 {
		g.hear(userSettings, s)
	}
	for i := 0; i < maxBootstraps && r.err == nil && len(r.b) > 0; i++ {
		g.hear(userToken, r.bytes16())
	}
}

// Pace sets how fast members notice each other; zero fields are memberlist's values for the Internet.
type Pace struct {
	Probe, ProbeTimeout time.Duration // one member is asked every Probe (5 s), and has ProbeTimeout (3 s)
	Gossip              time.Duration // news go out every (500 ms)
	PushPull            time.Duration // all is compared with one member every (60 s, longer in large rings)
	Token               time.Duration // bootstrap servers give a sign of life every (60 s); the same for the whole ring
	Rejoin              time.Duration // lost members and bootstrap servers are tried every (60 s)
}

func (g *gossip) config(name learn.PeerID, p Pace, logs io.Writer) *memberlist.Config {
	c := memberlist.DefaultWANConfig()
	c.Name = name.String()
	c.ProtocolVersion, c.DelegateProtocolVersion = mlVersion, mlDelegateVersion
	c.Transport = g
	c.Delegate, c.Events, c.Alive = g, g, g
	c.BindAddr, c.BindPort = g.addr.Addr().String(), int(g.addr.Port())
	c.AdvertiseAddr, c.AdvertisePort = c.BindAddr, c.BindPort
	c.EnableCompression = false
	c.UDPBufferSize = packetSize
	c.DNSConfigPath = ""
	c.RequireNodeNames = false
	c.Logger = log.New(logs, "", 0)
	g.started.Store(true)
	set := func(to *time.Duration, v time.Duration) {
		if v > 0 {
			*to = v
		}
	}
	set(&c.ProbeInterval, p.Probe)
	set(&c.ProbeTimeout, p.ProbeTimeout)
	set(&c.GossipInterval, p.Gossip)
	set(&c.PushPullInterval, p.PushPull)
	c.TCPTimeout = 10 * time.Second
	return c
}
