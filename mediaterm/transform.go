package mediaterm

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
)

// Labels of the key derivation, RFC 3711 section 4.3.2; those of SRTCP are 3 higher.
const (
	labelKey  = 0
	labelAuth = 1
	labelSalt = 2
	labelRTCP = 3
)

const (
	authKeyLen    = 20
	rocLen        = 4
	srtcpIndexLen = 4
	srtcpE        = 1 << 31 // the packet is encrypted, RFC 3711 section 3.4
)

// transform is SRTP under one master key: bytes and an index in, bytes out. It keeps no indices; keyUse does. What it
// writes is what pion/srtp and libsrtp write. Not for concurrent use.
type transform struct {
	rtp  half
	mki  []byte
	rtcp *half // nil until the first report comes: many streams have none
}

// half is the session keys of SRTP or of SRTCP.
type half struct {
	salt [aes.BlockSize]byte // padded with zeros
	mac  mac
	ctr  counter
	aead cipher.AEAD
	tag  int // bytes
}

func newTransform(k Key, s shortcuts) (*transform, error) {
	t := &transform{mki: k.MKI}
	return t, t.rtp.derive(k, kindRTP, s)
}

// derive makes the session keys: RFC 3711 section 4.3, RFC 7714 section 11.
func (h *half) derive(k Key, kind packetKind, s shortcuts) error {
	var label byte
	if kind == kindRTCP {
		label = labelRTCP
	}
	prf, err := aes.NewCipher(k.Master)
	if err != nil {
		return fmt.Errorf("SRTP master key: %w", err)
	}
	d := &derivation{prf: prf, salt: k.Salt}
	defer clear(d.out[:])
	copy(h.salt[:], d.key(label+labelSalt, len(k.Salt)))
	h.tag = k.tagLen(kind)
	key := d.key(label+labelKey, len(k.Master))
	if !k.Suite.aead() {
		if h.ctr, err = newCounter(s, key); err != nil {
			return err
		}
		h.mac = newMAC(s, d.key(label+labelAuth, authKeyLen))
		return nil
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return fmt.Errorf("SRTP session key: %w", err)
	}
	if h.aead, err = cipher.NewGCM(block); err != nil {
		return fmt.Errorf("SRTP session key: %w", err)
	}
	return nil
}

// derivation is the pseudo-random function of RFC 3711 section 4.3.3, with a key derivation rate of 0.
type derivation struct {
	prf  cipher.Block
	salt []byte
	in   [aes.BlockSize]byte
	out  [2 * aes.BlockSize]byte
}

// key gives n bytes, which stand until the next call.
func (d *derivation) key(label byte, n int) []byte {
	clear(d.in[:])
	copy(d.in[:], d.salt)
	d.in[7] ^= label
	for at := 0; at < n; at += aes.BlockSize {
		d.in[15] = byte(at / aes.BlockSize)
		d.prf.Encrypt(d.out[at:at+aes.BlockSize], d.in[:])
	}
	return d.out[:n:n]
}

// counterIV is that of AES-CM, RFC 3711 section 4.1.1: a 48-bit index, for SRTCP its 31 bits.
func (h *half) counterIV(c *crypt, ssrc uint32, index uint64) {
	hi := binary.BigEndian.Uint64(h.salt[:]) ^ uint64(ssrc)
	binary.BigEndian.PutUint64(c.iv[:], hi)
	binary.BigEndian.PutUint64(c.iv[8:], binary.BigEndian.Uint64(h.salt[8:])^index<<16)
}

// nonce is that of AES-GCM: RFC 7714 sections 8.1 and 9.1 agree when the index has 48 bits.
func (h *half) nonce(c *crypt, ssrc uint32, index uint64) []byte {
	hi := binary.BigEndian.Uint64(h.salt[:]) ^ uint64(ssrc)<<16 ^ index>>32
	binary.BigEndian.PutUint64(c.iv[:], hi)
	binary.BigEndian.PutUint32(c.iv[8:], binary.BigEndian.Uint32(h.salt[8:])^uint32(index))
	return c.iv[:12]
}

// roc is the rollover counter that is authenticated after an SRTP packet, RFC 3711 section 4.2.
func roc(c *crypt, index uint64) []byte {
	binary.BigEndian.PutUint32(c.aad[:], uint32(index>>16))
	return c.aad[:rocLen]
}

// sumRTP is the sum over an SRTP packet: c.ready, if it was made of the very same.
func (h *half) sumRTP(c *crypt, msg []byte, index uint64) *[sha1.Size]byte {
	more := roc(c, index)
	if j := c.ready; j != nil && j.mac == &h.mac && &j.msg[0] == &msg[0] && len(j.msg) == len(msg) && string(j.more[:]) == string(more) {
		return &j.sum
	}
	return h.mac.sum(c, msg, more)
}

// signRTP writes the tag of an SRTP packet, or leaves it to c.later.
func (h *half) signRTP(c *crypt, tag, msg []byte, index uint64) {
	if l := c.later; l != nil && l.n < len(l.jobs) {
		j := &l.jobs[l.n]
		j.mac, j.msg, j.extra = &h.mac, msg, rocLen
		copy(j.more[:], roc(c, index))
		l.tags[l.n] = tag
		l.n++
		return
	}
	copy(tag, h.mac.sum(c, msg, roc(c, index))[:])
}

// sealRTP writes the sealed packet to dst, which has room for overhead more bytes, and returns it. header is the length
// of the packet's header. dst and pkt do not overlap.
func (t *transform) sealRTP(c *crypt, dst, pkt []byte, header int, ssrc uint32, index uint64) []byte {
	h, n := &t.rtp, len(pkt)
	dst = dst[:n+h.tag+len(t.mki)]
	copy(dst, pkt[:header])
	if h.aead != nil {
		h.aead.Seal(dst[header:header], h.nonce(c, ssrc, index), pkt[header:], dst[:header])
		copy(dst[n+h.tag:], t.mki)
		return dst
	}
	h.counterIV(c, ssrc, index)
	h.ctr.xor(c, dst[header:n], pkt[header:])
	copy(dst[n:], t.mki)
	h.signRTP(c, dst[n+len(t.mki):], dst[:n], index)
	return dst
}

// openRTP checks and decrypts a packet into dst. Errors: errBadPacket, errAuth.
func (t *transform) openRTP(c *crypt, dst, pkt []byte, header int, ssrc uint32, index uint64) ([]byte, error) {
	h := &t.rtp
	n := len(pkt) - h.tag - len(t.mki)
	if n < header {
		return nil, errBadPacket
	}
	if h.aead != nil {
		if !t.hasMKI(pkt[n+h.tag:]) {
			return nil, errAuth
		}
		dst = dst[:n]
		if _, err := h.aead.Open(dst[header:header], h.nonce(c, ssrc, index), pkt[header:n+h.tag], pkt[:header]); err != nil {
			return nil, errAuth
		}
		copy(dst, pkt[:header])
		return dst, nil
	}
	if !t.hasMKI(pkt[n : n+len(t.mki)]) {
		return nil, errAuth
	}
	sum := h.sumRTP(c, pkt[:n], index)
	if subtle.ConstantTimeCompare(sum[:h.tag], pkt[n+len(t.mki):]) != 1 {
		return nil, errAuth
	}
	dst = dst[:n]
	copy(dst, pkt[:header])
	h.counterIV(c, ssrc, index)
	h.ctr.xor(c, dst[header:], pkt[header:n])
	return dst, nil
}

func (t *transform) hasMKI(b []byte) bool { return len(t.mki) == 0 || string(b) == string(t.mki) }

// reports derives the SRTCP keys at the first use.
func (t *transform) reports(c *crypt, k Key) error {
	if t.rtcp != nil {
		return nil
	}
	h := new(half)
	if err := h.derive(k, kindRTCP, c.short); err != nil {
		return err
	}
	t.rtcp = h
	return nil
}

// sealRTCP is sealRTP for a compound packet; reports was called.
func (t *transform) sealRTCP(c *crypt, dst, pkt []byte, ssrc, index uint32) []byte {
	h, n := t.rtcp, len(pkt)
	dst = dst[:n+h.tag+srtcpIndexLen+len(t.mki)]
	copy(dst, pkt[:rtcpHeaderLen])
	if h.aead != nil {
		h.aead.Seal(dst[rtcpHeaderLen:rtcpHeaderLen], h.nonce(c, ssrc, uint64(index)), pkt[rtcpHeaderLen:], t.reportAAD(c, pkt, index|srtcpE))
		binary.BigEndian.PutUint32(dst[n+h.tag:], index|srtcpE)
		copy(dst[n+h.tag+srtcpIndexLen:], t.mki)
		return dst
	}
	h.counterIV(c, ssrc, uint64(index))
	h.ctr.xor(c, dst[rtcpHeaderLen:n], pkt[rtcpHeaderLen:])
	binary.BigEndian.PutUint32(dst[n:], index|srtcpE)
	sum := h.mac.sum(c, dst[:n+srtcpIndexLen], nil)
	copy(dst[n+srtcpIndexLen:], t.mki)
	copy(dst[n+srtcpIndexLen+len(t.mki):], sum[:h.tag])
	return dst
}

// reportAAD is the header and the ESRTCP word, RFC 7714 section 9.2.
func (t *transform) reportAAD(c *crypt, pkt []byte, word uint32) []byte {
	copy(c.aad[:], pkt[:rtcpHeaderLen])
	binary.BigEndian.PutUint32(c.aad[rtcpHeaderLen:], word)
	return c.aad[:]
}

// openRTCP is openRTP for SRTCP; reports was called. A packet whose E bit is not set is authenticated only.
func (t *transform) openRTCP(c *crypt, dst, pkt []byte, ssrc uint32) ([]byte, error) {
	h := t.rtcp
	n := len(pkt) - h.tag - srtcpIndexLen - len(t.mki)
	if n < rtcpHeaderLen {
		return nil, errBadPacket
	}
	if h.aead != nil {
		return t.openReport(c, dst, pkt, n, ssrc)
	}
	at := n + srtcpIndexLen
	if !t.hasMKI(pkt[at : at+len(t.mki)]) {
		return nil, errAuth
	}
	sum := h.mac.sum(c, pkt[:at], nil)
	if subtle.ConstantTimeCompare(sum[:h.tag], pkt[at+len(t.mki):]) != 1 {
		return nil, errAuth
	}
	dst = dst[:n]
	word := binary.BigEndian.Uint32(pkt[n:])
	if word&srtcpE == 0 {
		copy(dst, pkt)
		return dst, nil
	}
	copy(dst, pkt[:rtcpHeaderLen])
	h.counterIV(c, ssrc, uint64(word&^srtcpE))
	h.ctr.xor(c, dst[rtcpHeaderLen:], pkt[rtcpHeaderLen:n])
	return dst, nil
}

// openReport is openRTCP for AES-GCM: n bytes of packet, tag, ESRTCP word, MKI.
func (t *transform) openReport(c *crypt, dst, pkt []byte, n int, ssrc uint32) ([]byte, error) {
	h, at := t.rtcp, n+t.rtcp.tag
	if !t.hasMKI(pkt[at+srtcpIndexLen:]) {
		return nil, errAuth
	}
	word := binary.BigEndian.Uint32(pkt[at:])
	nonce := h.nonce(c, ssrc, uint64(word&^srtcpE))
	if word&srtcpE == 0 { // never negotiated by us: rare enough to allocate
		aad := append(append([]byte(nil), pkt[:n]...), pkt[at:at+srtcpIndexLen]...)
		if _, err := h.aead.Open(nil, nonce, pkt[n:at], aad); err != nil {
			return nil, errAuth
		}
		dst = dst[:n]
		copy(dst, pkt)
		return dst, nil
	}
	dst = dst[:n]
	if _, err := h.aead.Open(dst[rtcpHeaderLen:rtcpHeaderLen], nonce, pkt[rtcpHeaderLen:at], t.reportAAD(c, pkt, word)); err != nil {
		return nil, errAuth
	}
	copy(dst, pkt[:rtcpHeaderLen])
	return dst, nil
}
