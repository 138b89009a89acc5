package mediaterm

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ancillary is what the kernel tells of a datagram beside its bytes.
type ancillary struct {
	addr      [4]byte // original destination
	port      uint16
	addressed bool // addr and port were told
	class     byte // of the IP header
	at        time.Time
}

// read takes control messages; without a time of arrival it is now.
func (a *ancillary) read(b []byte) {
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		n := int(h.Len)
		if n < unix.SizeofCmsghdr || n > len(b) {
			break
		}
		data := b[unix.CmsgLen(0):n]
		switch {
		case h.Level == unix.SOL_IP && h.Type == unix.IP_ORIGDSTADDR && len(data) >= unix.SizeofSockaddrInet4:
			sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&data[0]))
			a.addr, a.port, a.addressed = sa.Addr, networkOrder(sa.Port), true
		case h.Level == unix.SOL_IP && h.Type == unix.IP_TOS && len(data) >= 1:
			a.class = data[0]
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SO_TIMESTAMPNS && len(data) >= int(unsafe.Sizeof(unix.Timespec{})):
			ts := (*unix.Timespec)(unsafe.Pointer(&data[0]))
			a.at = time.Unix(ts.Unix())
		}
		b = b[min(len(b), unix.CmsgSpace(n-unix.CmsgLen(0))):]
	}
	if a.at.IsZero() {
		a.at = time.Now()
	}
}
