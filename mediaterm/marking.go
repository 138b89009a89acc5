package mediaterm

import (
	"net"

	"golang.org/x/sys/unix"
)

// Marking is the differentiated services code point (RFC 2474) of the packets that a stream sends. The zero value is the usual one: RFC 4594 gives
// telephony EF and interactive video AF41; other media gets none.
type Marking struct {
	Set  bool
	DSCP uint8 // 0 to 63, with Set
	// Keep, with Set: each packet leaves with the code point with which it came. Engine sockets, which is not told it, marks as usual.
	Keep bool
}

// class is the byte of the IP header.
func (m Marking) class(media string) byte {
	if m.Set && !m.Keep {
		return m.DSCP << 2
	}
	return trafficClass(media)
}

// Traffic classes as bytes of the IP header.
const (
	classAudio = 46 << 2
	classVideo = 34 << 2
)

// codePoint leaves the bits of explicit congestion notification out (RFC 3168): they are the two networks' own.
const codePoint = 0xfc

func trafficClass(media string) byte {
	switch media {
	case "audio":
		return classAudio
	case "video":
		return classVideo
	}
	return 0
}

// setClass marks what is sent. Media passes without it too.
func setClass(conn *net.UDPConn, class byte) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TOS, int(class))
		_ = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_TCLASS, int(class))
	})
}
