package ring

import (
	"crypto"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"imeproxy/ucime/learn"
)

const (
	descriptionMax    = 512 // memberlist's MetaMaxSize
	admissionLifetime = 7 * 24 * time.Hour
	admissionRenewal  = 24 * time.Hour
)

// admission is a bootstrap server's word that a key may take part under these peer IDs.
type admission struct {
	peers           []learn.PeerID
	spki            []byte
	issued, expires time.Time
	bootstrap       learn.PeerID
	signature       []byte
}

func (a *admission) signed() []byte {
	b := []byte{1, uint8(len(a.peers))}
	for _, p := range a.peers {
		b = append(b, p[:]...)
	}
	b = put8(b, a.spki)
	return append(putTime(putTime(b, a.issued), a.expires), a.bootstrap[:]...)
}

func (a *admission) encode() []byte { return put8(a.signed(), a.signature) }

func decodeAdmission(b []byte) (*admission, error) {
	r := reader{b: b}
	r.version()
	a := &admission{}
	n := int(r.u8())
	if n > maxPeers {
		return nil, fmt.Errorf("admission: %w", errSize)
	}
	for range n {
		a.peers = append(a.peers, r.peer())
	}
	a.spki = r.bytes8()
	a.issued, a.expires, a.bootstrap = r.time(), r.time(), r.peer()
	a.signature = r.bytes8()
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("admission: %w", err)
	}
	if err := checkPeers(a.peers, maxPeers); err != nil {
		return nil, fmt.Errorf("admission: %w", err)
	}
	if a.expires.Sub(a.issued) > admissionLifetime {
		return nil, fmt.Errorf("admission: lasts %s", a.expires.Sub(a.issued))
	}
	return a, nil
}

// description is what a member says of itself to all others.
type description struct {
	serial    time.Time
	addr      netip.AddrPort
	software  uint32
	admission *admission
	signature []byte
}

func (d *description) signed() []byte {
	b := putTime([]byte{1}, d.serial)
	b = putAddr(b, d.addr)
	b = binary.BigEndian.AppendUint32(b, d.software)
	return put16(b, d.admission.encode())
}

func (d *description) encode() []byte { return put8(d.signed(), d.signature) }

func putAddr(b []byte, a netip.AddrPort) []byte {
	ip := a.Addr().Unmap()
	family := uint8(6)
	if ip.Is4() {
		family = 4
	}
	b = append(append(b, family), ip.AsSlice()...)
	return binary.BigEndian.AppendUint16(b, a.Port())
}

func (r *reader) addr() netip.AddrPort {
	n := 4
	switch r.u8() {
	case 4:
	case 6:
		n = 16
	default:
		if r.err == nil {
			r.err = fmt.Errorf("unknown address family")
		}
		return netip.AddrPort{}
	}
	ip, _ := netip.AddrFromSlice(r.take(n))
	if r.err == nil && ip.Is4In6() {
		r.err = fmt.Errorf("IPv4 address in IPv6")
	}
	return netip.AddrPortFrom(ip, r.u16())
}

func decodeDescription(b []byte) (*description, error) {
	if len(b) > descriptionMax {
		return nil, fmt.Errorf("member description: %w", errSize)
	}
	r := reader{b: b}
	r.version()
	d := &description{serial: r.time(), addr: r.addr(), software: r.u32()}
	raw := r.bytes16()
	d.signature = r.bytes8()
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("member description: %w", err)
	}
	a, err := decodeAdmission(raw)
	if err != nil {
		return nil, fmt.Errorf("member description: %w", err)
	}
	d.admission = a
	return d, nil
}

// Member is one peer server of the ring. It is not changed once made.
type Member struct {
	Name     learn.PeerID // the lowest of Peers
	Peers    []learn.PeerID
	Addr     netip.AddrPort
	Software uint32
	serial   time.Time
	expires  time.Time // of its admission
	key      crypto.PublicKey
	spki     string
}

// check verifies a description against the keys of the bootstrap servers and the time; bans are the caller's business.
func (d *description) check(bootstraps map[learn.PeerID]trusted, now time.Time) (*Member, error) {
	boot, err := d.plausible(bootstraps, now)
	if err != nil {
		return nil, err
	}
	return d.verify(boot)
}

// plausible is the part of check that costs no signature; it returns the bootstrap server that has to have signed.
func (d *description) plausible(bootstraps map[learn.PeerID]trusted, now time.Time) (trusted, error) {
	a := d.admission
	boot, ok := bootstraps[a.bootstrap]
	if !ok {
		return boot, fmt.Errorf("admitted by %s, which is no bootstrap server", a.bootstrap)
	}
	if now.After(a.expires) || a.issued.After(now.Add(clockSkew)) || d.serial.After(now.Add(clockSkew)) {
		return boot, fmt.Errorf("admission counts from %s to %s", a.issued, a.expires)
	}
	return boot, nil
}

// verify is the rest of it: two signatures.
func (d *description) verify(boot trusted) (*Member, error) {
	a := d.admission
	if !verify(boot.key, "admission", a.signed(), a.signature) {
		return nil, fmt.Errorf("admission: wrong signature")
	}
	key, err := x509.ParsePKIXPublicKey(a.spki)
	if err != nil {
		return nil, fmt.Errorf("admission: %w", err)
	}
	if err := usableKey(key); err != nil {
		return nil, err
	}
	if !verify(key, "member", d.signed(), d.signature) {
		return nil, fmt.Errorf("member description: wrong signature")
	}
	return &Member{
		Name: a.peers[0], Peers: slices.Clone(a.peers), Addr: d.addr, Software: d.software, serial: d.serial, expires: a.expires,
		key: key, spki: string(a.spki),
	}, nil
}
