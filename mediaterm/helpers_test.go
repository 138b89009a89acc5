package mediaterm

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The addresses of the tests: all of 127/8 is local without root. Ours, whose ports the tests count on, are this process's alone.
var (
	ourNet     = takeNet()
	ourInside  = ourNet.host(3)
	ourOutside = ourNet.host(4)
	phoneAddr  = netip.MustParseAddr("127.0.0.20")
	peerAddr   = netip.MustParseAddr("127.0.0.30")
	natAddr    = netip.MustParseAddr("127.0.0.31")
	thiefAddr  = netip.MustParseAddr("127.0.0.66")
)

// loopback is a network of 256 addresses that no other process of these tests uses as long as this one runs.
type loopback struct {
	base [4]byte
	lock *net.UDPConn
}

// takeNet takes one, of which another run on the machine holds a port if it is in use. It begins at one that goes by the process.
func takeNet() loopback {
	var last error
	for n := range 1000 {
		p := os.Getpid() + n
		l := loopback{base: [4]byte{127, byte(128 + p>>8&0x7f), byte(p), 0}}
		if l.lock, last = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(l.host(1), 1999))); last == nil {
			return l
		}
	}
	panic(fmt.Sprint("no loopback addresses for the tests: ", last))
}

func (l loopback) host(n byte) netip.Addr {
	b := l.base
	b[3] = n
	return netip.AddrFrom4(b)
}

func ourAddresses() []netip.Addr { return []netip.Addr{ourInside, ourOutside} }

// patience bounds every wait for a packet or event; nothing waits for it in a pass.
const patience = 5 * time.Second

func TestMain(m *testing.M) {
	code := 0
	if os.Getenv(engineEnv) == EngineTProxy {
		if err := openTestEngine(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	code = m.Run()
	if testEngine != nil {
		if err := testEngine.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if libsrtp.dir != "" {
		_ = os.RemoveAll(libsrtp.dir)
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// libsrtp is the compiled peer of testdata/srtp_peer.c, made once.
var libsrtp struct {
	once sync.Once
	dir  string
	skip string
	err  error
}

func buildPeer() {
	if _, err := exec.LookPath("gcc"); err != nil {
		libsrtp.skip = "this machine has no gcc"
		return
	}
	libsrtp.dir, libsrtp.err = os.MkdirTemp("", "mediaterm-peer-")
	if libsrtp.err != nil {
		return
	}
	cmd := exec.Command("gcc", "-O2", "-o", filepath.Join(libsrtp.dir, "srtp_peer"), "testdata/srtp_peer.c", "-lsrtp2")
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
	case bytes.Contains(out, []byte("srtp2/srtp.h: No such file")) || bytes.Contains(out, []byte("cannot find -lsrtp2")):
		libsrtp.skip = "this machine has no libsrtp2 to compile against (Debian: libsrtp2-dev)"
	default:
		libsrtp.err = fmt.Errorf("compile srtp_peer.c: %w: %s", err, out)
	}
}

// peer speaks SRTP by libsrtp2 in a process of its own.
type peer struct {
	t   testing.TB
	in  io.WriteCloser
	out *bufio.Reader
}

// newPeer seals with its tx key and opens with its rx key: those are our remote and
// local keys.
func newPeer(t testing.TB, tx, rx Key) *peer {
	t.Helper()
	libsrtp.once.Do(buildPeer)
	if libsrtp.skip != "" {
		t.Skip(libsrtp.skip)
	}
	if libsrtp.err != nil {
		t.Fatal(libsrtp.err)
	}
	args := []string{
		string(tx.Suite), hex.EncodeToString(append(bytes.Clone(tx.Master), tx.Salt...)),
		hex.EncodeToString(append(bytes.Clone(rx.Master), rx.Salt...)),
	}
	if len(tx.MKI) > 0 {
		args = append(args, hex.EncodeToString(tx.MKI))
	}
	cmd := exec.Command(filepath.Join(libsrtp.dir, "srtp_peer"), args...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	return &peer{t: t, in: in, out: bufio.NewReaderSize(out, 1<<16)}
}

// run sends packets through one operation (p, u, P, U); a refused packet gives nil.
func (p *peer) run(op byte, pkts ...[]byte) [][]byte {
	p.t.Helper()
	const chunk = 64 // lines that surely fit into both pipes
	var done [][]byte
	for len(pkts) > 0 {
		n := min(chunk, len(pkts))
		var b strings.Builder
		for _, pkt := range pkts[:n] {
			fmt.Fprintf(&b, "%c %x\n", op, pkt)
		}
		if _, err := io.WriteString(p.in, b.String()); err != nil {
			p.t.Fatal(err)
		}
		for range n {
			line, err := p.out.ReadString('\n')
			if err != nil {
				p.t.Fatal(err)
			}
			data, err := hex.DecodeString(strings.TrimSpace(line))
			if err != nil {
				data = nil
			}
			done = append(done, data)
		}
		pkts = pkts[n:]
	}
	return done
}

// one runs a packet that must succeed.
func (p *peer) one(op byte, pkt []byte) []byte {
	p.t.Helper()
	out := p.run(op, pkt)[0]
	if out == nil {
		p.t.Fatalf("libsrtp refused operation %c on %x", op, pkt)
	}
	return out
}

// endpoint is a phone's or a far proxy's pair of sockets.
type endpoint struct {
	t         testing.TB
	rtp, rtcp *net.UDPConn
}

func newEndpoint(t testing.TB, addr netip.Addr) *endpoint {
	t.Helper()
	e := &endpoint{t: t}
	for _, c := range []**net.UDPConn{&e.rtp, &e.rtcp} {
		conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		*c = conn
	}
	return e
}

func (e *endpoint) remote() Remote {
	return Remote{RTP: addrOf(e.rtp), RTCP: addrOf(e.rtcp)}
}

func addrOf(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

func send(t testing.TB, c *net.UDPConn, to netip.AddrPort, pkt []byte) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort(pkt, to); err != nil {
		t.Fatal(err)
	}
}

// recv waits for the next datagram and says where it came from.
func recv(t testing.TB, c *net.UDPConn) ([]byte, netip.AddrPort) {
	t.Helper()
	buf := make([]byte, 4096)
	_ = c.SetReadDeadline(time.Now().Add(patience))
	n, from, err := c.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatalf("nothing came to %s: %v", addrOf(c), err)
	}
	return buf[:n], from
}

// expect waits for exactly this datagram; as order is kept, what was to be dropped
// before it has been dropped then.
func expect(t testing.TB, c *net.UDPConn, want []byte) {
	t.Helper()
	if got, _ := recv(t, c); !bytes.Equal(got, want) {
		t.Fatalf("got  %x\nwant %x", got, want)
	}
}

// rig is a stream between a phone (plain, inside) and a far proxy (outside).
type rig struct {
	t      testing.TB
	term   *Terminator
	stream *Stream
	phone  *endpoint
	far    *endpoint
	events chan Event
}

// newRig signals both addresses; no keys are set.
func newRig(t testing.TB, mod func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, events: make(chan Event, 1000)}
	cfg := Config{
		Addresses: ourAddresses(), MinPort: 20000, MaxPort: 29999,
		OnEvent: func(e Event) { r.events <- e },
	}
	if mod != nil {
		mod(&cfg)
	}
	r.term = newTerminator(t, cfg)
	var err error
	r.stream, err = r.term.NewStream(StreamParams{Inside: ourInside, Outside: ourOutside, CallID: "call-1", Media: "audio"})
	if err != nil {
		t.Fatal(err)
	}
	r.phone, r.far = newEndpoint(t, phoneAddr), newEndpoint(t, peerAddr)
	r.setRemote(Inside, r.phone.remote())
	r.setRemote(Outside, r.far.remote())
	return r
}

func newTerminator(t testing.TB, cfg Config) *Terminator {
	t.Helper()
	if testEngine != nil && cfg.Engine == nil {
		cfg.Engine = testEngine
	}
	term, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := term.Close(); err != nil {
			t.Error(err)
		}
		if testEngine != nil {
			// The next test begins with the same ports: what is under way to them must have come. A worker takes packets in their order.
			if err := testEngine.Probe(ourOutside, 29000, 29999); err != nil {
				t.Error(err)
			}
		}
	})
	return term
}

func (r *rig) setRemote(side Side, rem Remote) {
	r.t.Helper()
	if err := r.stream.SetRemote(side, rem); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) setCrypto(side Side, local, remote *Key) {
	r.t.Helper()
	if err := r.stream.SetCrypto(side, local, remote); err != nil {
		r.t.Fatal(err)
	}
}

// our is our RTP or RTCP address on a side.
func (r *rig) our(side Side, p port) netip.AddrPort {
	a := r.stream.Local(side)
	return netip.AddrPortFrom(a.Addr(), a.Port()+uint16(p))
}

func (r *rig) drops(side Side) Drops {
	st := r.stream.Stats()
	return st.Leg(side).Drops
}

// event waits for the next event of a kind.
func (r *rig) event(kind EventKind) Event {
	r.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case e := <-r.events:
			if e.Kind == kind {
				return e
			}
		case <-timeout:
			r.t.Fatalf("no event %s", kind)
		}
	}
}

func mustKey(t testing.TB, s Suite) *Key {
	t.Helper()
	k, err := NewKey(s)
	if err != nil {
		t.Fatal(err)
	}
	return &k
}

// rtpPacket is a G.711 packet of 20 ms whose payload tells its number.
func rtpPacket(ssrc uint32, seq uint16) []byte { return rtpPayload(ssrc, seq, 0, 160) }

func rtpPayload(ssrc uint32, seq uint16, pt uint8, size int) []byte {
	p := make([]byte, rtpHeaderLen+size)
	p[0], p[1] = 0x80, pt
	binary.BigEndian.PutUint16(p[2:], seq)
	binary.BigEndian.PutUint32(p[4:], uint32(seq)*160)
	binary.BigEndian.PutUint32(p[8:], ssrc)
	for i := rtpHeaderLen; i < len(p); i++ {
		p[i] = byte(i) ^ byte(seq)
	}
	return p
}

// senderReport is SR with one report block, SDES with a CNAME, and an XR packet with a
// block type that nobody knows.
func senderReport(ssrc uint32) []byte {
	sr := make([]byte, 28+24)
	sr[0], sr[1] = 0x81, 200
	binary.BigEndian.PutUint16(sr[2:], uint16(len(sr)/4-1))
	binary.BigEndian.PutUint32(sr[4:], ssrc)
	for i := 8; i < len(sr); i++ {
		sr[i] = byte(i)
	}
	sdes := []byte{0x81, 202, 0, 4, 0, 0, 0, 0, 1, 7, 'a', '@', 'b', '.', 'o', 'r', 'g', 0, 0, 0}
	binary.BigEndian.PutUint32(sdes[4:], ssrc)
	xr := []byte{0x80, 207, 0, 3, 0, 0, 0, 0, 250, 9, 0, 1, 0xde, 0xad, 0xbe, 0xef}
	binary.BigEndian.PutUint32(xr[4:], ssrc)
	return append(append(sr, sdes...), xr...)
}

// waitFor polls counters until they are as wanted: for packets after which nothing can
// be received.
func (r *rig) waitFor(ok func(Stats) bool) {
	r.t.Helper()
	deadline := time.Now().Add(patience)
	for !ok(r.stream.Stats()) {
		if time.Now().After(deadline) {
			r.t.Fatalf("counters: %+v", r.stream.Stats())
		}
		runtime.Gosched()
	}
}
