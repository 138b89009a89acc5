package mediaterm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sender makes an xsk on a link whose far end is the returned one, and gives a function for the next frame's payload that arrives there.
func sender(t *testing.T) (x *xsk, link *net.Interface, next func() []byte) {
	t.Helper()
	link, wire := vethPair(t, "xska", "xskb")
	peer, err := net.InterfaceByName("xskb")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(wire, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_IP), Ifindex: peer.Index}); err != nil {
		t.Fatal(err)
	}
	setBuffer(wire, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, 8<<20)
	if x, err = openXSK(link, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.close(); err != nil {
			t.Error(err)
		}
	})
	buf := make([]byte, 4096)
	return x, link, func() []byte {
		for deadline := time.Now().Add(patience); ; runtime.Gosched() {
			n, _, err := unix.Recvfrom(wire, buf, unix.MSG_DONTWAIT)
			if err == nil {
				return buf[headroom:n]
			}
			if !errors.Is(err, unix.EAGAIN) || time.Now().After(deadline) {
				t.Fatalf("no frame: %v", err)
			}
		}
	}
}

func numbered(n, size int) []byte {
	payload := make([]byte, size)
	binary.BigEndian.PutUint32(payload, uint32(n))
	return frameWith(net.HardwareAddr{2, 0, 0, 0, 0, 8}, netip.MustParseAddrPort("10.9.0.1:20000"), netip.MustParseAddrPort("10.9.0.2:4000"), payload, nil)
}

// Frames arrive whole and in order, however often the rings go round; what has no room is refused, and there is room again when the frames
// before have left.
func TestXSK(t *testing.T) {
	inOwnNamespace(t)
	x, _, next := sender(t)
	n := 0
	for round := range 3 * xskChunks / batchSize {
		for i := range batchSize {
			if !x.put(numbered(n+i, 4+(n+i)%1400)) {
				t.Fatalf("round %d: no room for frame %d", round, i)
			}
		}
		if err := x.send(x.pushed); x.left() != 0 || err != nil {
			t.Fatalf("round %d: %d left, %v", round, x.left(), err)
		}
		for range batchSize {
			if got := next(); !bytes.Equal(got, numbered(n, 4+n%1400)[headroom:]) {
				t.Fatalf("frame %d: %d bytes, number %d", n, len(got), binary.BigEndian.Uint32(got))
			}
			n++
		}
	}
	room := 0
	for x.put(numbered(n+room, 100)) {
		room++
	}
	if room != xskChunks {
		t.Errorf("%d frames have room, want %d", room, xskChunks)
	}
	if err := x.send(x.pushed); x.left() != 0 || err != nil {
		t.Fatalf("%d left, %v", x.left(), err)
	}
	for i := range room {
		if got := int(binary.BigEndian.Uint32(next())); got != n+i {
			t.Fatalf("frame %d instead of %d", got, n+i)
		}
	}
	if x.put(make([]byte, xskChunk+1)) {
		t.Error("a frame longer than a chunk is taken")
	}
	if !x.put(numbered(0, 100)) {
		t.Error("no room although all has left")
	}
}

// What cannot be sent is told, the link's queue has one owner, and a closed xsk gives it free.
func TestXSKRefused(t *testing.T) {
	inOwnNamespace(t)
	x, link, _ := sender(t)
	if _, err := openXSKQueue(link.Index, 0); !errors.Is(err, unix.EBUSY) {
		t.Errorf("the same queue once more: %v", err)
	}
	if out, err := exec.Command("ip", "link", "set", "xska", "down").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for i := range 3 {
		x.put(numbered(i, 100))
	}
	if err := x.send(x.pushed); x.left() != 3 || !errors.Is(err, unix.ENETDOWN) {
		t.Errorf("on a link that is down: %d left, %v", x.left(), err)
	}
	if _, err := openXSK(link, 0); !errors.Is(err, unix.ENETDOWN) && !errors.Is(err, unix.EBUSY) {
		t.Errorf("opened on a link that is down: %v", err)
	}
	if err := x.close(); err != nil {
		t.Error(err)
	}
	if out, err := exec.Command("ip", "link", "set", "xska", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// The kernel gives the queue free a little after the socket is closed.
	again, err := openXSKQueue(link.Index, 0)
	for deadline := time.Now().Add(patience); errors.Is(err, unix.EBUSY) && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		again, err = openXSKQueue(link.Index, 0)
	}
	if err != nil {
		t.Fatalf("the queue is not free again: %v", err)
	}
	if err := again.close(); err != nil {
		t.Error(err)
	}
}

// A card with fewer queues than there are workers is nothing that a log should tell of, but that a stranger has the queue is.
func TestFewerQueuesThanWorkers(t *testing.T) {
	inOwnNamespace(t)
	for _, c := range []struct {
		workers int
		others  bool // somebody else has the queue
		lines   int
	}{{workers: 2}, {workers: 4}, {workers: 1, others: true, lines: 1}, {workers: 2, others: true, lines: 2}} {
		if out, err := exec.Command("ip", "link", "add", "onea", "up", "numtxqueues", "1", "type", "veth", "peer", "name", "oneb").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		link, err := net.InterfaceByName("onea")
		if err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("ip", "link", "set", "oneb", "up").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		var other *xsk
		if c.others {
			if other, err = openXSKQueue(link.Index, 0); err != nil {
				t.Fatal(err)
			}
		}
		var log bytes.Buffer
		e, err := OpenTProxy(TProxyConfig{Workers: c.workers, XDP: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Tap([]Tap{{Link: "onea", Ranges: []PortRange{{netip.MustParseAddr("10.9.0.1"), 20000, 20999}}}}); err != nil {
			t.Fatal(err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		said := strings.Count(log.String(), "\n") - strings.Count(log.String(), "media has no place before") // who may run this test often may not have that
		if n := strings.Count(log.String(), "another program"); n != c.lines || said != n {
			t.Errorf("%+v: %d lines:\n%s", c, n, log.String())
		}
		if other != nil {
			_ = other.close()
		}
		if out, err := exec.Command("ip", "link", "del", "onea").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
}

func TestCapturedLinks(t *testing.T) {
	const list = `sk               RefCnt Type Proto  Iface R Rmem   User   Inode
00000000f1a5f3c9 3      3    0003   2     1 0      0      31337
0000000085d1b2aa 3      10   0800   2     1 0      0      31338
00000000aa11b2aa 3      3    0003   0     1 0      0      31339
00000000bb11b2aa 3      3    0000   0     0 0      0      31340
`
	links := capturedLinks(nil, []byte(list))
	if !slices.Equal(links, []int32{2, 0}) {
		t.Errorf("links whose packets somebody is given: %v, want 2 and all", links)
	}
	for link, want := range map[int32]bool{2: true, 3: true} {
		if captures(links, link) != want || captures(links[:1], link) != (link == 2) {
			t.Errorf("link %d in %v", link, links)
		}
	}
}

// The list names whoever is given all packets, however long it is.
func TestCaptureList(t *testing.T) {
	inOwnNamespace(t)
	link, _ := vethPair(t, "xska", "xskb")
	list, err := openCaptureList()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(list.fd)
	for n := range 120 {
		links, err := list.read()
		if err != nil || len(links) != n {
			t.Fatalf("%d links with %d captures: %v", len(links), n, err)
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: link.Index}); err != nil {
			t.Fatal(err)
		}
	}
}
