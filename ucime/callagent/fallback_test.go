package callagent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/pion/rtp"

	"imeproxy/ucime/callagent/dtmf"
	"imeproxy/ucime/callagent/leg"
)

// phone speaks to where the last description says, and notes who speaks to it.
type phone struct {
	conn *net.UDPConn
	at   netip.AddrPort
	done chan struct{}
	wg   sync.WaitGroup

	mu    sync.Mutex
	to    netip.AddrPort
	heard map[netip.AddrPort]int
	last  map[netip.AddrPort]time.Time
	gap   time.Duration // the longest silence from anyone
	prev  time.Time
}

func newPhone(t *testing.T, ip string) *phone {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(ip)})
	if err != nil {
		t.Fatal(err)
	}
	f := &phone{conn: c, at: c.LocalAddr().(*net.UDPAddr).AddrPort(), done: make(chan struct{}), heard: make(map[netip.AddrPort]int), last: make(map[netip.AddrPort]time.Time)}
	f.wg.Go(f.speak)
	f.wg.Go(f.listen)
	t.Cleanup(func() { close(f.done); c.Close(); f.wg.Wait() })
	return f
}

func (f *phone) speak() {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	p := rtp.Packet{Header: rtp.Header{Version: 2, SSRC: 1}, Payload: make([]byte, 160)}
	for {
		select {
		case <-f.done:
			return
		case <-tick.C:
		}
		f.mu.Lock()
		to := f.to
		f.mu.Unlock()
		p.SequenceNumber++
		p.Timestamp += 160
		if b, err := p.Marshal(); err == nil && to.IsValid() {
			_, _ = f.conn.WriteToUDPAddrPort(b, to)
		}
	}
}

func (f *phone) listen() {
	b := make([]byte, 1500)
	for {
		_, from, err := f.conn.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		f.mu.Lock()
		now := time.Now()
		if !f.prev.IsZero() {
			f.gap = max(f.gap, now.Sub(f.prev))
		}
		f.prev, f.last[from] = now, now
		f.heard[from]++
		f.mu.Unlock()
	}
}

// sdp takes the other side's description and gives the phone's.
func (f *phone) sdp(remote []byte) []byte {
	if r, err := dtmf.ParseRemote(remote); err == nil {
		f.mu.Lock()
		f.to = r.Addr
		f.mu.Unlock()
	}
	return sdpOf(f.at)
}

func (f *phone) hears(from netip.AddrPort) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.heard[from]
}

// pair is two enterprises whose trunks lead to each other: what one sends to the PSTN, or to the Internet, arrives at the other.
type pair struct {
	*world // enterprise A
	b      *world
	fa, fb *phone
	call   *leg.Outgoing
	there  *leg.Leg // B's phone
	ime    *leg.Leg // A's leg on the IME trunk
}

const bNumber = "+12125552222"

// newPair sets a call from A's phone to B's up, over the IME trunks.
func newPair(t *testing.T, change func(text string) string, moreOfA ...string) *pair {
	t.Helper()
	p := &pair{world: &world{t: t, pbx: newPeer(t, "127.0.0.2", "udp"), far: newPeer(t, "127.0.0.4", "tcp")}, b: &world{t: t, pbx: newPeer(t, "127.0.0.12", "udp")}}
	p.pstnAt = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port(t, "127.0.0.1", "udp")))
	p.b.pstnAt = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.11"), uint16(port(t, "127.0.0.11", "udp")))
	p.start("127.0.0.1", "a.example", "+14085551XXX", p.pbx.at, p.b.pstnAt, strings.Join(moreOfA, ""))
	p.b.start("127.0.0.11", "b.example", "+12125552XXX", p.b.pbx.at, p.pstnAt, "")
	p.b.reload(strings.Replace(p.b.cfg, "advertised-number +14085559999", "advertised-number +12125559999", 1))
	if change != nil {
		p.reload(change(p.cfg))
		p.b.reload(change(p.b.cfg))
	}
	p.fa, p.fb = newPhone(t, "127.0.0.2"), newPhone(t, "127.0.0.12")
	p.pbx.sdp, p.b.pbx.sdp = p.fa.sdp, p.fb.sdp
	p.route(bNumber, p.b.imeAt)
	p.setUp()
	return p
}

func (p *pair) setUp() {
	t := p.t
	t.Helper()
	p.call = p.pbx.call(p.pbxAt, own, bNumber, sdpOf(p.fa.at))
	s := p.b.pbx.expect()
	p.there = p.b.pbx.leg(s)
	if err := p.there.Respond(s.req, s.tx, 200, "OK", p.fb.sdp(s.req.Body()), "", nil); err != nil {
		t.Fatal(err)
	}
	p.fa.sdp(final(t, p.call).Body())
	take(t, p.b.pbx.acks, "the ACK")
	until(t, "they hear each other", func() bool { return p.fa.hears(p.fb.at) > 5 && p.fb.hears(p.fa.at) > 5 })
	p.ime = farLegOf(t, p.a)
}

// farLegOf is the IME leg of an agent's only call.
func farLegOf(t *testing.T, a *Agent) *leg.Leg {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.calls {
		return c.farLeg()
	}
	t.Fatal("there is no call")
	return nil
}

// notify plays the proxy of an agent.
func notify(t *testing.T, proxy *peer, to netip.AddrPort, l *leg.Leg, change ...[2]string) int {
	t.Helper()
	target := uri("", to.Addr().String())
	target.Port = int(to.Port())
	r := proxy.Calling("tcp", to.String(), target, leg.Party{URI: uri("", "127.0.0.4")}, leg.Party{URI: uri("", to.Addr().String())})
	h := map[string]string{
		"Target-Dialog": fmt.Sprintf("%s;local-tag=%s;remote-tag=%s", l.CallID, l.LocalTag(), l.RemoteTag()),
		"Refer-To":      "<urn:uc-ime:pstn-fallback>", "Refer-Sub": "false", "Supported": "tdialog, norefersub",
	}
	for _, c := range change {
		h[c[0]] = c[1]
	}
	var x leg.Extra
	for name, value := range h {
		x = append(x, [2]string{name, value})
	}
	ctx, done := context.WithTimeout(context.Background(), wait)
	defer done()
	res, err := r.Do(ctx, sip.REFER, nil, "", x)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode
}

// onPSTN demands that the call is on the PSTN at both ends and that its phones hear each other.
func (p *pair) onPSTN() {
	t := p.t
	t.Helper()
	for _, w := range []*world{p.world, p.b} {
		w.counts(map[string]uint64{"FallbackCallsSuccessful": 1, "FallbackCallsFailed": 0, "ActiveCalls": 1})
		until(t, "one leg is left", func() bool {
			w.a.mu.Lock()
			defer w.a.mu.Unlock()
			return len(w.a.dialogs) == 2
		})
	}
	a, b := p.fa.hears(p.fb.at), p.fb.hears(p.fa.at)
	until(t, "they hear each other", func() bool { return p.fa.hears(p.fb.at) > a+5 && p.fb.hears(p.fa.at) > b+5 })
	for _, f := range []*phone{p.fa, p.fb} {
		f.mu.Lock()
		gap := f.gap
		f.mu.Unlock()
		if gap > 500*time.Millisecond {
			t.Errorf("a gap of %v", gap)
		}
	}
}

func TestABadCallMovesToThePSTN(t *testing.T) {
	p := newPair(t, nil)
	if code := notify(t, p.far, p.imeAt, p.ime); code != 202 {
		t.Fatalf("the notification was answered %d", code)
	}
	p.onPSTN()
	// Nobody makes a record of it, and hanging up ends everything.
	p.call.Leg.Bye(context.Background())
	take(t, p.b.pbx.byes, "the BYE")
	for _, w := range []*world{p.world, p.b} {
		w.counts(map[string]uint64{"ActiveCalls": 0, "VCRsWritten": 0})
	}
}

// The first trunk is silent, or full: the call moves over the other one.
func TestAFallbackOverAnotherTrunk(t *testing.T) {
	for name, code := range map[string]int{"silent": 0, "full": 503} {
		t.Run(name, func(t *testing.T) {
			full := newPeer(t, "127.0.0.6", "udp")
			broken := full.at
			if code == 0 {
				broken = deaf(t)
			}
			// The second trunk leads to the other enterprise; the first one did while the call was set up, and does no more.
			nowhere := peerLine(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.11"), uint16(port(t, "127.0.0.11", "udp"))))
			p := newPair(t, nil, fmt.Sprintf("pstn-trunk u\n listen udp 127.0.0.1 port %d\n", port(t, "127.0.0.1", "udp"))+nowhere)
			there := peerLine(p.b.pstnAt)
			p.reload(strings.Replace(strings.Replace(p.cfg, there, peerLine(broken), 1), nowhere, there, 1))
			if got := notify(t, p.far, p.imeAt, p.ime); got != 202 {
				t.Fatalf("the notification was answered %d", got)
			}
			if code > 0 {
				s := full.expect()
				answer(s.req, s.tx, code, "No")
			}
			p.onPSTN()
		})
	}
}

// The terminating side alone may see that the path is bad; it asks the originating one.
func TestTheTerminatingSideAsks(t *testing.T) {
	p := newPair(t, nil)
	if code := notify(t, p.far, p.b.imeAt, farLegOf(t, p.b.a)); code != 202 {
		t.Fatalf("the notification was answered %d", code)
	}
	p.onPSTN()
}

func TestNotificationsThatAreRefused(t *testing.T) {
	p := newPair(t, nil)
	for _, x := range []struct {
		change [2]string
		want   int
	}{
		{[2]string{"Target-Dialog", "x;local-tag=a;remote-tag=b"}, 481},
		{[2]string{"Target-Dialog", fmt.Sprintf("%s;local-tag=%s;remote-tag=wrong", p.ime.CallID, p.ime.LocalTag())}, 481},
		{[2]string{"Target-Dialog", ""}, 481},
		{[2]string{"Refer-To", "<sip:+19005551212@evil.example>"}, 403},
	} {
		if got := notify(t, p.far, p.imeAt, p.ime, x.change); got != x.want {
			t.Errorf("%v: %d", x.change, got)
		}
	}
	p.reload(p.cfg + "fallback-feature\n enable false\n")
	if got := notify(t, p.far, p.imeAt, p.ime); got != 603 {
		t.Errorf("disabled: %d", got)
	}
	p.counts(map[string]uint64{"FallbackRequestsRefused": 5, "FallbackRequests": 0, "FallbackCallsFailed": 0, "ActiveCalls": 1})
}

// A fallback that fails leaves the call as it is.
func TestAFallbackThatFails(t *testing.T) {
	for name, x := range map[string]func(p *pair){
		"nobody takes the number": func(p *pair) {
			p.b.reload(strings.Replace(p.b.cfg, "advertised-number +14085559999", "advertised-number +12125550000", 1))
		},
		"wrong digits": func(p *pair) {
			c := callOf(p.t, p.a)
			c.mu.Lock()
			defer c.mu.Unlock()
			flipped := []byte(c.fb.code)
			flipped[0] = '0' + (flipped[0]-'0'+1)%10
			c.fb.code = string(flipped)
		},
		"the phone refuses": func(p *pair) {
			p.b.pbx.sdp = func([]byte) []byte { return nil }
			p.b.pbx.mu.Lock()
			defer p.b.pbx.mu.Unlock()
			p.b.pbx.legs = nil // its re-INVITEs are for the test now
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, nil)
			x(p)
			if code := notify(t, p.far, p.imeAt, p.ime); code != 202 {
				t.Fatalf("the notification was answered %d", code)
			}
			if name != "wrong digits" {
				s := p.b.pbx.expect() // a re-INVITE, or an ordinary call
				answer(s.req, s.tx, 488, "Not Acceptable Here")
			}
			p.counts(map[string]uint64{"FallbackCallsFailed": 1, "FallbackCallsSuccessful": 0, "ActiveCalls": 1})
			until(t, "B keeps its one call", func() bool { return p.b.counter("ActiveCalls") == 1 })
			a, b := p.fa.hears(p.fb.at), p.fb.hears(p.fa.at)
			until(t, "they hear each other", func() bool { return p.fa.hears(p.fb.at) > a+5 && p.fb.hears(p.fa.at) > b+5 })
			p.call.Leg.Bye(context.Background())
			take(t, p.b.pbx.byes, "the BYE")
		})
	}
}

func callOf(t *testing.T, a *Agent) *call {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.calls {
		return c
	}
	t.Fatal("there is no call")
	return nil
}

func TestAFallbackCallOfAStrangerIsRefused(t *testing.T) {
	w := newWorld(t, "")
	if res := final(t, w.pstn.call(w.pstnAt, "+19995550000", "+14085559999", anySDP)); res.StatusCode != 404 {
		t.Error(res)
	}
	w.counts(map[string]uint64{"FallbackUnmatched": 1, "ActiveCalls": 0})
}

func TestIdentifiersRunOut(t *testing.T) {
	w := newWorld(t, "")
	other := new(call)
	w.a.mu.Lock()
	for i := range 10000 {
		w.a.digits[key("+14085559999", fmt.Sprintf("%04d", i))] = other
	}
	w.a.mu.Unlock()
	out := w.far.call(w.imeAt, bNumber, own, anySDP)
	s := w.pbx.expect()
	_ = w.pbx.leg(s).Respond(s.req, s.tx, 200, "OK", anySDP, "", nil)
	if res := final(t, out); res.StatusCode != 200 || res.GetHeader(targetHeader) != nil {
		t.Errorf("%s", res)
	}
	w.counts(map[string]uint64{"InsufficientFallbackIdentifiers": 1})
	if text, _ := w.a.Command([]string{"show", "alerts"}, true); !strings.Contains(text, "InsufficientFallbackIdentifiers") {
		t.Error(text)
	}
	w.a.mu.Lock() // one is free again
	delete(w.a.digits, key("+14085559999", "0042"))
	digits, ok := w.a.pick("+14085559999", 4)
	w.a.mu.Unlock()
	if !ok || digits != "0042" {
		t.Error(digits, ok)
	}
}

func TestTheQueueOfFallbacksHasALimit(t *testing.T) {
	a := &Agent{wake: make(chan struct{}, 1)}
	for i := range maximumQueued + 1 {
		if ok := a.enqueue(new(call)); ok != (i < maximumQueued) {
			t.Fatalf("call %d: %v", i, ok)
		}
	}
}

func TestCallersThatThePSTNChanged(t *testing.T) {
	for _, x := range []struct {
		a, b string
		n    int
		want bool
	}{
		{"+14085551111", "4085551111", 5, true},
		{"+14085551111", "51111", 5, true},
		{"+14085551111", "1111", 5, false},
		{"+14085551111", "+14085561112", 5, false},
		{"", "", 5, false},
		{"+1", "+1", 1, true},
	} {
		if sameCaller(x.a, x.b, x.n) != x.want {
			t.Errorf("%+v", x)
		}
	}
}

func TestAnnouncedTargets(t *testing.T) {
	for value, want := range map[string]string{
		"<tel:+12125559999>;dtmf=0042": "+12125559999", "<tel:2125559999>;dtmf=0042": "", "<tel:+12125559999>;dtmf=42": "",
		"<tel:+12125559999>;dtmf=00a2": "", "<sip:+12125559999>;dtmf=0042": "", "<tel:+1212555999900000>;dtmf=0042": "", "": "",
	} {
		c := new(call)
		res := sip.NewResponse(200, "OK")
		res.AppendHeader(sip.NewHeader(targetHeader, value))
		if c.learnTarget(res); c.fb.number != want {
			t.Errorf("%q: %q", value, c.fb.number)
		}
	}
}
