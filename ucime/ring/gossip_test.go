package ring

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"
	"time"

	"imeproxy/ucime/learn"
)

// packed is a MessagePack map, as memberlist's messages are: name, value, name, value ... Values are integers, bytes, strings and truths.
func packed(kind byte, fields ...any) []byte {
	b := []byte{kind, 0x80 | byte(len(fields)/2)}
	for _, f := range fields {
		switch v := f.(type) {
		case int:
			b = binary.BigEndian.AppendUint32(append(b, 0xce), uint32(v))
		case bool:
			b = append(b, 0xc2)
			if v {
				b[len(b)-1] = 0xc3
			}
		case string:
			b = append(binary.BigEndian.AppendUint16(append(b, 0xda), uint16(len(v))), v...)
		case []byte:
			b = append(binary.BigEndian.AppendUint16(append(b, 0xda), uint16(len(v))), v...)
		}
	}
	return b
}

// left is a member that has closed its ring and goes on to speak with its certificate.
type left struct {
	*Ring
	meta []byte
}

func newLeft(t *testing.T, b *bench, boot *Ring, name string) *left {
	t.Helper()
	r := b.start(b.a.identity(t, false, peer("%s", name)), nil)
	await(t, r, "joined", members(2))
	await(t, boot, "joined", members(2))
	v := &left{r, bytes.Clone(r.n.descRaw)}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, boot, "gone", members(1))
	return v
}

func (v *left) dial(t *testing.T, addr, alpn string) net.Conn {
	t.Helper()
	c, _, err := v.w.dial(t.Context(), addr, alpn, learn.PeerID{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// alive says of the member that it is there and speaks these versions of memberlist's protocol.
func (v *left) alive(versions []byte) []byte {
	return packed(4, "Incarnation", 1000, "Node", v.n.self.name.String(), "Addr", v.g.addr.Addr().AsSlice(), "Port", int(v.g.addr.Port()), "Meta", v.meta, "Vsn", versions)
}

func sendPacket(t *testing.T, c net.Conn, b []byte) {
	t.Helper()
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)); err != nil {
		t.Fatal(err)
	}
}

// memberlist compares nothing more with anybody once one member says that it speaks other versions than the rest: nobody could join any more.
func TestVersionsThatNobodySpeaks(t *testing.T) {
	b, boot := newBench(t)
	v := newLeft(t, b, boot, "villain")
	c := v.dial(t, b.boot, alpnGossip)
	before := boot.Status().MembersRefused
	for _, versions := range [][]byte{
		{3, 5, 3, 0, 0, 0}, {1, 1, 1, 0, 0, 0}, {1, 5, 5, 0, 0, 0}, {1, 5, 2, 1, 2, 1}, {1, 5, 2, 0, 0, 1}, {3, 5, 2, 0, 0, 0}, {1, 5, 2, 1, 1, 0},
	} {
		sendPacket(t, c, v.alive(versions))
	}
	await(t, boot, "all are refused", func(s Status) bool { return s.MembersRefused == before+7 })
	m := b.start(b.a.identity(t, false, peer("m")), nil)
	await(t, m, "another member joins", members(2))
	sendPacket(t, c, v.alive([]byte{1, 9, 2, 0, 3, 0})) // a later software that speaks ours too
	await(t, boot, "the one that agrees is let in", func(Status) bool { return boot.n.member(v.n.self.name) != nil })
}

// The messages of a packet count one by one: a member that packs 255 into each has no more of them.
func TestMessagesOfAPacketCount(t *testing.T) {
	b, boot := newBench(t)
	v := newLeft(t, b, boot, "villain")
	packet := []byte{mlCompound, 255}
	for range 255 {
		packet = append(packet, 0, 2)
	}
	for range 255 {
		packet = append(packet, mlUser, 99) // of a kind that there is not
	}
	before := boot.Status().PacketsDropped
	c := v.dial(t, b.boot, alpnGossip)
	began := time.Now()
	for range 20 { // within the burst if each counted once
		sendPacket(t, c, packet)
	}
	await(t, boot, "most are dropped", func(s Status) bool { return s.PacketsDropped >= before+15 })
	if took := time.Since(began); took < 15*throttled {
		t.Errorf("15 packets beyond the budget were read in %s", took)
	}
	for _, x := range []struct {
		b []byte
		n int
	}{{packet, 255}, {append([]byte{mlCRC, 0, 0, 0, 0}, packet...), 255}, {[]byte{mlUser, 99}, 1}, {[]byte{mlCompound, 0}, 1}} {
		if n, err := messages(x.b); n != x.n || err != nil {
			t.Errorf("%x...: %d messages, %v, want %d", x.b[:2], n, err, x.n)
		}
	}
	if _, err := messages([]byte{mlCompress}); err == nil {
		t.Error("a compressed packet passes")
	}
}
