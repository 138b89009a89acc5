package mediaterm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// ownCrypt is the transform's memory with the shortcuts that this build has.
func ownCrypt(t testing.TB) *crypt {
	t.Helper()
	s, err := bestShortcuts()
	if err != nil {
		t.Fatal(err)
	}
	return newCrypt(s)
}

// RFC 3711 appendix B.3 and RFC 6188 section 7.2 (AES-256): session keys of a master key.
func TestKeyDerivationVectors(t *testing.T) {
	for _, v := range []struct{ master, salt, key, sessionSalt, auth string }{
		{
			"E1F97A0D3E018BE0D64FA32C06DE4139", "0EC675AD498AFEEBB6960B3AABE6",
			"C61E7A93744F39EE10734AFE3FF7A087", "30CBBC08863D8C85D49DB34A9AE1", "CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4",
		},
		{
			"f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6", "3b04803de51ee7c96423ab5b78d2",
			"5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4", "fa31791685ca444a9e07c6c64e93", "fd9c32d39ed5fbb5a9dc96b30818454d1313dc05",
		},
	} {
		prf, err := aes.NewCipher(unhex(t, v.master))
		if err != nil {
			t.Fatal(err)
		}
		d := &derivation{prf: prf, salt: unhex(t, v.salt)}
		for _, w := range []struct {
			label byte
			want  string
		}{{labelKey, v.key}, {labelSalt, v.sessionSalt}, {labelAuth, v.auth}} {
			want := unhex(t, w.want)
			if got := d.key(w.label, len(want)); !bytes.Equal(got, want) {
				t.Errorf("label %d: %x, want %x", w.label, got, want)
			}
		}
	}
}

// RFC 3711 appendix B.2: the key stream of AES-CM from its first block over the carry of the block counter.
func TestCounterVectors(t *testing.T) {
	for name, c := range map[string]*crypt{"shortcuts": ownCrypt(t), "plain": newCrypt(shortcuts{})} {
		t.Run(name, func(t *testing.T) {
			k, err := newCounter(c.short, unhex(t, "2B7E151628AED2A6ABF7158809CF4F3C"))
			if err != nil {
				t.Fatal(err)
			}
			copy(c.iv[:], unhex(t, "F0F1F2F3F4F5F6F7F8F9FAFBFCFD0000"))
			stream := make([]byte, 0xFF02*16)
			k.xor(c, stream, stream)
			for at, want := range map[int]string{
				0:           "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB 41E95B3BB0A2E8DD477901E4FCA894C0",
				0xFEFF * 16: "EC8CDF7398607CB0F2D21675EA9EA1E4 362B7C3C6773516318A077D7FC5073AE 6A2CC3787889374FBEB4C81B17BA6C44",
			} {
				if w := unhex(t, want); !bytes.Equal(stream[at:at+len(w)], w) {
					t.Errorf("key stream at block %#x: %x", at/16, stream[at:at+len(w)])
				}
			}
		})
	}
}

// RFC 7714 section 16.1.1: AEAD_AES_128_GCM over the packet of section 16, with session keys given.
func TestGCMVector(t *testing.T) {
	c := ownCrypt(t)
	block, err := aes.NewCipher(unhex(t, "000102030405060708090a0b0c0d0e0f"))
	if err != nil {
		t.Fatal(err)
	}
	tr := &transform{}
	if tr.rtp.aead, err = cipher.NewGCM(block); err != nil {
		t.Fatal(err)
	}
	tr.rtp.tag = 16
	copy(tr.rtp.salt[:], unhex(t, "517569642070726f2071756f"))
	pkt := unhex(t, "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976 69736120 696e2070 61727465 73207472 6573")
	want := unhex(t, `8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a 51c7d19b 36de3adf 8833899d
		7f27beb1 6a9152cf 765ee439 0cce`)
	if got := tr.sealRTP(c, make([]byte, 0, 200), pkt, rtpHeaderLen, 0x5501a0b2, 0xf17b); !bytes.Equal(got, want) {
		t.Errorf("sealed\n%x, want\n%x", got, want)
	}
	if got, err := tr.openRTP(c, make([]byte, 0, 200), want, rtpHeaderLen, 0x5501a0b2, 0xf17b); err != nil || !bytes.Equal(got, pkt) {
		t.Errorf("opened %x: %v", got, err)
	}
}

// twins are the same key in pion/srtp and in the transform of our own: all that they do must be the same.
type twins struct {
	t         testing.TB
	ref, own  *keyUse
	a, b      *scratch
	direction string
}

func newTwins(t testing.TB, k *Key, c *crypt, direction string) *twins {
	t.Helper()
	ref, err := newKeyUse(k.clone(), nil)
	if err != nil {
		t.Fatal(err)
	}
	own, err := newKeyUse(k.clone(), c)
	if err != nil {
		t.Fatal(err)
	}
	return &twins{t: t, ref: ref, own: own, a: newScratch(), b: newScratch(), direction: direction}
}

func (w *twins) seal(pkt []byte) []byte {
	w.t.Helper()
	kind, h := classify(pkt), rtpHeader{ssrc: rtcpSSRC(pkt)}
	if kind == kindRTP {
		h = parseRTP(pkt)
	}
	x, ex, errX := w.ref.seal(w.a.sealed[:0], pkt, kind, h, &w.a.header)
	y, ey, errY := w.own.seal(w.b.sealed[:0], pkt, kind, h, &w.b.header)
	if !bytes.Equal(x, y) || ex != ey || !errors.Is(errY, errX) {
		w.t.Fatalf("%s seals %x\npion %x (%v, %s)\nown  %x (%v, %s)", w.direction, pkt, x, errX, ex, y, errY, ey)
	}
	return bytes.Clone(x)
}

// open returns what came out, nil when it was refused.
func (w *twins) open(pkt []byte) []byte {
	w.t.Helper()
	kind, ssrc, seq := classify(pkt), rtcpSSRC(pkt), uint16(0)
	if kind == kindRTP {
		h := parseRTP(pkt)
		ssrc, seq = h.ssrc, h.seq
	}
	var x, y opened
	errX := w.ref.open(&x, w.a.plain[:0], pkt, kind, ssrc, seq, &w.a.header)
	errY := w.own.open(&y, w.b.plain[:0], pkt, kind, ssrc, seq, &w.b.header)
	if !bytes.Equal(x.plain, y.plain) || x.newer != y.newer || x.event != y.event || !errors.Is(errY, errX) {
		w.t.Fatalf("%s opens %x\npion %x (%v, newer %v)\nown  %x (%v, newer %v)", w.direction, pkt, x.plain, errX, x.newer, y.plain, errY, y.newer)
	}
	return bytes.Clone(x.plain)
}

func (w *twins) change(k Key) {
	w.t.Helper()
	for _, u := range []*keyUse{w.ref, w.own} {
		if err := u.change(k.clone()); err != nil {
			w.t.Fatal(err)
		}
	}
}

// randomRTP is a packet with CSRCs, an extension, padding and up to 1,400 bytes.
func randomRTP(r *rand.Rand, ssrc uint32, seq uint16) []byte {
	p := rtpPayload(ssrc, seq, uint8(r.IntN(64)), 0)
	for range r.IntN(4) * r.IntN(2) {
		p[0]++
		p = binary.BigEndian.AppendUint32(p, r.Uint32())
	}
	if r.IntN(4) == 0 {
		p[0] |= 0x10
		words := r.IntN(3)
		p = binary.BigEndian.AppendUint16(p, 0x1234)
		p = binary.BigEndian.AppendUint16(p, uint16(words))
		for range words {
			p = binary.BigEndian.AppendUint32(p, r.Uint32())
		}
	}
	size := 160
	if r.IntN(3) == 0 {
		size = r.IntN(1400)
	}
	for range size {
		p = append(p, byte(r.Uint32()))
	}
	if size > 4 && r.IntN(8) == 0 {
		p[0] |= 0x20
		p[len(p)-1] = 4
	}
	return p
}

// Every suite, MKIs of several lengths: a long random stream through sealing and opening by pion and by us, over several
// wraps, with loss, duplicates, late packets, jumps at the wrap, forgeries, reports, and changes of suite and MKI.
func TestTransformEqualsPion(t *testing.T) {
	packets := 40000
	if testing.Short() {
		packets = 4000
	}
	for _, suite := range Suites() {
		for _, mki := range [][]byte{nil, {9}, {0, 0, 0, 7}, bytes.Repeat([]byte{0xa5}, maxMKI)} {
			t.Run(fmt.Sprintf("%s/MKI%d", suite, len(mki)), func(t *testing.T) {
				t.Parallel()
				r := rand.New(rand.NewPCG(uint64(len(mki)), uint64(len(suite))))
				k := mustKey(t, suite)
				k.MKI = mki
				c := ownCrypt(t)
				tx, rx := newTwins(t, k, c, "sender"), newTwins(t, k, c, "receiver")
				randomStream(t, r, k, tx, rx, packets)
				wraps := 0
				for s := range tx.own.all {
					wraps += int(s.index.highest >> 16)
				}
				if !testing.Short() && wraps < 4 {
					t.Errorf("only %d wraps were met", wraps)
				}
			})
		}
	}
}

func randomStream(t *testing.T, r *rand.Rand, k *Key, tx, rx *twins, packets int) {
	seqs := [3]uint16{65000, 100, uint16(r.Uint32())}
	var late [][]byte
	for i := range packets {
		n := r.IntN(len(seqs))
		ssrc := uint32(0x10000000 + n)
		switch x := r.IntN(100); {
		case x < 3:
			seqs[n] += uint16(r.IntN(300)) // loss
		case x < 4:
			seqs[n] += 5000 + uint16(r.IntN(20000)) // a jump: brings the next wrap
		case x < 6:
			seqs[n] -= uint16(r.IntN(200)) // back: repeated or late
		default:
			seqs[n]++
		}
		pkt := randomRTP(r, ssrc, seqs[n])
		if r.IntN(50) == 0 {
			pkt = senderReport(ssrc)
		}
		wire := tx.seal(pkt)
		if wire == nil {
			continue
		}
		switch r.IntN(20) {
		case 0: // lost
		case 1: // later
			late = append(late, wire)
		case 2: // forged
			forged := bytes.Clone(wire)
			forged[len(forged)-1-r.IntN(len(forged)-rtpHeaderLen)] ^= 1 << r.IntN(8)
			if rx.open(forged) != nil {
				t.Fatal("a forgery was opened")
			}
			fallthrough
		default:
			if got := rx.open(wire); got != nil && !bytes.Equal(got, pkt) {
				t.Fatalf("opened %x, was %x", got, pkt)
			}
		}
		if len(late) > 0 && r.IntN(10) == 0 {
			at := r.IntN(len(late))
			rx.open(late[at])
			if r.IntN(2) == 0 {
				late = append(late[:at], late[at+1:]...) // else it comes again
			}
		}
		if i%5000 == 4999 && len(k.Salt) == 14 {
			other := k.clone()
			other.Suite = []Suite{SuiteCM80, SuiteCM32}[r.IntN(2)]
			tx.change(other)
			rx.change(other)
			late = nil
		}
	}
}

// One packet in the millions of a stream: the highest index of SRTP that exists, and the last of SRTCP.
func TestTransformAtTheEnd(t *testing.T) {
	k := mustKey(t, SuiteGCM128)
	w := newTwins(t, k, ownCrypt(t), "sender")
	w.seal(rtpPacket(1, 1))
	w.ref.ctx.SetROC(1, 0xffffffff)
	w.own.find(1).index = window{highest: 0xffffffff<<16 | 1, started: true}
	w.ref.find(1).index = w.own.find(1).index
	w.seal(rtpPacket(1, 2))
	w.seal(senderReport(1))
	w.ref.ctx.SetIndex(1, maxLifetimeRTCP-1)
	w.own.find(1).rtcp = maxLifetimeRTCP - 1
	w.seal(senderReport(1))
	if _, _, err := w.own.seal(w.b.sealed[:0], senderReport(1), kindRTCP, rtpHeader{ssrc: 1}, &w.b.header); !errors.Is(err, errExpired) {
		t.Errorf("an SRTCP index after the last one: %v", err)
	}
}

// A shortcut that does not give the plain path's bytes is abandoned, and what is sealed without any is the same.
func TestShortcutsAbandoned(t *testing.T) {
	good, err := bestShortcuts()
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*shortcuts){
		"counter halves changed":   func(s *shortcuts) { s.ctrLo, s.ctrHi = s.ctrHi, s.ctrLo },
		"position not set back":    func(s *shortcuts) { s.ctrN = s.ctrHi },
		"another chaining value":   func(s *shortcuts) { s.shaH += 4 },
		"halves and position same": func(s *shortcuts) { s.ctrHi = s.ctrLo },
	} {
		t.Run(name, func(t *testing.T) {
			bad := good
			spoil(&bad)
			got, err := proven(bad, nil)
			if err == nil || got != (shortcuts{}) {
				t.Errorf("not abandoned: %+v, %v", got, err)
			}
		})
	}
	for _, suite := range Suites() {
		k := mustKey(t, suite)
		w := newTwins(t, k, newCrypt(shortcuts{}), "plain sender")
		rx := newTwins(t, k, newCrypt(shortcuts{}), "plain receiver")
		randomStream(t, rand.New(rand.NewPCG(1, 2)), k, w, rx, 2000)
	}
}

// Any bytes: both transforms take the same ones, and give the same.
func FuzzTransform(f *testing.F) {
	for _, s := range fuzzSeeds() {
		f.Add(s, uint8(0))
		f.Add(s, uint8(7))
	}
	var keys []*Key
	for _, s := range Suites() {
		keys = append(keys, mustKey(f, s))
		withMKI := keys[len(keys)-1].clone()
		withMKI.MKI = []byte{1, 2, 3}
		keys = append(keys, &withMKI)
	}
	c := ownCrypt(f)
	f.Fuzz(func(t *testing.T, pkt []byte, which uint8) {
		if kind := classify(pkt); kind > kindRTCP || len(pkt) > 1500 {
			return
		}
		k := keys[int(which)%len(keys)]
		tx, rx := newTwins(t, k, c, "sender"), newTwins(t, k, c, "receiver")
		var o opened
		if err := rx.own.open(&o, rx.b.plain[:0], pkt, classify(pkt), rtcpSSRC(pkt), 0, nil); err == nil {
			t.Fatalf("opened %x", pkt)
		}
		if _, _, err := tx.ref.seal(tx.a.sealed[:0], pkt, classify(pkt), parsedHeader(pkt), &tx.a.header); err != nil {
			return // pion reads into extensions, which are opaque to us
		}
		tx = newTwins(t, k, c, "sender")
		if got := rx.open(tx.seal(pkt)); !bytes.Equal(got, pkt) {
			t.Errorf("%x came out as %x", pkt, got)
		}
	})
}

func parsedHeader(pkt []byte) rtpHeader {
	if classify(pkt) == kindRTP {
		return parseRTP(pkt)
	}
	return rtpHeader{ssrc: rtcpSSRC(pkt)}
}

func BenchmarkTransform(b *testing.B) {
	for _, suite := range Suites() {
		for name, c := range map[string]*crypt{"own": ownCrypt(b), "plain": newCrypt(shortcuts{}), "pion": nil} {
			k := mustKey(b, suite)
			b.Run("seal/"+string(suite)+"/"+name, func(b *testing.B) {
				u, err := newKeyUse(k.clone(), c)
				if err != nil {
					b.Fatal(err)
				}
				sc, pkt, seq := newScratch(), rtpPacket(1, 0), uint16(0)
				b.ReportAllocs()
				for b.Loop() {
					binary.BigEndian.PutUint16(pkt[2:], seq)
					if _, _, err := u.seal(sc.sealed[:0], pkt, kindRTP, parseRTP(pkt), &sc.header); err != nil {
						b.Fatal(err)
					}
					seq++
				}
			})
		}
	}
}
