package netcheck

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

// Echoes of a size are sent so often, with so much time for an answer to each.
const (
	echoTries = 2
	echoWait  = 300 * time.Millisecond
	smallEcho = 64
)

// reaches says whether packets of a size, which nobody may divide, come back from a host. A host that answers no small ones says nothing about it.
func reaches(ctx context.Context, card *at, to netip.Addr, size int) (bool, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var inner error
		err := c.Control(func(fd uintptr) {
			inner = errors.Join(unix.BindToDevice(int(fd), card.Device), unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE))
		})
		return errors.Join(err, inner)
	}}
	conn, err := lc.ListenPacket(ctx, "ip4:icmp", card.Address.Addr().String())
	if err != nil {
		return false, fmt.Errorf("echoes on %s: %w", card.Device, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	var id [2]byte
	_, _ = rand.Read(id[:]) // never fails
	e := echoes{conn, binary.BigEndian.Uint16(id[:]), to, 0}
	if ok, err := e.back(ctx, smallEcho); err != nil || !ok {
		return err == nil, err
	}
	return e.back(ctx, size)
}

type echoes struct {
	conn net.PacketConn
	id   uint16
	to   netip.Addr
	seq  uint16
}

// back says whether an echo of a size in bytes, with the IP header, comes back.
func (e *echoes) back(ctx context.Context, size int) (bool, error) {
	for range echoTries {
		e.seq++
		m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: int(e.id), Seq: int(e.seq), Data: make([]byte, max(0, size-28))}}
		packet, err := m.Marshal(nil)
		if err != nil {
			return false, err
		}
		if err := e.conn.SetReadDeadline(time.Now().Add(echoWait)); err != nil {
			return false, err
		}
		if ctx.Err() != nil { // after the deadline was set, which would undo the end of ctx
			return false, ctx.Err()
		}
		if _, err := e.conn.WriteTo(packet, &net.IPAddr{IP: e.to.AsSlice()}); err != nil {
			if errors.Is(err, unix.EMSGSIZE) {
				return false, nil
			}
			return false, fmt.Errorf("echo to %s: %w", e.to, err)
		}
		for b := make([]byte, 65536); ; {
			n, from, err := e.conn.ReadFrom(b)
			var late net.Error
			if errors.As(err, &late) && late.Timeout() {
				break
			}
			if err != nil {
				return false, err
			}
			if e.answers(b[:n], from) {
				return true, nil
			}
		}
	}
	return false, nil
}

// answers says whether an ICMP message is the answer to the latest echo.
func (e *echoes) answers(b []byte, from net.Addr) bool {
	a, ok := from.(*net.IPAddr)
	m, err := icmp.ParseMessage(1, b)
	if err != nil || !ok || !a.IP.Equal(e.to.AsSlice()) || m.Type != ipv4.ICMPTypeEchoReply {
		return false
	}
	body, ok := m.Body.(*icmp.Echo)
	return ok && body.ID == int(e.id) && body.Seq == int(e.seq)
}
