package testbed

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/rtp"
)

// massPBX plays a PBX with many phones: SIP over TCP with the call agent, a UDP socket for each phone, a packet every massPacket.
type massPBX struct {
	e  *Enterprise
	ln net.Listener
	wg sync.WaitGroup

	mu     sync.Mutex
	calls  map[string]*massCall
	order  []*massCall
	conns  []net.Conn
	faults []string
	stop   chan struct{}
}

// massCall is a call at its phone.
type massCall struct {
	p       *massPBX
	id      string
	media   *net.UDPConn
	version int

	mu            sync.Mutex
	conn          net.Conn // over which our requests go
	local, remote string   // From and To of our requests
	target        string
	cseq          int
	to            netip.AddrPort // of the phone's sound
	up, over      bool

	heardIP, heardPSTN atomic.Int64 // packets
}

const (
	massPacket = 80 * time.Millisecond // packet time of the phones: many calls cost little then
	massGroups = 8                     // of phones that speak at the same time
)

func newMassPBX(t *testing.T, e *Enterprise) *massPBX {
	t.Helper()
	p := &massPBX{e: e, calls: make(map[string]*massCall), stop: make(chan struct{})}
	var err error
	if p.ln, err = e.PBXHost.Listen(netip.AddrPortFrom(e.PBXIP, 5060).String()); err != nil {
		t.Fatal(err)
	}
	p.wg.Go(func() {
		for {
			c, err := p.ln.Accept()
			if err != nil {
				return
			}
			p.serve(c)
		}
	})
	p.wg.Go(p.speak)
	t.Cleanup(p.close)
	return p
}

func (p *massPBX) close() {
	close(p.stop)
	p.ln.Close()
	p.mu.Lock()
	for _, c := range p.conns {
		c.Close()
	}
	for _, c := range p.order {
		c.media.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *massPBX) fault(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.faults) < 20 {
		p.faults = append(p.faults, p.e.Letter+": "+fmt.Sprintf(format, args...))
	}
}

// serve reads a connection to its end.
func (p *massPBX) serve(c net.Conn) {
	p.mu.Lock()
	p.conns = append(p.conns, c)
	p.mu.Unlock()
	p.wg.Go(func() {
		var rest []byte
		buf := make([]byte, 65536)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			var all []SIPMessage
			all, rest = cutMessages(append(rest, buf[:n]...))
			rest = bytes.Clone(rest)
			for _, m := range all {
				p.take(c, m)
			}
		}
	})
}

// newCall opens the phone of a call.
func (p *massPBX) newCall(conn net.Conn, id string) (*massCall, error) {
	p.mu.Lock()
	n := len(p.order)
	p.mu.Unlock()
	c := &massCall{p: p, id: id, conn: conn}
	var err error
	if c.media, err = p.e.PBXHost.ListenUDP(netip.AddrPortFrom(p.e.PBXIP, uint16(10000+2*n)).String()); err != nil {
		return nil, err
	}
	p.wg.Go(c.listen)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls[id], p.order = c, append(p.order, c)
	return c, nil
}

// all are the calls so far.
func (p *massPBX) all() []*massCall {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*massCall(nil), p.order...)
}

// count counts the calls for which something is true.
func (p *massPBX) count(is func(c *massCall) bool) (n int) {
	for _, c := range p.all() {
		c.mu.Lock()
		if is(c) {
			n++
		}
		c.mu.Unlock()
	}
	return n
}

// listen counts what the phone hears, and from where.
func (c *massCall) listen() {
	buf := make([]byte, 2048)
	for {
		_, from, err := c.media.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		switch from.Addr().Unmap() {
		case c.p.e.PSTNIP:
			c.heardPSTN.Add(1)
		case c.p.e.MediaIn:
			c.heardIP.Add(1)
		}
	}
}

// speak lets all phones send, a group after the other.
func (p *massPBX) speak() {
	tick := time.NewTicker(massPacket / massGroups)
	defer tick.Stop()
	packet := rtp.Packet{Header: rtp.Header{Version: 2}, Payload: bytes.Repeat([]byte{0x55}, int(massPacket/time.Millisecond)*8)}
	for i := 0; ; i++ {
		select {
		case <-p.stop:
			return
		case <-tick.C:
		}
		all := p.all()
		for n := i % massGroups; n < len(all); n += massGroups {
			c := all[n]
			c.mu.Lock()
			to := c.to
			c.mu.Unlock()
			if !to.IsValid() {
				continue
			}
			packet.SSRC, packet.SequenceNumber, packet.Timestamp = uint32(n+1), uint16(i/massGroups), uint32(i/massGroups*len(packet.Payload))
			if b, err := packet.Marshal(); err == nil {
				_, _ = c.media.WriteToUDPAddrPort(b, to) // a closed socket is the end
			}
		}
	}
}

// describe is the phone's description.
func (c *massCall) describe() string {
	ip := c.p.e.PBXIP
	c.version++
	return fmt.Sprintf("v=0\r\no=p 1 %d IN IP4 %s\r\ns=-\r\nc=IN IP4 %s\r\nt=0 0\r\nm=audio %d RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=ptime:%d\r\n",
		c.version, ip, ip, c.media.LocalAddr().(*net.UDPAddr).Port, massPacket.Milliseconds())
}

// learn takes where the other side wants its sound.
func (c *massCall) learn(body string) {
	var ip string
	var port uint16
	for line := range strings.SplitSeq(body, "\r\n") {
		if v, ok := strings.CutPrefix(line, "c=IN IP4 "); ok {
			ip = v
		}
		_, _ = fmt.Sscanf(line, "m=audio %d", &port) // other lines
	}
	if a, err := netip.ParseAddr(ip); err == nil && port > 0 {
		c.mu.Lock()
		c.to = netip.AddrPortFrom(a, port)
		c.mu.Unlock()
	}
}

// request writes a request of the call.
func (c *massCall) request(method string, cseq int, body string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ip := c.p.e.PBXIP
	text := fmt.Sprintf("%s %s SIP/2.0\r\nVia: SIP/2.0/TCP %s:5060;branch=z9hG4bK%s%s%d\r\nMax-Forwards: 70\r\nFrom: %s\r\nTo: %s\r\nCall-ID: %s\r\nCSeq: %d %s\r\nContact: <sip:%s@%s:5060;transport=tcp>\r\n",
		method, c.target, ip, c.id, method, cseq, c.local, c.remote, c.id, cseq, method, c.p.e.Number, ip)
	if body != "" {
		text += "Content-Type: application/sdp\r\n"
	}
	if _, err := fmt.Fprintf(c.conn, "%sContent-Length: %d\r\n\r\n%s", text, len(body), body); err != nil {
		go c.p.fault("%s: %v", method, err)
	}
}

// answer writes a response.
func (c *massCall) answer(conn net.Conn, m SIPMessage, status, body string) {
	var b strings.Builder
	b.WriteString("SIP/2.0 " + status + "\r\n")
	for _, h := range m.Headers {
		switch strings.ToLower(h.Name) {
		case "to":
			if !strings.Contains(h.Value, ";tag=") {
				h.Value += ";tag=callee"
			}
			fallthrough
		case "via", "from", "call-id", "cseq", "record-route":
			fmt.Fprintf(&b, "%s: %s\r\n", h.Name, h.Value)
		}
	}
	if body != "" {
		fmt.Fprintf(&b, "Contact: <sip:%s@%s:5060;transport=tcp>\r\nContent-Type: application/sdp\r\n", c.p.e.Number, c.p.e.PBXIP)
	}
	if _, err := fmt.Fprintf(conn, "%sContent-Length: %d\r\n\r\n%s", b.String(), len(body), body); err != nil {
		c.p.fault("%s: %v", status, err)
	}
}

// take handles a message of the call agent.
func (p *massPBX) take(conn net.Conn, m SIPMessage) {
	id := m.Get("Call-ID")
	p.mu.Lock()
	c := p.calls[id]
	p.mu.Unlock()
	if c == nil && m.Method() == "INVITE" {
		var err error
		if c, err = p.newCall(conn, id); err != nil {
			p.fault("phone: %v", err)
			return
		}
	}
	switch method := m.Method(); {
	case c == nil:
		if method != "OPTIONS" {
			p.fault("unexpected %s", m.Start)
		}
	case method == "INVITE": // the first one, or a move
		c.learn(m.Body)
		c.answer(conn, m, "200 OK", c.describe())
	case method == "ACK":
		c.mu.Lock()
		c.up = true
		c.mu.Unlock()
	case method == "BYE":
		c.mu.Lock()
		c.over, c.to = true, netip.AddrPort{}
		c.mu.Unlock()
		c.answer(conn, m, "200 OK", "")
	case method != "":
		p.fault("unexpected %s", m.Start)
	case m.Status() >= 300:
		p.fault("%s for %s", m.Start, m.Get("CSeq"))
	case m.Status() >= 200 && strings.HasSuffix(m.Get("CSeq"), "INVITE"):
		c.learn(m.Body)
		c.mu.Lock()
		c.remote, c.up = m.Get("To"), true
		c.target = strings.Trim(strings.SplitN(m.Get("Contact"), ">", 2)[0], "<")
		cseq := c.cseq
		c.mu.Unlock()
		c.request("ACK", cseq, "")
	case m.Status() >= 200:
		c.mu.Lock()
		c.over, c.to = true, netip.AddrPort{}
		c.mu.Unlock()
	}
}

// dial begins a call to the far enterprise's number.
func (p *massPBX) dial(t *testing.T, conn net.Conn, n int) {
	t.Helper()
	c, err := p.newCall(conn, fmt.Sprintf("mass-%d", n))
	if err != nil {
		t.Fatal(err)
	}
	far := p.e.far
	c.local, c.remote = fmt.Sprintf("<sip:%s@%s>;tag=caller%d", p.e.Number, p.e.Domain, n), fmt.Sprintf("<sip:%s@%s>", far.Number, p.e.Domain)
	c.target, c.cseq = fmt.Sprintf("sip:%s@%s", far.Number, p.e.Domain), 1
	c.request("INVITE", 1, c.describe())
}

// hangUp ends a call.
func (c *massCall) hangUp() {
	c.mu.Lock()
	c.cseq++
	cseq := c.cseq
	c.mu.Unlock()
	c.request("BYE", cseq, "")
}

// Five hundred calls turn bad at once: the notifications are spread, and so are the calls to the PSTN; each call falls back or goes
// on, and none is lost.
func TestManyCallsTurnBad(t *testing.T) {
	const calls, rate = 500, 25
	config := func(text string) string {
		return strings.Replace(FastFallback(text), " ticket epoch", fmt.Sprintf(" fallback notification rate %d\n ticket epoch", rate), 1)
	}
	agent := func(text string) string {
		return strings.Replace(text, "pstn-trunk carrier\n", fmt.Sprintf("pstn-trunk carrier\n call-rate %d\n", rate), 1)
	}
	lab := Start(t, Options{PSTN: true, NoCallAgents: true, A: Side{Config: config, AgentConfig: agent}, B: Side{Config: config, AgentConfig: agent}})
	lab.PSTN.Start(t)
	a, b := newMassPBX(t, lab.A), newMassPBX(t, lab.B)
	for _, e := range lab.Enterprises() {
		e.Agent.Start(t)
	}
	lab.A.Agent.AddRoute(t)
	trunk := lab.CaptureSignaling(t, lab.PSTNHost, "ta")
	inside := map[*Enterprise]*Capture{lab.A: lab.CaptureSignaling(t, lab.A.EdgeHost, "ein"), lab.B: lab.CaptureSignaling(t, lab.B.EdgeHost, "ein")}
	conn, err := lab.A.PBXHost.Dial("tcp", lab.A.PBXIP.String(), netip.AddrPortFrom(lab.A.UCMIP, 5060).String(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	a.serve(conn)
	begin := time.Now()
	for n := range calls {
		a.dial(t, conn, n)
		Until(t, 10*time.Second, "calls are answered", func() bool { return n+1-a.count(func(c *massCall) bool { return c.up }) < 20 })
	}
	pbxs := []*massPBX{a, b}
	for _, p := range pbxs {
		Until(t, 20*time.Second, "every call stands at PBX "+p.e.Letter, func() bool { return p.count(func(c *massCall) bool { return c.up }) == calls })
		Until(t, 20*time.Second, "every phone hears the other", func() bool { return p.count(func(c *massCall) bool { return c.heardIP.Load() >= 5 }) == calls })
	}
	t.Logf("%d calls stand after %v", calls, time.Since(begin))

	if err := lab.Internet.Spoil(map[*Enterprise]Loss{lab.A: RandomLoss(21, 0.25), lab.B: RandomLoss(22, 0.25)}); err != nil {
		t.Fatal(err)
	}
	spoilt := time.Now()
	var successful, failed int
	Until(t, 90*time.Second, "every call has fallen back, or failed to", func() bool {
		c := lab.A.Agent.Counters(t)
		successful, failed = c["FallbackCallsSuccessful"], c["FallbackCallsFailed"]
		return successful+failed >= calls
	})
	t.Logf("%d calls fell back, %d fallbacks failed, within %v", successful, failed, time.Since(spoilt))

	moved := make(map[*massPBX]int)
	for _, p := range pbxs {
		ip, pstn := make(map[*massCall]int64), make(map[*massCall]int64)
		for _, c := range p.all() {
			ip[c], pstn[c] = c.heardIP.Load(), c.heardPSTN.Load()
		}
		Until(t, 10*time.Second, "every phone hears the other", func() bool {
			return p.count(func(c *massCall) bool { return c.heardIP.Load()-ip[c]+c.heardPSTN.Load()-pstn[c] >= 5 }) == calls
		})
		if n := p.count(func(c *massCall) bool { return c.to.Addr() == p.e.PSTNIP && c.heardIP.Load() > ip[c] }); n > 0 {
			t.Errorf("%d phones of %s are on the PSTN and hear the Internet", n, p.e.Letter)
		}
		moved[p] = p.count(func(c *massCall) bool { return !c.over && c.to.Addr() == p.e.PSTNIP })
		if lost := p.count(func(c *massCall) bool { return c.over }); lost > 0 {
			t.Errorf("%d calls are lost at PBX %s", lost, p.e.Letter)
		}
	}
	if moved[a] != successful || moved[b] != successful || failed > 0 {
		t.Errorf("%d fallbacks succeeded, %d failed; %d phones of A and %d of B are on the PSTN", successful, failed, moved[a], moved[b])
	}
	for _, c := range a.all() {
		c.hangUp()
	}
	for _, p := range pbxs {
		Until(t, 20*time.Second, "every call is over at PBX "+p.e.Letter, func() bool { return p.count(func(c *massCall) bool { return c.over }) == calls })
		Until(t, 10*time.Second, "no call is left at call agent "+p.e.Letter, func() bool { return p.e.Agent.Counters(t)["ActiveCalls"] == 0 })
		Until(t, 10*time.Second, "the proxy frees all media", func() bool { return mediaInUse(t, p.e.Proxy) == 0 })
		p.mu.Lock()
		for _, f := range p.faults {
			t.Error(f)
		}
		p.mu.Unlock()
	}
	trunk.Stop(t)
	spread(t, "calls to the fallback number", rate, starts(trunk.Packets(t), func(text string) bool {
		return strings.HasPrefix(text, "INVITE sip:"+lab.B.FallbackNumber+"@") && !strings.Contains(text, "\nTo: <sip:"+lab.B.FallbackNumber+"@"+lab.A.PSTNIP.String()+">;tag=")
	}))
	for e, c := range inside {
		c.Stop(t)
		spread(t, "notifications of proxy "+e.Letter, rate, starts(c.Packets(t), func(text string) bool {
			return strings.HasPrefix(text, "REFER ") && strings.Contains(text, "X-Cisco-UC-IME-Quality:")
		}))
	}
}

// starts are the times of messages; one that begins within a segment counts too.
func starts(packets []Packet, is func(text string) bool) (at []time.Time) {
	for _, p := range packets {
		all, _ := cutMessages(p.Payload)
		for _, m := range all {
			if is(m.Raw) {
				at = append(at, p.Time)
			}
		}
	}
	return at
}

// spread demands that no second holds more than rate of the times. The wire may push two together by some milliseconds.
func spread(t *testing.T, what string, rate int, at []time.Time) {
	t.Helper()
	most := 0
	for i, from := range at {
		n := 0
		for _, to := range at[i:] {
			if to.Sub(from) < 950*time.Millisecond {
				n++
			}
		}
		most = max(most, n)
	}
	if len(at) == 0 || most > rate {
		t.Errorf("%s: %d in all, %d within a second, at most %d may be", what, len(at), most, rate)
		return
	}
	t.Logf("%s: %d in %v, at most %d within a second", what, len(at), at[len(at)-1].Sub(at[0]), most)
}
