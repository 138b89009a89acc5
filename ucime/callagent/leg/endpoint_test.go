package leg

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"

	"imeproxy/ucime/callagent/config"
)

// However busy it is, an endpoint that closes leaves no socket and no goroutine: the package's leak check sees them.
func TestAnEndpointClosesWhileRequestsCome(t *testing.T) {
	for range 30 {
		addr := netip.MustParseAddr("127.0.0.1")
		e, err := Listen("x", []config.Listener{{Transport: "udp", Addr: netip.AddrPortFrom(addr, 0)}, {Transport: "tcp", Addr: netip.AddrPortFrom(addr, 0)}}, nil, quiet(),
			func(_ *Endpoint, req *sip.Request, tx *sip.ServerTx) {
				_ = tx.Respond(sip.NewResponseFromRequest(req, 200, "OK", nil))
			})
		if err != nil {
			t.Fatal(err)
		}
		stop, done := make(chan struct{}), make(chan struct{})
		from := raw(t, "127.0.0.2")
		go func() {
			defer close(done)
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				_, _ = from.WriteToUDPAddrPort(options(n, from.LocalAddr().(*net.UDPAddr).AddrPort()), e.Local("udp"))
			}
		}()
		b := make([]byte, 2000)
		_ = from.SetReadDeadline(time.Now().Add(patience))
		if _, _, err := from.ReadFromUDP(b); err != nil {
			t.Fatal(err)
		}
		e.Close()
		close(stop)
		<-done
	}
}

func TestStrangersAreBoundedAndThePeerIsNot(t *testing.T) {
	peer := netip.MustParseAddr("127.0.0.3")
	e, got := endpoint(t, "127.0.0.1", func(a netip.Addr) bool { return a == peer })
	for n := range maximumStrangers + 5 {
		if ok := e.source(netip.AddrPortFrom(netip.MustParseAddr("127.0.9.9"), uint16(n+1))); ok != (n < maximumStrangers) {
			t.Fatalf("stranger %d: %v", n, ok)
		}
	}
	if _, err := raw(t, "127.0.0.4").WriteToUDPAddrPort(options(1, e.Local("udp")), e.Local("udp")); err != nil {
		t.Fatal(err)
	}
	if _, err := raw(t, "127.0.0.3").WriteToUDPAddrPort(options(2, e.Local("udp")), e.Local("udp")); err != nil {
		t.Fatal(err)
	}
	if a := take(t, got, "the peer's request"); a.req.CallID().Value() != "2" {
		t.Errorf("%s", a.req)
	}
}

// A sender that hangs up before its answer must not have it sent where its Via says.
func TestAResponseGoesNowhereElse(t *testing.T) {
	e, got := endpoint(t, "127.0.0.1", nil)
	victim, err := net.Listen("tcp4", "127.0.0.9:0")
	if err != nil {
		t.Fatal(err)
	}
	defer victim.Close()
	c, err := net.Dial("tcp4", e.Local("tcp").String())
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(options(1, netip.MustParseAddrPort(victim.Addr().String()))), "SIP/2.0/UDP", "SIP/2.0/TCP", 1)
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	a := take(t, got, "the request")
	c.Close()
	take(t, a.tx.Done(), "the end of the transaction")
	if err := e.tp.WriteMsg(sip.NewResponseFromRequest(a.req, 200, "OK", nil)); err == nil {
		t.Error("a response was sent")
	}
	d := e.dialer((*net.TCPAddr)(nil))
	if c, err := d.Dial("tcp4", victim.Addr().String()); err == nil {
		c.Close()
		t.Error("connected to the victim")
	}
}

func TestARequestWithoutWhatItNeedsIsRefused(t *testing.T) {
	e, _ := endpoint(t, "127.0.0.1", nil)
	c := raw(t, "127.0.0.2")
	text := strings.Replace(string(options(1, netip.MustParseAddrPort(c.LocalAddr().String()))), "To: <sip:x>\r\n", "", 1)
	if _, err := c.WriteToUDPAddrPort([]byte(text), e.Local("udp")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2000)
	_ = c.SetReadDeadline(time.Now().Add(patience))
	n, _, err := c.ReadFromUDP(b)
	if err != nil || !strings.HasPrefix(string(b[:n]), "SIP/2.0 400 ") {
		t.Errorf("%s %v", b[:n], err)
	}
}

func TestSocketsThatCannotBeHad(t *testing.T) {
	e, _ := endpoint(t, "127.0.0.1", nil)
	for _, transport := range []string{"udp", "tcp"} {
		at := []config.Listener{{Transport: "udp", Addr: netip.MustParseAddrPort("127.0.0.1:0")}, {Transport: transport, Addr: e.Local(transport)}}
		if _, err := Listen("taken", at[:], nil, quiet(), nil); err == nil || !strings.HasPrefix(err.Error(), "taken: ") {
			t.Errorf("%s: %v", transport, err)
		}
	}
}
