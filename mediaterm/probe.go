package mediaterm

import (
	"fmt"
	"net"
	"net/netip"
	"time"
)

// probe sends to a port of this worker's kind that no stream has, and waits until it was seen here.
func (w *worker) probe(conn *net.UDPConn, addr netip.Addr, lo, hi uint16) error {
	e := &portEnd{seen: make(chan struct{}, 1)}
	at := uint16(0)
	w.mu.Lock()
	for p := uint32(lo); p <= uint32(hi) && at == 0; p++ {
		if w.engine.worker(uint16(p)) == w && w.table.at(addr.As4(), uint16(p)) == nil {
			at = uint16(p)
			w.table.set(netip.AddrPortFrom(addr, at), e)
		}
	}
	w.mu.Unlock()
	if at == 0 {
		return nil // all ports are in use, so that the rules work
	}
	defer func() {
		w.mu.Lock()
		w.table.set(netip.AddrPortFrom(addr, at), nil)
		w.mu.Unlock()
	}()
	if _, err := conn.WriteToUDPAddrPort([]byte("imeproxy"), netip.AddrPortFrom(addr, at)); err != nil {
		return fmt.Errorf("probe of the media rules: %w", err)
	}
	select {
	case <-e.seen:
		return nil
	case <-time.After(probeTime):
		return fmt.Errorf("a packet to the media address %s, port %d, did not come through the kernel's rules", addr, at)
	}
}
