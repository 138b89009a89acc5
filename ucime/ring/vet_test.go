package ring

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"imeproxy/ucime/learn"
)

// forged is a description in which all but the signatures is in order.
func forged(boot *Ring, name learn.PeerID) *told {
	now := boot.cfg.Now()
	signature := make([]byte, 70)
	rand.Read(signature)
	d := &description{
		serial: now, addr: netip.MustParseAddrPort("127.0.0.1:9"), software: 10, signature: signature,
		admission: &admission{
			peers: []learn.PeerID{name}, spki: []byte(boot.n.self.spki), issued: now, expires: now.Add(time.Hour), bootstrap: boot.n.self.name, signature: signature,
		},
	}
	return &told{
		name: name.String(), addr: d.addr.Addr().AsSlice(), port: uint64(d.addr.Port()), meta: d.encode(), incarnation: 1, versions: []byte{1, 5, 2, 0, 0, 0},
	}
}

// pushPull makes a full sync of the entries and returns when it has been answered.
func pushPull(t *testing.T, c net.Conn, entries ...*told) {
	t.Helper()
	b := []byte(fmt.Sprintf("\x06\x83\xa5Nodes\xcd%c%c\xacUserStateLen\x00\xa4Join\xc2", 0, 0))
	b[9], b[10] = byte(len(entries)>>8), byte(len(entries))
	for _, e := range entries {
		b = append(b, e.encode(mlPushPull)...)
	}
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var first [1]byte
	if _, err := c.Read(first[:]); err != nil || first[0] != mlPushPull {
		t.Fatalf("the sync was not answered: %d, %v", first[0], err)
	}
}

// A member that passes on thousands of descriptions which nobody signed has a few of them verified, and it is told of; what others pass on is verified as before.
func TestForgedDescriptionsCostLittle(t *testing.T) {
	var log bytes.Buffer
	b, boot := newBench(t)
	boot.g.log = linesTo(&log, &boot.g.mu)
	v := newLeft(t, b, boot, "villain")
	before := boot.Status().MembersVerified
	var entries []*told
	for i := range 5000 {
		entries = append(entries, forged(boot, peer("invented %d", i)))
	}
	pushPull(t, v.dial(t, b.boot, alpnSync), entries...)
	c := v.dial(t, b.boot, alpnGossip)
	refused := boot.Status().MembersRefused
	for i := range 100 {
		sendPacket(t, c, append([]byte{mlAlive}, forged(boot, peer("more %d", i)).encode(mlAlive)...))
	}
	await(t, boot, "all are refused", func(s Status) bool { return s.MembersRefused >= refused+100 })
	if got := boot.Status().MembersVerified - before; got < forgedBurst || got > forgedBurst+10 {
		t.Errorf("the signatures of %d forged descriptions were looked at, want some %d", got, forgedBurst)
	}
	boot.g.mu.Lock()
	lines := bytes.Count(log.Bytes(), []byte(v.n.self.name.String()))
	boot.g.mu.Unlock()
	if lines != 1 {
		t.Errorf("%d lines of the log name the member, want one", lines)
	}
	m := b.start(b.a.identity(t, false, peer("m")), nil)
	await(t, m, "another member joins", members(2))
	await(t, boot, "another member joins", members(2))
}

// What is known is not verified again, however often and by whomever it is told.
func TestDescriptionsAreVerifiedOnce(t *testing.T) {
	b, boot := newBench(t)
	v := newLeft(t, b, boot, "villain")
	before := boot.Status().MembersVerified
	e := &told{
		name: v.n.self.name.String(), addr: v.g.addr.Addr().AsSlice(), port: uint64(v.g.addr.Port()), meta: v.meta, incarnation: 100, versions: []byte{1, 5, 2, 0, 0, 0},
	}
	var entries []*told
	for range 1000 {
		entries = append(entries, e)
	}
	for range 3 {
		c := v.dial(t, b.boot, alpnSync)
		pushPull(t, c, entries...)
		c.Close()
	}
	await(t, boot, "it is let in", func(Status) bool { return boot.n.member(v.n.self.name) != nil })
	if got := boot.Status().MembersVerified - before; got != 0 {
		t.Errorf("a description that is known was verified %d times", got)
	}
}

// A member that signs one description of itself after the other costs its own budget, not a processor of everybody's.
func TestMemberThatChangesAllTheTime(t *testing.T) {
	b, boot := newBench(t)
	v := newLeft(t, b, boot, "villain")
	before := boot.Status()
	var entries []*told
	for i := range 500 {
		if err := v.n.admitted(v.n.admission, netip.MustParseAddrPort(fmt.Sprintf("127.0.0.1:%d", 2000+i))); err != nil {
			t.Fatal(err)
		}
		entries = append(entries, &told{
			name: v.n.self.name.String(), addr: []byte{127, 0, 0, 1}, port: uint64(2000 + i), meta: v.n.descRaw, incarnation: uint64(100 + i), versions: []byte{1, 5, 2, 0, 0, 0},
		})
	}
	pushPull(t, v.dial(t, b.boot, alpnSync), entries...)
	if got := boot.Status().MembersVerified - before.MembersVerified; got > changedBurst {
		t.Errorf("%d descriptions of one member were verified at once, want %d at most", got, changedBurst)
	}
	// It describes itself to a holder no more often either.
	m, err := boot.n.judge(v.n.descRaw, v.n.self.name)
	if err == nil {
		t.Errorf("one more is taken: %+v", m)
	}
}

// A new description that leads to the same places changes where a number's holder is, and no more.
func TestNewDescriptionKeepsThePlaces(t *testing.T) {
	s := newSimulation(t, 5, 1, nil)
	owner := s.nodes[0]
	if err := owner.publish(numbers(0, 10)); err != nil {
		t.Fatal(err)
	}
	s.settle()
	moved := *s.nodes[1].m
	moved.Addr = netip.MustParseAddrPort("10.0.0.99:6084")
	owner.join(&moved)
	seats := 0
	for _, p := range owner.pubs {
		want := best(owner.members, p.sec.hash, copies)
		for i, seat := range p.seats {
			if seat != want[i] {
				t.Errorf("seat %d of %s is %+v, want %+v", i, p.number, seat.m, want[i].m)
			}
			if seat.m == &moved {
				seats++
			}
		}
	}
	if seats == 0 {
		t.Error("the member has no place: the test tests nothing")
	}
	// With other peer IDs it has other places.
	for i := range 20 {
		other := moved
		other.Peers = append([]learn.PeerID{moved.Name}, peer("another %d", i))
		owner.join(&other)
		for _, p := range owner.pubs {
			if want := best(owner.members, p.sec.hash, copies); !slices.Equal(p.seats, want) {
				t.Fatalf("seats of %s are %v, want %v", p.number, p.seats, want)
			}
		}
	}
}

func TestVettedIsBounded(t *testing.T) {
	var v vetted
	m := &Member{}
	for i := range maxVetted + 10 {
		v.add([32]byte{byte(i), byte(i >> 8), byte(i >> 16)}, m)
	}
	v.add([32]byte{9, 0, 0}, m)
	if len(v.good) != maxVetted || len(v.order) != maxVetted {
		t.Errorf("%d descriptions are remembered in %d places", len(v.good), len(v.order))
	}
	if v.good[[32]byte{0, 0, 0}] != nil || v.good[[32]byte{9, 0, 0}] == nil {
		t.Error("it is not the oldest that makes room")
	}
}
