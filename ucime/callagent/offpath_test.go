package callagent

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
)

const stunCookie = 0x2112a442

// mappingService plays the proxy's off-path mapping service (protocol/mapping.md), bytes and all. Answer says where a target is mapped to, or
// which error it gets; no answer at all where both are zero.
func mappingService(t *testing.T, answer func(target netip.AddrPort) (netip.AddrPort, int)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.8:0")
	if err != nil {
		t.Fatal(err)
	}
	done, open := make(chan struct{}), make(chan net.Conn, 16)
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open <- c
			for {
				b := make([]byte, 40) // header, XOR-PEER-ADDRESS, FINGERPRINT
				if _, err := io.ReadFull(c, b); err != nil {
					break
				}
				ip := binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(b[28:])^stunCookie)
				to, code := answer(netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip)), binary.BigEndian.Uint16(b[26:])^stunCookie>>16))
				if to.IsValid() || code > 0 {
					_, _ = c.Write(stunAnswer(b[8:20], to, code))
				}
			}
			c.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		for {
			select {
			case c := <-open:
				c.Close() // the agent would keep it until it is idle
			case <-done:
				return
			}
		}
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func stunAnswer(id []byte, to netip.AddrPort, code int) []byte {
	kind, attr := uint16(0x010f), []byte{0, 0x20, 0, 8, 0, 1}
	if code > 0 {
		kind, attr = 0x011f, []byte{0, 0x09, 0, 4, 0, 0, byte(code / 100), byte(code % 100)}
	} else {
		ip := to.Addr().As4()
		attr = binary.BigEndian.AppendUint16(attr, to.Port()^stunCookie>>16)
		attr = binary.BigEndian.AppendUint32(attr, binary.BigEndian.Uint32(ip[:])^stunCookie)
	}
	b := binary.BigEndian.AppendUint16(nil, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(attr)+8))
	b = append(append(binary.BigEndian.AppendUint32(b, stunCookie), id...), attr...)
	return binary.BigEndian.AppendUint32(append(b, 0x80, 0x28, 0, 4), crc32.ChecksumIEEE(b)^0x5354554e)
}

// offPath gives the world's service a firewall.
func (w *world) offPath(at netip.AddrPort) {
	w.t.Helper()
	text := strings.Replace(w.cfg, " activated\n", " activated\n firewall dmz\n", 1)
	w.reload(text + fmt.Sprintf("firewall dmz\n address %s port %d\n", at.Addr(), at.Port()))
}

var global = netip.MustParseAddrPort("203.0.113.9:5061")

// Off the path of the proxy, every request of a call goes to the stand-in that the mapping service names, whatever the far side's Contact says.
func TestOffPathCallsGoToTheMappedAddress(t *testing.T) {
	w := newWorld(t, "")
	asked := make(chan netip.AddrPort, 4)
	w.offPath(mappingService(t, func(target netip.AddrPort) (netip.AddrPort, int) {
		asked <- target
		return w.far.at, 0
	}))
	w.route(other, global)
	out := w.pbx.call(w.pbxAt, own, other, anySDP)
	s := w.far.expect()
	if got := take(t, asked, "the mapping request"); got != global {
		t.Errorf("asked for %s", got)
	}
	l := w.far.leg(s)
	res := sip.NewResponseFromRequest(s.req, 200, "OK", anySDP)
	res.To().Params.Remove("tag")
	res.To().Params.Add("tag", l.LocalTag())
	res.AppendHeader(sip.NewHeader("Contact", "<sip:x@203.0.113.9:5061;transport=tcp>"))
	res.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
	if err := s.tx.Respond(res); err != nil {
		t.Fatal(err)
	}
	if got := final(t, out); got.StatusCode != 200 {
		t.Fatalf("%s", got)
	}
	take(t, w.far.acks, "the ACK")
	w.far.mu.Lock()
	w.far.sdp = func([]byte) []byte { return anySDP }
	w.far.mu.Unlock()
	ctx, done := context.WithTimeout(context.Background(), wait)
	defer done()
	if got, _, err := out.Leg.Reinvite(ctx, anySDP, "", nil); err != nil || got.StatusCode != 200 {
		t.Errorf("re-INVITE: %v %v", got, err)
	}
	out.Leg.Bye(ctx)
	take(t, w.far.byes, "the BYE")
	w.counts(map[string]uint64{"CallsSetup": 1, "ActiveCalls": 0})
}

// Whatever is wrong with the mapping service, the call is on the PSTN in time.
func TestOffPathFailuresGoToThePSTN(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.8:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // nobody listens there any more
	for name, service := range map[string]func() netip.AddrPort{
		"nobody listens": func() netip.AddrPort { return l.Addr().(*net.TCPAddr).AddrPort() },
		"it is silent": func() netip.AddrPort {
			return mappingService(t, func(netip.AddrPort) (netip.AddrPort, int) { return netip.AddrPort{}, 0 })
		},
		"it refuses": func() netip.AddrPort {
			return mappingService(t, func(netip.AddrPort) (netip.AddrPort, int) { return netip.AddrPort{}, 403 })
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "")
			w.offPath(service())
			var uris []netip.AddrPort
			for i := range 3 {
				uris = append(uris, netip.AddrPortFrom(global.Addr(), uint16(5061+i)))
			}
			w.route(other, uris...)
			begin := time.Now()
			out := w.pbx.call(w.pbxAt, own, other, anySDP)
			if at, _ := w.toPSTN(out, other); at.Sub(begin) > 2*time.Second {
				t.Errorf("on the PSTN after %v", at.Sub(begin))
			}
			w.counts(map[string]uint64{"IMESetupsFailed": 1})
		})
	}
}

// One URI that the service refuses does not keep the next one from being tried.
func TestOffPathTheNextURI(t *testing.T) {
	w := newWorld(t, "")
	w.offPath(mappingService(t, func(target netip.AddrPort) (netip.AddrPort, int) {
		if target == global {
			return netip.AddrPort{}, 403
		}
		return w.far.at, 0
	}))
	w.route(other, global, netip.MustParseAddrPort("203.0.113.10:5061"))
	out := w.pbx.call(w.pbxAt, own, other, anySDP)
	s := w.far.expect()
	answer(s.req, s.tx, 486, "Busy Here")
	if res := final(t, out); res.StatusCode != 486 {
		t.Errorf("%s", res)
	}
}
