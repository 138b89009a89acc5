package leg

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"go.uber.org/goleak"

	"imeproxy/ucime/callagent/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// arrived is a request with its transaction, which is nil for an ACK.
type arrived struct {
	req *sip.Request
	tx  *sip.ServerTx
}

// endpoint listens at an address by both transports and hands on what comes.
func endpoint(t *testing.T, ip string, known func(netip.Addr) bool) (*Endpoint, <-chan arrived) {
	t.Helper()
	got := make(chan arrived, 64)
	addr := netip.MustParseAddr(ip)
	e, err := Listen("at "+ip, []config.Listener{{Transport: "udp", Addr: netip.AddrPortFrom(addr, 0)}, {Transport: "tcp", Addr: netip.AddrPortFrom(addr, 0)}}, known, quiet(),
		func(_ *Endpoint, req *sip.Request, tx *sip.ServerTx) { got <- arrived{req, tx} })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e, got
}

func take[V any](t *testing.T, ch <-chan V, what string) V {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("%s did not come", what)
		panic("unreachable")
	}
}

// pair is a call between two endpoints.
func pair(t *testing.T, transport string) (a, b *Endpoint, atA, atB <-chan arrived, l *Leg) {
	t.Helper()
	a, atA = endpoint(t, "127.0.0.1", nil)
	b, atB = endpoint(t, "127.0.0.2", nil)
	at := b.Local(transport)
	target := sip.Uri{Scheme: "sip", User: "bob", Host: at.Addr().String(), Port: int(at.Port())}
	l = a.Calling(transport, at.String(), target, Party{Name: "Alice", URI: sip.Uri{Scheme: "sip", User: "alice", Host: "a.example"}}, Party{URI: sip.Uri{Scheme: "sip", User: "bob", Host: "b.example"}})
	return a, b, atA, atB, l
}

func sdp(version int, port int) []byte {
	return fmt.Appendf(nil, "v=0\r\no=phone 77 %d IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio %d RTP/AVP 0\r\n", version, port)
}

// raw is a socket without a SIP stack.
func raw(t *testing.T, ip string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(ip)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func options(n int, at netip.AddrPort) []byte {
	return fmt.Appendf(nil, "OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/UDP %[2]s;branch=z9hG4bK%[1]d\r\nFrom: <sip:a@x>;tag=1\r\nTo: <sip:x>\r\nCall-ID: %[1]d\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n", n, at)
}
