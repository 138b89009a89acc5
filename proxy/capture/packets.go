package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// snapLength bounds a packet in bytes: offloading hands up to 64 KiB over at once.
const snapLength = 65535 + 14

// tap is a packet socket on one interface.
type tap struct {
	file *os.File
	conn syscall.RawConn
	buf  []byte
	oob  []byte
}

// openTap begins to hear an interface. Host and port narrow it in the kernel; their zero values do not.
func openTap(device string, host netip.Addr, port uint16) (*tap, error) {
	link, err := net.InterfaceByName(device)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", device, err)
	}
	// Without a protocol it hears nothing until it is bound, so that no packet comes past the filter.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), "packets of "+device)
	t := &tap{file: f, buf: make([]byte, snapLength), oob: make([]byte, 256)}
	if err := t.set(fd, link.Index, host, port); err != nil {
		return nil, errors.Join(fmt.Errorf("packet socket on %s: %w", device, err), f.Close())
	}
	if t.conn, err = f.SyscallConn(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return t, nil
}

func (t *tap) set(fd, index int, host netip.Addr, port uint16) error {
	code, err := filterCode(host, port)
	if err != nil {
		return err
	}
	if len(code) > 0 {
		prog := make([]unix.SockFilter, len(code))
		for i, c := range code {
			prog[i] = unix.SockFilter{Code: c.Op, Jt: c.Jt, Jf: c.Jf, K: c.K}
		}
		if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}); err != nil {
			return err
		}
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20) // less is possible without the right to it
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return err
	}
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index})
}

// filterCode is the packet filter for IPv4 in Ethernet; none for everything.
func filterCode(host netip.Addr, port uint16) ([]bpf.RawInstruction, error) {
	if !host.IsValid() && port == 0 {
		return nil, nil
	}
	if host.IsValid() && !host.Is4() {
		return nil, errors.New("an IPv4 host is expected")
	}
	const drop = 255 // mark of a jump to the end
	code := []bpf.Instruction{bpf.LoadAbsolute{Off: 12, Size: 2}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x0800, SkipFalse: drop}}
	if host.IsValid() {
		a := host.As4()
		n := binary.BigEndian.Uint32(a[:])
		code = append(code, bpf.LoadAbsolute{Off: 26, Size: 4}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: n, SkipTrue: 2},
			bpf.LoadAbsolute{Off: 30, Size: 4}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: n, SkipFalse: drop})
	}
	if port != 0 {
		code = append(code, bpf.LoadAbsolute{Off: 23, Size: 1}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_TCP, SkipTrue: 1}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_UDP, SkipFalse: drop},
			bpf.LoadAbsolute{Off: 20, Size: 2}, bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x1fff, SkipTrue: drop}, // a later fragment has no ports
			bpf.LoadMemShift{Off: 14},
			bpf.LoadIndirect{Off: 14, Size: 2}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(port), SkipTrue: 2},
			bpf.LoadIndirect{Off: 16, Size: 2}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(port), SkipFalse: drop})
	}
	code = append(code, bpf.RetConstant{Val: snapLength}, bpf.RetConstant{Val: 0})
	for i, c := range code {
		if j, ok := c.(bpf.JumpIf); ok {
			end := uint8(len(code) - 2 - i)
			if j.SkipTrue == drop {
				j.SkipTrue = end
			}
			if j.SkipFalse == drop {
				j.SkipFalse = end
			}
			code[i] = j
		}
	}
	return bpf.Assemble(code)
}

// next waits for a packet. Its data is valid up to the next call. After stop it gives those that had come, then os.ErrClosed; another error says that
// the interface is gone.
func (t *tap) next() (packet, error) {
	for {
		var n, oobn int
		var inner error
		receive := func(fd uintptr) bool {
			n, oobn, _, _, inner = unix.Recvmsg(int(fd), t.buf, t.oob, unix.MSG_TRUNC)
			return !errors.Is(inner, unix.EAGAIN)
		}
		err := t.conn.Read(receive)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = t.conn.Control(func(fd uintptr) { receive(fd) })
		}
		switch {
		case err != nil, errors.Is(inner, unix.EAGAIN): // stopped, and nothing is left
			return packet{}, os.ErrClosed
		case errors.Is(inner, unix.ENETDOWN), errors.Is(inner, unix.EINTR): // it may come up again
			continue
		case inner != nil:
			return packet{}, inner
		}
		return packet{at: t.stamp(oobn), data: t.buf[:min(n, len(t.buf))], length: n}, nil
	}
}

// stamp is when the kernel had the packet.
func (t *tap) stamp(n int) time.Time {
	all, err := unix.ParseSocketControlMessage(t.oob[:n])
	if err == nil {
		for _, m := range all {
			if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= int(unsafe.Sizeof(unix.Timespec{})) {
				ts := (*unix.Timespec)(unsafe.Pointer(&m.Data[0]))
				return time.Unix(ts.Unix())
			}
		}
	}
	return time.Now()
}

// lost is how many packets came too fast since it was asked last.
func (t *tap) lost() uint64 {
	var out uint64
	_ = t.conn.Control(func(fd uintptr) {
		if st, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			out = uint64(st.Drops)
		}
	})
	return out
}

// stop ends the waiting for packets. It may be called from any goroutine.
func (t *tap) stop() { _ = t.file.SetReadDeadline(time.Unix(1, 0)) }

func (t *tap) close() { t.file.Close() }
