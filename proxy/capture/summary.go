package capture

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"imeproxy/proxy/observe"
)

// summary says in a line what a packet is.
func summary(link uint16, data []byte) string {
	if link == linkUpperPDU {
		from, to, sip, ok := unpdu(data)
		if !ok {
			return "malformed"
		}
		first, _, _ := strings.Cut(string(sip[:min(len(sip), 200)]), "\r\n")
		return fmt.Sprintf("%s > %s: %s", from, to, observe.Clean(first))
	}
	if len(data) < 14 {
		return "cut short"
	}
	kind, rest := binary.BigEndian.Uint16(data[12:]), data[14:]
	for kind == 0x8100 && len(rest) >= 4 {
		kind, rest = binary.BigEndian.Uint16(rest[2:]), rest[4:]
	}
	switch kind {
	case 0x0800:
		return ipv4(rest)
	case 0x0806:
		return arp(rest)
	case 0x86dd:
		return "ipv6"
	}
	return fmt.Sprintf("ethertype 0x%04x", kind)
}

func arp(b []byte) string {
	if len(b) < 28 {
		return "arp, cut short"
	}
	sender, target := netip.AddrFrom4([4]byte(b[14:18])), netip.AddrFrom4([4]byte(b[24:28]))
	if binary.BigEndian.Uint16(b[6:]) == 2 {
		return fmt.Sprintf("arp reply %s is-at %x", sender, b[8:14])
	}
	return fmt.Sprintf("arp who-has %s tell %s", target, sender)
}

func ipv4(b []byte) string {
	if len(b) < 20 {
		return "ip, cut short"
	}
	n := int(b[0]&0xf) * 4
	src, dst := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	size := int(binary.BigEndian.Uint16(b[2:])) - n
	if n < 20 || len(b) < n {
		return fmt.Sprintf("%s > %s: ip, cut short", src, dst)
	}
	l4 := b[n:]
	if binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
		return fmt.Sprintf("%s > %s: fragment, %d bytes", src, dst, size)
	}
	switch {
	case b[9] == 6 && len(l4) >= 20:
		return fmt.Sprintf("%s > %s: tcp %s, %d bytes", port(src, l4), port(dst, l4[2:]), flags(l4[13]), max(0, size-int(l4[12]>>4)*4))
	case b[9] == 17 && len(l4) >= 8:
		return fmt.Sprintf("%s > %s: udp, %d bytes", port(src, l4), port(dst, l4[2:]), max(0, size-8))
	case b[9] == 1 && len(l4) >= 2:
		return fmt.Sprintf("%s > %s: icmp type %d code %d", src, dst, l4[0], l4[1])
	}
	return fmt.Sprintf("%s > %s: ip protocol %d, %d bytes", src, dst, b[9], size)
}

func port(a netip.Addr, b []byte) netip.AddrPort {
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(b))
}

// flags are those of TCP as tcpdump has them.
func flags(f byte) string {
	out := ""
	for i, c := range "FSRP.U" {
		if f&(1<<i) != 0 {
			out += string(c)
		}
	}
	if out == "" {
		return "-"
	}
	return out
}
