package ring

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"imeproxy/ucime/learn"
)

// The example of the document was made with another implementation (hashlib.pbkdf2_hmac and hmac of Python).
func TestHashIsThatOfTheDocument(t *testing.T) {
	var key [32]byte
	for i := range key {
		key[i] = 0x2a
	}
	s, err := derive("+14085551212", key, 1)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../../docs/protocol/ring.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(doc), "hash = "+s.hash.String()) {
		t.Errorf("the document's example does not have %s", s.hash)
	}
	other, err := derive("+14085551213", key, 1)
	if err != nil || other.hash == s.hash || other.seal == s.seal || bytes.Equal(s.hash[:], s.seal[:]) {
		t.Error("two numbers, or hash and seal key, are alike")
	}
}

func TestPeerIDsOfACertificate(t *testing.T) {
	a := newAuthority(t)
	got, err := PeerIDs(a.identity(t, true, peer("x"), peer("y"), peer("z")).cert.Leaf)
	if err != nil || len(got) != 3 || !slices.IsSortedFunc(got, comparePeers) {
		t.Errorf("three peer IDs are read as %v, %v", got, err)
	}
	var many []learn.PeerID
	for i := range 65 {
		many = append(many, peer("%d", i))
	}
	if p := a.identity(t, false, many[:9]...).party(t); len(p.peers) != 8 || p.name != sorted(slices.Clone(many[:9]))[0] {
		t.Errorf("of nine peer IDs %d take part", len(p.peers))
	}
	for what, ids := range map[string][]learn.PeerID{"none": nil, "65": many, "one twice": {peer("x"), peer("x")}} {
		if got, err := PeerIDs(a.identity(t, false, ids...).cert.Leaf); err == nil {
			t.Errorf("%s: %v", what, got)
		}
	}
	if u := PeerURI(learn.PeerID{0xab}).String(); u != "urn:imeproxy:peer:ab000000000000000000000000000000" {
		t.Errorf("URI %s", u)
	}
}

func TestDescriptionsFitIntoMemberlist(t *testing.T) {
	d := &description{
		serial: epoch, addr: netip.MustParseAddrPort("[2001:db8::1]:6084"), software: 1, signature: make([]byte, 72),
		admission: &admission{spki: make([]byte, 91), issued: epoch, expires: epoch.Add(admissionLifetime), signature: make([]byte, 72)},
	}
	for i := range maxPeers {
		d.admission.peers = append(d.admission.peers, peer("%d", i))
	}
	sorted(d.admission.peers)
	raw := d.encode()
	if len(raw) > memberlist.MetaMaxSize {
		t.Errorf("the largest description takes %d bytes", len(raw))
	}
	if got, err := decodeDescription(raw); err != nil || !bytes.Equal(got.encode(), raw) {
		t.Errorf("to bytes and back: %v", err)
	}
}

func TestPacketsAreScreened(t *testing.T) {
	compound := func(parts ...[]byte) []byte {
		b := []byte{mlCompound, uint8(len(parts))}
		for _, p := range parts {
			b = append(b, uint8(len(p)>>8), uint8(len(p)))
		}
		return append(b, bytes.Join(parts, nil)...)
	}
	crc := func(b []byte) []byte { return append([]byte{mlCRC, 0, 0, 0, 0}, b...) }
	ping, alive, squeezed := []byte{0, 1}, []byte{4, 1}, []byte{mlCompress, 1}
	for _, ok := range [][]byte{ping, compound(ping, alive), crc(compound(alive)), crc(ping)} {
		if err := screen(ok, 0); err != nil {
			t.Errorf("% x: %v", ok, err)
		}
	}
	for _, bad := range [][]byte{
		nil, squeezed, compound(ping, squeezed), crc(squeezed), crc(compound(squeezed)), compound(compound(ping)), crc(crc(ping)), compound(crc(ping)),
		{mlEncrypt, 1},
		{mlLabel, 1, 1},
		{mlCompound, 9, 0},
		{mlCompound},
		{200},
		compound(nil),
	} {
		if screen(bad, 0) == nil {
			t.Errorf("% x passes", bad)
		}
	}
}

// One member cannot take all connections, nor can a stranger that never finishes its handshakes.
func TestConnectionsAreLimited(t *testing.T) {
	b, boot := newBench(t)
	id := b.a.identity(t, false, peer("greedy"))
	dial := func(alpn string) (*tls.Conn, error) {
		d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{*id.cert}, NextProtos: []string{alpn}, MinVersion: tls.VersionTLS13}}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		c, err := d.DialContext(ctx, "tcp", b.boot)
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { c.Close() })
		return c.(*tls.Conn), nil
	}
	answered := 0
	for range maxOfMember + 4 {
		c, err := dial(alpnRing)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := exchange(context.Background(), c, typePing, nil); errors.Is(err, CodeNotAdmitted) {
			answered++ // it is known as a certificate, not as a member
		}
	}
	if answered != maxOfMember {
		t.Errorf("%d connections of one member were served, want %d", answered, maxOfMember)
	}
	if s := boot.Status(); s.ConnectionsRefused != 4 {
		t.Errorf("%d connections counted as refused, want 4", s.ConnectionsRefused)
	}
	if _, err := dial("http/1.1"); err == nil {
		t.Error("another protocol is spoken")
	}
	// A stream in a form that costs more than it shows.
	c, err := dial(alpnSync)
	if err != nil {
		t.Fatal(err)
	}
	c.Write([]byte{mlCompress, 0x80})
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	var last [512]byte
	for err = nil; err == nil; {
		_, err = c.Read(last[:])
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		t.Error("a compressed stream stays open")
	}

	var half []net.Conn
	for range maxOfAddress + 10 {
		c, err := net.Dial("tcp", b.boot)
		if err != nil {
			t.Fatal(err)
		}
		half = append(half, c)
	}
	await(t, boot, "half-open handshakes refused", func(s Status) bool { return s.ConnectionsRefused >= 14 })
	for _, c := range half {
		c.Close()
	}
}

func TestGossipGoesToMembersAlone(t *testing.T) {
	b, boot := newBench(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, err := boot.g.WriteTo([]byte{0}, ln.Addr().String()); !errors.Is(err, errStranger) {
		t.Errorf("a packet to a stranger: %v", err)
	}
	if _, err := boot.g.DialTimeout(ln.Addr().String(), time.Second); !errors.Is(err, errStranger) {
		t.Errorf("a stream to a stranger: %v", err)
	}
	if s := boot.Status(); s.PacketsDropped == 0 {
		t.Error("the packet was not counted")
	}
	m := b.start(b.a.identity(t, false, peer("m")), nil)
	await(t, m, "joined", members(2))
	await(t, boot, "joined", members(2))
	// Gossip calls a member dead that is not: it keeps its place.
	boot.n.contest(peer("m"))
	s := await(t, boot, "asked itself", func(s Status) bool { return s.FalseDeaths > 0 })
	if s.Members != 2 {
		t.Errorf("a member that answers lost its place: %+v", s)
	}
	for i := range maxLost + 20 {
		boot.g.lose(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), Port))
	}
	if len(boot.g.lost) > maxLost || len(boot.g.extra) > maxLost+maxBootstraps {
		t.Errorf("%d lost addresses, %d that may be dialled", len(boot.g.lost), len(boot.g.extra))
	}
	boot.g.mu.Lock()
	boot.g.lost, boot.g.extra = nil, map[netip.AddrPort]bool{}
	boot.g.mu.Unlock()
}

func FuzzDecoders(f *testing.F) {
	r := &record{sealed: make([]byte, sealedMin), signature: make([]byte, 72), issued: epoch, expires: epoch.Add(lifetime)}
	f.Add(r.encode())
	s := cheapSettings()
	s.Bootstraps = []BootstrapServer{{peer("b"), make([]byte, 91)}}
	s.Banned = []learn.PeerID{peer("x")}
	f.Add(s.encode())
	f.Add((&token{made: epoch, signature: make([]byte, 72)}).encode())
	d := &description{serial: epoch, addr: netip.MustParseAddrPort("192.0.2.1:6084"), admission: &admission{peers: []learn.PeerID{peer("x")}, issued: epoch, expires: epoch}}
	f.Add(d.encode())
	f.Add(d.admission.encode())
	f.Add(putList([][]byte{{1}, {2, 3}}))
	f.Add(putRemovals([]removal{{peer("x"), Hash{1}}}))
	f.Add(found{[][]byte{{1}}, [][]byte{{2}}}.encode())
	f.Add([]byte{mlCompound, 1, 0, 1, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		again := func(out []byte) {
			if !bytes.Equal(in, out) {
				t.Errorf("% x decodes, and encodes to % x", in, out)
			}
		}
		if x, err := decodeRecord(in); err == nil {
			again(x.encode())
			if len(in) > recordMax {
				t.Errorf("a record of %d bytes", len(in))
			}
		}
		if x, err := decodeSettings(in); err == nil {
			again(x.encode())
		}
		if x, err := decodeToken(in); err == nil {
			again(x.encode())
		}
		if x, err := decodeAdmission(in); err == nil {
			again(x.encode())
		}
		if x, err := decodeDescription(in); err == nil {
			again(x.encode())
		}
		if x, err := takeList(in, maxStoreBatch); err == nil {
			again(putList(x))
		}
		if x, err := takeRemovals(in); err == nil {
			again(putRemovals(x))
		}
		if x, err := decodeFound(in); err == nil {
			again(x.encode())
		}
		screen(in, 0)
	})
}

// FuzzServe sends requests of any kind to a holder, as a member in good standing.
func FuzzServe(f *testing.F) {
	s := newSimulation(f, 3, 1, nil)
	v := &villain{s.nodes[0], s}
	good := v.record(func(*record) {})
	f.Add(uint8(typeStore), putList([][]byte{good}))
	f.Add(uint8(typeRead), make([]byte, 32))
	f.Add(uint8(typeRemove), putRemovals([]removal{{v.p.name, Hash{1}}}))
	f.Add(uint8(typeAdmit), putU32(1))
	f.Add(uint8(typeHello), []byte{1})
	f.Fuzz(func(t *testing.T, kind uint8, body []byte) {
		holder := s.nodes[1]
		k, answer := holder.serve(&session{p: v.p, hello: true}, kind, body)
		if k != typeError && k != kind+answerBit || len(answer) > maxBody {
			t.Errorf("answer %d of %d bytes to %d", k, len(answer), kind)
		}
		if holder.store.n > holderLimit(s.settings.StorageQuota, 3) {
			t.Errorf("%d records are held", holder.store.n)
		}
	})
}
