package mediaterm

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// heldFor is for how long the kernel's list of sockets counts. A program that takes a port within that time before a stream does is found as
// little as one that takes it right after.
const heldFor = 200 * time.Millisecond

// heldPorts knows from the kernel's list of UDP sockets which ports can be bound: to try the four ports of each stream by binding them cost
// more than all the rest of a call's media. Safe for concurrent use. The zero value is ready.
type heldPorts struct {
	mu    sync.Mutex // guards everything that follows
	at    time.Time  // when the list was read
	known bool       // it could be
	ports map[uint16][]netip.Addr
	own   map[netip.Addr]bool // addresses that an interface has, as a bind has shown
	text  []byte              // memory of the list
}

// check tells whether a port could be bound, as bindable does; the error is a *BindError.
func (h *heldPorts) check(a netip.AddrPort, now time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if age := now.Sub(h.at); age < 0 || age >= heldFor || h.at.IsZero() {
		h.at, h.own = now, make(map[netip.Addr]bool)
		h.known = h.read()
	}
	if !h.known {
		return bindable(a)
	}
	for _, by := range h.ports[a.Port()] {
		if by.IsUnspecified() || by == a.Addr() {
			return &BindError{Addr: a, Hint: bindHint(unix.EADDRINUSE, a.Addr()), Err: unix.EADDRINUSE}
		}
	}
	if !h.own[a.Addr()] {
		if err := bindable(netip.AddrPortFrom(a.Addr(), 0)); err != nil {
			return err
		}
		h.own[a.Addr()] = true
	}
	return nil
}

// read reads the list; false where there is none to read.
func (h *heldPorts) read() (ok bool) {
	h.ports = make(map[uint16][]netip.Addr)
	if h.text, ok = readProc("/proc/thread-self/net/udp\x00", h.text); !ok || !parseHeld(h.ports, h.text) {
		return false
	}
	// Without IPv6 there is no such file.
	if h.text, ok = readProc("/proc/thread-self/net/udp6\x00", h.text); ok && !parseHeld(h.ports, h.text) {
		return false
	}
	return true
}

// maxProc bounds what is read of a file: more sockets than a system has.
const maxProc = 64 << 20

// readProc reads a file of /proc, whose name ends with a zero byte, into memory that it may enlarge. The kernel makes the text from memory, no
// call waits: the scheduler is not told of them, which would wake a thread that watches over calls that may wait.
func readProc(name string, into []byte) ([]byte, bool) {
	const part = 16 << 10
	into = into[:0]
	cwd := unix.AT_FDCWD
	fd, _, errno := unix.RawSyscall6(unix.SYS_OPENAT, uintptr(cwd), uintptr(unsafe.Pointer(unsafe.StringData(name))), unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0)
	if errno != 0 {
		return into, false
	}
	defer unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	for len(into) < maxProc {
		into = slices.Grow(into, part)
		room := into[len(into):cap(into)]
		n, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(room))), uintptr(len(room)))
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			return into, false
		case n == 0:
			return into, true
		default:
			into = into[:len(into)+int(n)]
		}
	}
	return into, false
}

// parseHeld adds what /proc/net/udp or udp6 says: a heading, and lines of "SL: ADDRESS:PORT ...", in hexadecimal, the address in words of the
// machine's own order. A socket for all IPv6 addresses holds the port for IPv4 too, but where it says otherwise, which the list does not tell.
func parseHeld(ports map[uint16][]netip.Addr, text []byte) bool {
	_, text, _ = bytes.Cut(text, []byte("\n"))
	for line := range bytes.Lines(text) {
		f := bytes.Fields(line)
		if len(f) < 2 {
			return false
		}
		host, port, _ := bytes.Cut(f[1], []byte(":"))
		n, err := strconv.ParseUint(string(port), 16, 16)
		raw := make([]byte, hex.DecodedLen(len(host)))
		if _, bad := hex.Decode(raw, host); err != nil || bad != nil || len(raw)%4 != 0 {
			return false
		}
		for word := raw; len(word) > 0; word = word[4:] {
			binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
		}
		addr, ok := netip.AddrFromSlice(raw)
		if !ok {
			return false
		}
		ports[uint16(n)] = append(ports[uint16(n)], addr.Unmap())
	}
	return true
}
