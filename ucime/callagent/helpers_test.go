package callagent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"go.uber.org/goleak"

	"imeproxy/ucime/callagent/config"
	"imeproxy/ucime/callagent/leg"
	"imeproxy/ucime/learn"
	"imeproxy/ucime/ticket"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerDir); dir != "" {
		fmt.Fprintln(os.Stderr, writeUntilKilled(dir))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

const wait = 10 * time.Second

// seen is a request that a peer received.
type seen struct {
	req *sip.Request
	tx  *sip.ServerTx
}

// peer plays a PBX, the PSTN or a far enterprise.
type peer struct {
	t *testing.T
	*leg.Endpoint
	at        netip.AddrPort
	transport string
	got       chan seen // INVITE and REFER
	acks      chan *sip.Request
	byes      chan *sip.Request

	mu   sync.Mutex
	mute bool // answers nothing
	legs map[string]*leg.Leg
	sdp  func(remote []byte) []byte // of the phone, given the other side's
}

func port(t *testing.T, ip, transport string) int {
	t.Helper()
	if transport == "udp" {
		c, err := net.ListenPacket("udp4", ip+":0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.LocalAddr().(*net.UDPAddr).Port
	}
	l, err := net.Listen("tcp4", ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func newPeer(t *testing.T, ip, transport string) *peer {
	t.Helper()
	p := &peer{t: t, transport: transport, got: make(chan seen, 16), acks: make(chan *sip.Request, 16), byes: make(chan *sip.Request, 16), legs: make(map[string]*leg.Leg)}
	p.at = netip.AddrPortFrom(netip.MustParseAddr(ip), uint16(port(t, ip, transport)))
	var err error
	p.Endpoint, err = leg.Listen("peer "+ip, []config.Listener{{Transport: transport, Addr: p.at}}, nil, quiet(), p.handle)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Endpoint.Close)
	return p
}

func quiet() *slog.Logger {
	if os.Getenv("CALLAGENT_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.NewTextHandler(io.Discard, nil))
}

func (p *peer) handle(_ *leg.Endpoint, req *sip.Request, tx *sip.ServerTx) {
	p.mu.Lock()
	mute := p.mute
	tag, _ := req.To().Params.Get("tag")
	l := p.legs[req.CallID().Value()]
	p.mu.Unlock()
	switch {
	case mute:
	case req.IsAck():
		if l != nil {
			l.Acked(req)
		}
		p.acks <- req
	case req.Method == sip.BYE:
		answer(req, tx, 200, "OK")
		p.byes <- req
	case req.Method == sip.OPTIONS:
		answer(req, tx, 200, "OK")
	case req.Method == sip.INVITE && tag != "" && l != nil && p.sdp != nil:
		l.Offered(req)
		_ = l.Respond(req, tx, 200, "OK", p.sdp(req.Body()), "", nil)
	default:
		p.got <- seen{req, tx}
	}
}

func (p *peer) setMute(m bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mute = m
}

// expect waits for a request.
func (p *peer) expect() seen {
	p.t.Helper()
	return take(p.t, p.got, "a request at "+p.at.String())
}

func take[V any](t *testing.T, ch <-chan V, what string) V {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(wait):
		t.Fatalf("%s did not come", what)
		panic("unreachable")
	}
}

// leg makes the leg of a received INVITE.
func (p *peer) leg(s seen) *leg.Leg {
	l := p.Called(s.req)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.legs[l.CallID] = l
	return l
}

// call begins a call.
func (p *peer) call(to netip.AddrPort, from, called string, sdp []byte, x ...[2]string) *leg.Outgoing {
	p.t.Helper()
	target := uri(called, to.Addr().String())
	target.Port = int(to.Port())
	l := p.Calling(p.transport, to.String(), target, leg.Party{URI: uri(from, p.at.Addr().String())}, leg.Party{URI: uri(called, to.Addr().String())})
	p.mu.Lock()
	p.legs[l.CallID] = l
	p.mu.Unlock()
	out, err := l.Invite(context.Background(), sdp, "", x)
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

// final waits for the final answer, and acknowledges a 2xx.
func final(t *testing.T, o *leg.Outgoing) *sip.Response {
	t.Helper()
	for {
		select {
		case res := <-o.Tx.Responses():
			if res.IsProvisional() {
				continue
			}
			if res.IsSuccess() {
				o.Learn(res)
				o.Ack(nil)
			}
			return res
		case <-o.Tx.Done():
			t.Fatalf("no final answer: %v", o.Tx.Err())
		case <-time.After(wait):
			t.Fatal("no final answer")
		}
	}
}

func sdpOf(at netip.AddrPort) []byte {
	return fmt.Appendf(nil, "v=0\r\no=x 7 7 IN IP4 %[1]s\r\ns=-\r\nc=IN IP4 %[1]s\r\nt=0 0\r\nm=audio %[2]d RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n", at.Addr(), at.Port())
}

var anySDP = sdpOf(netip.MustParseAddrPort("127.0.0.99:4000"))

// world is an agent between its peers.
type world struct {
	t              *testing.T
	a              *Agent
	pbx, pstn, far *peer
	pbxAt, pstnAt  netip.AddrPort
	imeAt          netip.AddrPort
	cfg            string
	ahead          atomic.Int64 // of the agent's clock
}

// own and other are the two numbers of most tests.
const own, other = "+14085551111", "+12125552222"

func newWorld(t *testing.T, more string) *world {
	t.Helper()
	w := &world{t: t, pbx: newPeer(t, "127.0.0.2", "udp"), pstn: newPeer(t, "127.0.0.3", "udp"), far: newPeer(t, "127.0.0.4", "tcp")}
	w.start("127.0.0.1", "a.example", "+14085551XXX", w.pbx.at, w.pstn.at, more)
	return w
}

// start starts the agent at an address.
func (w *world) start(ip, domain, pattern string, pbx, pstn netip.AddrPort, more string) {
	w.t.Helper()
	addr := netip.MustParseAddr(ip)
	pick := func(transport string, at *netip.AddrPort) {
		if !at.IsValid() {
			*at = netip.AddrPortFrom(addr, uint16(port(w.t, ip, transport)))
		}
	}
	pick("udp", &w.pbxAt)
	pick("udp", &w.pstnAt)
	pick("tcp", &w.imeAt)
	dir := w.t.TempDir()
	w.cfg = fmt.Sprintf(`state-directory %s
control %s
pbx p
 listen udp %s port %d
 peer udp %s port %d
pstn-trunk t
 listen udp %s port %d
 peer udp %s port %d
ime-trunk i
 listen tcp %s port %d
 inbound-called short
service s
 domain %s
 activated
 enrolled-group g
enrolled-group g
 pattern %s
 fallback-profile f
fallback-profile f
 advertised-number +14085559999
transformation short
 match +1408555XXXX strip 8
%s`, filepath.Join(dir, "state"), filepath.Join(dir, "c.sock"), ip, w.pbxAt.Port(), pbx.Addr(), pbx.Port(), ip, w.pstnAt.Port(), pstn.Addr(), pstn.Port(), ip, w.imeAt.Port(), domain, pattern, more)
	cfg, err := config.Parse("test.cfg", []byte(w.cfg))
	if err != nil {
		w.t.Fatal(err)
	}
	if w.a, err = Start(Options{Config: cfg, Log: quiet(), Now: func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }, askLimit: 300 * time.Millisecond}); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(w.a.Close)
}

// testTicket is a ticket for a number of b.example.
func testTicket(t *testing.T, n string) string {
	t.Helper()
	text, err := ticket.Issue(ticket.DeriveKey("password-of-b", 1), ticket.IssueParams{
		GrantingDomain: "b.example", GrantedToDomain: "a.example", Numbers: []string{n}, NotBefore: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// route teaches the agent a route to a number by some URIs.
func (w *world) route(n string, uris ...netip.AddrPort) string {
	w.t.Helper()
	r := learn.Route{Number: learn.Number(n), Domain: "b.example", Ticket: testTicket(w.t, n)}
	for _, u := range uris {
		r.URIs = append(r.URIs, "sip:"+u.String())
	}
	if err := w.a.Learn(r); err != nil {
		w.t.Fatal(err)
	}
	return r.Ticket
}

// counter is a figure of the agent.
func (w *world) counter(name string) uint64 {
	w.t.Helper()
	for _, s := range w.a.Samples() {
		if s.Name == name {
			return s.Value
		}
	}
	w.t.Fatalf("no counter %s", name)
	return 0
}

// counts compares counters, which may lag behind the wire a little.
func (w *world) counts(want map[string]uint64) {
	w.t.Helper()
	for name, n := range want {
		until(w.t, fmt.Sprintf("%s is %d", name, n), func() bool { return w.counter(name) == n })
	}
}

// until polls for a state that is reached without a message.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(wait); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("it does not become true that %s", what)
}

func has(req *sip.Request, name, value string) bool {
	h := req.GetHeader(name)
	return h != nil && strings.EqualFold(h.Value(), value)
}
