package service

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/pion/stun/v3"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 5 * time.Second

var (
	ourAddr   = netip.MustParseAddr("127.0.0.2")
	agent     = netip.MustParseAddr("127.0.0.3")
	second    = netip.MustParseAddr("127.0.0.4")
	stranger  = netip.MustParseAddr("127.0.0.9")
	target    = netip.MustParseAddrPort("209.165.201.3:5061")
	forbidden = netip.MustParseAddr("209.165.201.99")
)

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Now().Round(0)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// leg is a connection to a mapped port as the service hands it over.
type leg struct {
	conn   net.Conn
	client netip.Addr
	target netip.AddrPort
	done   chan struct{} // closed by the test: the leg ends
}

func settings() Settings {
	return Settings{
		Listen: netip.AddrPortFrom(ourAddr, 0), Clients: []netip.Addr{agent, second}, Quota: DefaultQuota, Low: 21000, High: 21999,
		Lifetime: DefaultLifetime, Idle: DefaultIdle, Allowed: func(t netip.AddrPort) bool { return t.Addr() != forbidden },
	}
}

// rig is a service with its legs.
type rig struct {
	*Service
	t     testing.TB
	clock *clock
	opt   Options
	legs  chan *leg
	mu    sync.Mutex
	open  []*leg
}

func start(t testing.TB, mod func(*Options, *Settings)) *rig {
	t.Helper()
	r := &rig{t: t, clock: newClock(), legs: make(chan *leg, 100)}
	set := settings()
	r.opt = Options{Now: r.clock.now, Leg: r.serve}
	if mod != nil {
		mod(&r.opt, &set)
	}
	var err error
	if r.Service, err = Start(r.opt, set); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.stop)
	return r
}

func (r *rig) serve(c net.Conn, client netip.Addr, target netip.AddrPort) {
	l := &leg{c, client, target, make(chan struct{})}
	r.mu.Lock()
	r.open = append(r.open, l)
	r.mu.Unlock()
	r.legs <- l
	<-l.done
	_ = c.Close()
}

func (r *rig) stop() {
	r.mu.Lock()
	for _, l := range r.open {
		select {
		case <-l.done:
		default:
			close(l.done)
		}
	}
	r.open = nil
	r.mu.Unlock()
	if err := r.Close(); err != nil {
		r.t.Error(err)
	}
	r.Wait()
}

// dial connects from an address.
func dial(t testing.TB, from netip.Addr, to netip.AddrPort) (*net.TCPConn, error) {
	t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: patience}
	c, err := d.Dial("tcp4", to.String())
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn), nil
}

func (r *rig) dial(from netip.Addr) *net.TCPConn {
	r.t.Helper()
	c, err := dial(r.t, from, r.Addr())
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// request is a message of a stock STUN library.
func request(t testing.TB, to netip.AddrPort, more ...stun.Setter) *stun.Message {
	t.Helper()
	peer := func(m *stun.Message) error {
		return stun.XORMappedAddress{IP: to.Addr().AsSlice(), Port: int(to.Port())}.AddToAs(m, stun.AttrXORPeerAddress)
	}
	m, err := stun.Build(append([]stun.Setter{stun.TransactionID, stun.NewType(Method, stun.ClassRequest), setter(peer)}, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

type setter func(m *stun.Message) error

func (f setter) AddTo(m *stun.Message) error { return f(m) }

func write(t testing.TB, c net.Conn, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

// read takes one message.
func read(t testing.TB, c io.Reader) *stun.Message {
	t.Helper()
	b := make([]byte, headerSize, 1200)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatalf("no answer: %v", err)
	}
	size, _ := frameSize(b)
	b = b[:size]
	if _, err := io.ReadFull(c, b[headerSize:]); err != nil {
		t.Fatalf("half an answer: %v", err)
	}
	m := &stun.Message{Raw: b}
	if err := m.Decode(); err != nil {
		t.Fatalf("%v in %x", err, b)
	}
	return m
}

// mappedOf is the address of a success response.
func mappedOf(t testing.TB, m *stun.Message) netip.AddrPort {
	t.Helper()
	var a stun.XORMappedAddress
	if m.Type.Class != stun.ClassSuccessResponse || m.Type.Method != Method || a.GetFrom(m) != nil {
		t.Fatalf("no success: %s, code %d", m, codeOf(m))
	}
	ip, _ := netip.AddrFromSlice(a.IP)
	return netip.AddrPortFrom(ip.Unmap(), uint16(a.Port))
}

func codeOf(m *stun.Message) Code {
	var e stun.ErrorCodeAttribute
	if e.GetFrom(m) != nil {
		return 0
	}
	return Code(e.Code)
}

// ask sends one request and reads its answer.
func ask(t testing.TB, c net.Conn, to netip.AddrPort, more ...stun.Setter) *stun.Message {
	t.Helper()
	m := request(t, to, more...)
	write(t, c, m.Raw)
	a := read(t, c)
	if a.TransactionID != m.TransactionID {
		t.Fatal("the answer has another transaction ID")
	}
	return a
}

// until polls a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func to(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(n >> 8), byte(n)}), 5061)
}
