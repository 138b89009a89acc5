package probe

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// Limits of a probe.
const (
	MaxRepeat  = 100000
	MaxSize    = 16000 // bytes of an IP packet
	MinSize    = headers
	MaxTimeout = 3600 * time.Second
	MaxHops    = 255
)

// headers are those of IP and ICMP in bytes.
const headers = 28

// From is where probes leave from. The zero value leaves it to the routing table.
type From struct {
	Device  string     // network device
	Address netip.Addr // its address
}

// Resolve finds the IPv4 address of a host that was named or given by its address.
func Resolve(ctx context.Context, host string) (netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		if !a.Is4() {
			return a, fmt.Errorf("%s: IPv4 addresses are probed alone", host)
		}
		return a, nil
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", host)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("host %s: %w", host, err)
	}
	return found[0].Unmap(), nil
}

// prober sends echoes and takes what comes back.
type prober struct {
	conn *ipv4.PacketConn
	id   uint16
	to   netip.Addr
}

// open makes a prober; close it. When ctx ends, waiting ends. Echoes that are whole may not be divided on their way, whatever the kernel knows of it.
func open(ctx context.Context, from From, to netip.Addr, whole bool) (*prober, func(), error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var device, divide error
		err := c.Control(func(fd uintptr) {
			if from.Device != "" {
				device = unix.BindToDevice(int(fd), from.Device)
			}
			if whole {
				divide = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
			}
		})
		return errors.Join(err, device, divide)
	}}
	local := "0.0.0.0"
	if from.Address.IsValid() {
		local = from.Address.String()
	}
	c, err := lc.ListenPacket(ctx, "ip4:icmp", local)
	if err != nil {
		return nil, nil, fmt.Errorf("icmp: %w", err)
	}
	var id [2]byte
	_, _ = rand.Read(id[:]) // never fails
	p := &prober{conn: ipv4.NewPacketConn(c), id: binary.BigEndian.Uint16(id[:]), to: to}
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	return p, func() { stop(); c.Close() }, nil
}

// reply is what came back to an echo.
type reply struct {
	from netip.Addr
	kind icmp.Type
	code int
	took time.Duration
}

// errSilent says that nothing came back in time.
var errSilent = errors.New("no answer")

// echo sends one echo of size bytes and waits for what comes back. The error is errSilent, ctx's own, or that of the sending.
func (p *prober) echo(ctx context.Context, seq uint16, size, ttl int, wait time.Duration) (reply, error) {
	body := make([]byte, max(0, size-headers))
	for i := range body {
		body[i] = byte(i)
	}
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: int(p.id), Seq: int(seq), Data: body}}
	packet, err := m.Marshal(nil)
	if err != nil {
		return reply{}, err
	}
	if err := p.conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return reply{}, err
	}
	if ctx.Err() != nil { // after the deadline was set, which would undo the end of ctx
		return reply{}, ctx.Err()
	}
	if err := p.conn.SetTTL(ttl); err != nil {
		return reply{}, err
	}
	sent := time.Now()
	if _, err := p.conn.WriteTo(packet, nil, &net.IPAddr{IP: p.to.AsSlice()}); err != nil {
		return reply{}, err
	}
	for b := make([]byte, 65536); ; {
		n, _, from, err := p.conn.ReadFrom(b)
		var late net.Error
		switch {
		case ctx.Err() != nil:
			return reply{}, ctx.Err()
		case errors.As(err, &late) && late.Timeout():
			return reply{}, errSilent
		case err != nil:
			return reply{}, err
		}
		a, ok := netip.AddrFromSlice(from.(*net.IPAddr).IP.To4())
		if r := (reply{from: a, took: time.Since(sent)}); ok && p.ours(b[:n], seq, &r) {
			return r, nil
		}
	}
}

// ours says whether an ICMP message answers an echo of ours, and what it is.
func (p *prober) ours(b []byte, seq uint16, r *reply) bool {
	m, err := icmp.ParseMessage(1, b)
	if err != nil {
		return false
	}
	r.kind, r.code = m.Type, m.Code
	switch body := m.Body.(type) {
	case *icmp.Echo:
		return m.Type == ipv4.ICMPTypeEchoReply && r.from == p.to && body.ID == int(p.id) && body.Seq == int(seq)
	case *icmp.TimeExceeded:
		return p.quoted(body.Data, seq)
	case *icmp.DstUnreach:
		return p.quoted(body.Data, seq)
	}
	return false
}

// quoted says whether the beginning of a packet that an error carries is an echo of ours (RFC 792: the IP header and eight bytes).
func (p *prober) quoted(b []byte, seq uint16) bool {
	if len(b) < ipv4.HeaderLen {
		return false
	}
	n := int(b[0]&0xf) * 4
	if b[0]>>4 != 4 || n < ipv4.HeaderLen || len(b) < n+8 || b[9] != 1 || netip.AddrFrom4([4]byte(b[16:20])) != p.to {
		return false
	}
	e := b[n:]
	return e[0] == 8 && binary.BigEndian.Uint16(e[4:]) == p.id && binary.BigEndian.Uint16(e[6:]) == seq
}
