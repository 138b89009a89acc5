package testbed

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// sniffer copies every frame of an interface to a file in tcpdump's format.
// It sees packets from the moment that newSniffer returns, which tcpdump
// promises to nobody, and needs no more than a user namespace's root.
type sniffer struct {
	fd      int
	file    *os.File
	stop    atomic.Int64
	done    chan struct{}
	err     error  // why it ended before stop; valid after done
	dropped uint32 // frames that the kernel could not store; valid after done
}

const (
	soRxqOvfl     = 40 // SO_RXQ_OVFL: each message says how many were dropped
	soRcvbufForce = 33 // SO_RCVBUFFORCE
	snifferBuffer = 16 << 20
	maxFrame      = 65536
)

// newSniffer opens the socket in the host's namespace and begins. Without a filter everything counts.
func newSniffer(h *Host, ifName, path string, filter []bpf.Instruction) (*sniffer, error) {
	s := &sniffer{done: make(chan struct{})}
	if err := h.Do(func() error { return s.open(ifName, filter) }); err != nil {
		return nil, fmt.Errorf("capture on %s of %s: %w", ifName, h.Name, err)
	}
	var err error
	if s.file, err = os.Create(path); err != nil {
		syscall.Close(s.fd)
		return nil, err
	}
	head := make([]byte, 24)
	binary.LittleEndian.PutUint32(head, 0xa1b2c3d4)
	binary.LittleEndian.PutUint16(head[4:], 2)
	binary.LittleEndian.PutUint16(head[6:], 4)
	binary.LittleEndian.PutUint32(head[16:], maxFrame)
	binary.LittleEndian.PutUint32(head[20:], 1) // Ethernet
	if _, err := s.file.Write(head); err != nil {
		syscall.Close(s.fd)
		s.file.Close()
		return nil, err
	}
	go s.run()
	return s, nil
}

// open makes the packet socket (packet(7)).
func (s *sniffer) open(ifName string, filter []bpf.Instruction) error {
	ifi, err := net.InterfaceByName(ifName)
	if err != nil {
		return err
	}
	const allProtocols = syscall.ETH_P_ALL<<8&0xff00 | syscall.ETH_P_ALL>>8
	// Protocol 0 until it is bound: no frame of another interface gets in.
	if s.fd, err = syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	if syscall.SetsockoptInt(s.fd, syscall.SOL_SOCKET, soRcvbufForce, snifferBuffer) != nil {
		// Without the right to, the system's own limit has to do; dropped
		// frames are counted either way.
		if err = syscall.SetsockoptInt(s.fd, syscall.SOL_SOCKET, syscall.SO_RCVBUF, snifferBuffer); err != nil {
			return s.closed(err)
		}
	}
	for opt, v := range map[int]int{soRxqOvfl: 1, syscall.SO_TIMESTAMPNS: 1} {
		if err = syscall.SetsockoptInt(s.fd, syscall.SOL_SOCKET, opt, v); err != nil {
			return s.closed(err)
		}
	}
	tv := syscall.NsecToTimeval(int64(pollEvery))
	if err = syscall.SetsockoptTimeval(s.fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &tv); err != nil {
		return s.closed(err)
	}
	if filter != nil {
		if err = s.attach(filter); err != nil {
			return s.closed(err)
		}
	}
	if err = syscall.Bind(s.fd, &syscall.SockaddrLinklayer{Protocol: allProtocols, Ifindex: ifi.Index}); err != nil {
		return s.closed(err)
	}
	return nil
}

// signalingFilter takes TCP and the datagrams of the PSTN trunks: a capture of many calls without their media.
var signalingFilter = []bpf.Instruction{
	bpf.LoadAbsolute{Off: 12, Size: 2},
	bpf.JumpIf{Val: syscall.ETH_P_IP, SkipFalse: 7},
	bpf.LoadAbsolute{Off: 23, Size: 1},
	bpf.JumpIf{Val: protoTCP, SkipTrue: 4},
	bpf.LoadAbsolute{Off: 34, Size: 2}, // no IP options in the lab
	bpf.JumpIf{Val: pstnPort, SkipTrue: 2},
	bpf.LoadAbsolute{Off: 36, Size: 2},
	bpf.JumpIf{Val: pstnPort, SkipFalse: 1},
	bpf.RetConstant{Val: maxFrame},
	bpf.RetConstant{},
}

// attach puts a filter on the socket, before it is bound.
func (s *sniffer) attach(filter []bpf.Instruction) error {
	raw, err := bpf.Assemble(filter)
	if err != nil {
		return err
	}
	program := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		program[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return unix.SetsockoptSockFprog(s.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}

// closed gives the socket back after an error.
func (s *sniffer) closed(err error) error {
	syscall.Close(s.fd)
	return err
}

// run copies until it is stopped, and what came before is in the file.
func (s *sniffer) run() {
	defer close(s.done)
	defer s.file.Close()
	defer syscall.Close(s.fd)
	buf := make([]byte, 16+maxFrame)
	oob := make([]byte, 256)
	for {
		stop := s.stop.Load()
		n, oobn, _, _, err := syscall.Recvmsg(s.fd, buf[16:], oob, 0)
		switch err {
		case nil:
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			if stop > 0 {
				return
			}
			continue
		default:
			s.err = err
			return
		}
		at := s.ancillary(oob[:oobn])
		if stop > 0 && at.UnixNano() > stop {
			return // where packets do not cease, the socket is never empty
		}
		binary.LittleEndian.PutUint32(buf, uint32(at.Unix()))
		binary.LittleEndian.PutUint32(buf[4:], uint32(at.Nanosecond()/1000))
		binary.LittleEndian.PutUint32(buf[8:], uint32(n))
		binary.LittleEndian.PutUint32(buf[12:], uint32(n))
		if _, s.err = s.file.Write(buf[:16+n]); s.err != nil {
			return
		}
	}
}

// ancillary reads the time of arrival and the number of dropped frames.
func (s *sniffer) ancillary(oob []byte) time.Time {
	at := time.Now()
	msgs, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return at
	}
	for _, m := range msgs {
		switch {
		case m.Header.Type == soRxqOvfl && len(m.Data) >= 4:
			s.dropped = binary.NativeEndian.Uint32(m.Data)
		case m.Header.Type == syscall.SCM_TIMESTAMPNS && len(m.Data) >= 16:
			at = time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	return at
}

// close ends the capture; the file is whole when it returns.
func (s *sniffer) close() error {
	s.stop.Store(time.Now().UnixNano())
	<-s.done
	if s.err != nil {
		return s.err
	}
	if s.dropped > 0 {
		return fmt.Errorf("%d packets missed", s.dropped)
	}
	return nil
}
