package mapping

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// logGroup is the group of netfilter's log that our rules write to.
const logGroup = 7870

// What a rule writes, with a blank, before the name of the access list.
const (
	deniedMark    = "d"  // denied by an entry, or by none that permits
	denyInMark    = "Di" // the first packet of a flow that an entry denies which is to be logged, on its way in
	denyOutMark   = "Do" // on its way out
	permitInMark  = "Pi" // of one that such an entry permits
	permitOutMark = "Po"
	denyFullMark  = "Fd" // there is no room to follow another denied flow
	permitFull    = "Fp" // or a permitted one
	maxPrefix     = 120
)

// Packets of a rule that are told to the log.
const (
	logRate  = 20 // a second
	logBurst = 50
	logBytes = 128 // of a packet
)

// canLog says whether the kernel has what the log needs. Without it what is denied is counted and not told.
var canLog = sync.OnceValue(func() bool {
	return hasFeature(nftables.ChainTypeFilter, nftables.ChainHookForward, match{logExpr(deniedMark + " ")})
})

func logExpr(prefix string) expr.Any {
	return &expr.Log{
		Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX | 1<<unix.NFTA_LOG_SNAPLEN, Group: logGroup, Snaplen: logBytes, Data: []byte(prefix),
	}
}

// logged adds a rule that tells packets to the log, at most so many.
func (s ruleSet) logged(c *nftables.Chain, mark, name string, most match) {
	if !canLog() {
		return
	}
	prefix := mark + " " + name
	if len(prefix) > maxPrefix {
		prefix = prefix[:maxPrefix]
	}
	s.rule(c, most, match{logExpr(prefix)})
}

// Denial is a packet on which an access list has decided.
type Denial struct {
	List             string // that is bound there; of a global list behind it the entry is
	Permitted        bool
	Logged           bool   // the entry says log, and the packet is the first of its flow
	Full             bool   // the entry says log, and there was no room to follow the packet's flow
	Lost             bool   // the kernel has told some that nobody was ready to hear; the rest is empty
	Direction        string // of the access group of an entry that says log: in or out
	In, Out          string // links
	Proto            string // tcp, udp, icmp or a number
	Src, Dst         netip.AddrPort
	ICMPType, ICMPCo uint8
}

// Messages and attributes of netfilter's log (linux/netfilter/nfnetlink_log.h).
const (
	ulogPacket = unix.NFNL_SUBSYS_ULOG << 8
	ulogConfig = unix.NFNL_SUBSYS_ULOG<<8 | 1

	configCommand = 1
	configMode    = 2
	configQueue   = 5
	commandBind   = 1
	copyPacket    = 2

	attrIn      = 4
	attrOut     = 5
	attrPayload = 9
	attrPrefix  = 10
)

// Denials gives the packets that access lists of ours have denied, and the first packets of flows on which entries that say log have decided, as they
// come, until ctx ends. What comes faster than logRate a second and list is left out by the kernel: of entries that say log Flows has all.
func (k *Kernel) Denials(ctx context.Context, each func(Denial)) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return fmt.Errorf("netfilter log: %w", err)
	}
	defer conn.Close()
	if err := bindLog(conn); err != nil {
		return fmt.Errorf("netfilter log: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	for {
		all, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			each(Denial{Lost: true})
			continue
		case errors.Is(err, os.ErrDeadlineExceeded), err != nil:
			return fmt.Errorf("netfilter log: %w", err)
		}
		for _, m := range all {
			if m.Header.Type == ulogPacket && len(m.Data) > 4 {
				if d, ok := parseDenial(m.Data[4:], linkName); ok {
					each(d)
				}
			}
		}
	}
}

func linkName(index int) string {
	if i, err := net.InterfaceByIndex(index); err == nil {
		return i.Name
	}
	return ""
}

// bindLog asks for the packets of our group, their first bytes, at once.
func bindLog(conn *netlink.Conn) error {
	mode := binary.BigEndian.AppendUint32(nil, logBytes)
	for _, a := range []netlink.Attribute{
		{Type: configCommand, Data: []byte{commandBind}},
		{Type: configMode, Data: append(mode, copyPacket, 0)},
		{Type: configQueue, Data: binary.BigEndian.AppendUint32(nil, 1)},
	} {
		attrs, err := netlink.MarshalAttributes([]netlink.Attribute{a})
		if err != nil {
			return err
		}
		head := binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0}, logGroup)
		if _, err := conn.Execute(netlink.Message{
			Header: netlink.Header{Type: ulogConfig, Flags: netlink.Request | netlink.Acknowledge}, Data: append(head, attrs...),
		}); err != nil {
			return err
		}
	}
	return nil
}

// parseDenial reads the attributes of a packet; false: it is none of ours.
func parseDenial(b []byte, name func(int) string) (Denial, bool) {
	attrs, err := netlink.UnmarshalAttributes(b)
	if err != nil {
		return Denial{}, false
	}
	var d Denial
	var packet []byte
	ours := false
	for _, a := range attrs {
		switch a.Type &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER) {
		case attrIn:
			if len(a.Data) >= 4 {
				d.In = name(int(binary.BigEndian.Uint32(a.Data)))
			}
		case attrOut:
			if len(a.Data) >= 4 {
				d.Out = name(int(binary.BigEndian.Uint32(a.Data)))
			}
		case attrPayload:
			packet = a.Data
		case attrPrefix:
			mark, list, _ := strings.Cut(strings.TrimRight(string(a.Data), "\x00"), " ")
			ours = d.marked(mark) && list != ""
			d.List = list
		}
	}
	return d, ours && d.packet(packet)
}

// marked reads what a rule of ours has written; false: none has.
func (d *Denial) marked(mark string) bool {
	d.Permitted = mark == permitInMark || mark == permitOutMark || mark == permitFull
	switch mark {
	case deniedMark:
	case denyInMark, permitInMark:
		d.Logged, d.Direction = true, "in"
	case denyOutMark, permitOutMark:
		d.Logged, d.Direction = true, "out"
	case denyFullMark, permitFull:
		d.Full = true
	default:
		return false
	}
	return true
}

// packet reads the head of an IPv4 packet.
func (d *Denial) packet(b []byte) bool {
	if len(b) < 20 || b[0]>>4 != 4 {
		return false
	}
	n := int(b[0]&0xf) * 4
	if n < 20 || len(b) < n {
		return false
	}
	src, dst := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	var sport, dport uint16
	l4 := b[n:]
	switch b[9] {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP:
		d.Proto = map[byte]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[b[9]]
		if len(l4) >= 4 {
			sport, dport = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
		}
	case unix.IPPROTO_ICMP:
		d.Proto = "icmp"
		if len(l4) >= 2 {
			d.ICMPType, d.ICMPCo = l4[0], l4[1]
		}
	default:
		d.Proto = fmt.Sprint(b[9])
	}
	d.Src, d.Dst = netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)
	return true
}
