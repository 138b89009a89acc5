package mediaterm

import (
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A worker that may not let packets wait looks for the next one while they come close together, sees it as soon as the kernel has put it into the
// ring, and sleeps again when they have become rare.
func TestLinger(t *testing.T) {
	ring := &tap{ring: make([]byte, tapBlock), count: tapFrames, fd: -1}
	w := &worker{taps: []*tap{{ring: make([]byte, tapBlock), count: tapFrames, fd: -1}, ring}}
	w.tapped.Store(true)
	w.now = time.Now()
	w.pace()
	if w.linger() {
		t.Error("a packet was found where none is, after the first batch")
	}
	for range 100 {
		w.now = w.now.Add(20 * time.Microsecond)
		w.pace()
	}
	begin := time.Now()
	if w.linger() {
		t.Error("a packet was found where none is")
	}
	if d := time.Since(begin); d < lingerFor {
		t.Errorf("given up after %v", d)
	}
	status := &(*unix.Tpacket2Hdr)(unsafe.Pointer(&ring.ring[0])).Status
	atomic.StoreUint32(status, unix.TP_STATUS_USER)
	if !w.linger() {
		t.Error("the packet in the ring was not found")
	}
	w.more = true
	if w.linger() {
		t.Error("it looks at the rings alone although the socket brings packets")
	}
	w.more = false
	for range 30 {
		w.now = w.now.Add(time.Millisecond)
		w.pace()
	}
	if w.linger() {
		t.Error("it looks for packets that come a millisecond apart without sleeping")
	}
}
