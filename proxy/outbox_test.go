package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// pair is a connection of the appliance's and its peer's end.
func pair(t *testing.T) (k *conn, peer *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	p, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	out := newOutbox(c)
	k = newConn(out, out)
	var wg sync.WaitGroup
	wg.Go(k.write)
	t.Cleanup(func() {
		k.shut()
		p.Close()
		wg.Wait()
	})
	_ = p.SetDeadline(time.Now().Add(20 * time.Second))
	return k, p.(*net.TCPConn)
}

// What the socket does not take at once follows in its order when the peer reads on, and whoever sends waits for nothing.
func TestOutboxKeepsOrder(t *testing.T) {
	k, peer := pair(t)
	var want bytes.Buffer
	sent := 0
	for i := 0; ; i++ {
		b := fmt.Appendf(nil, "%08d%s\n", i, bytes.Repeat([]byte{'x'}, 1000))
		want.Write(b)
		if !k.send(b) {
			t.Fatalf("message %d refused", i)
		}
		k.out.mu.Lock()
		left := len(k.out.buf) > 0 || k.out.busy
		k.out.mu.Unlock()
		if left {
			sent++
		}
		if sent == 100 {
			break
		}
	}
	got := make([]byte, want.Len())
	if _, err := io.ReadFull(peer, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Error("the peer got something else than what was sent, or in another order")
	}
	if !k.send([]byte("more")) {
		t.Error("the connection is of no more use")
	}
	if _, err := io.ReadFull(peer, got[:4]); err != nil || string(got[:4]) != "more" {
		t.Errorf("then %q, %v", got[:4], err)
	}
}

// A peer that does not read costs maxWaiting, and is then given up.
func TestOutboxGivesUpSlowPeer(t *testing.T) {
	k, _ := pair(t)
	b := bytes.Repeat([]byte{'x'}, 8000)
	for n := 0; k.send(b); n += len(b) {
		if n > 64<<20 {
			t.Fatal("64 MB are kept for a peer that does not read")
		}
	}
	if k.open() {
		t.Error("the connection stays open")
	}
	k.out.mu.Lock()
	defer k.out.mu.Unlock()
	if !errors.Is(k.out.err, errSlow) || len(k.out.buf) > maxWaiting {
		t.Errorf("error %v, %d bytes wait", k.out.err, len(k.out.buf))
	}
}

// What a reader's messages bring about leaves when it has nothing more to read.
func TestConnHoldsUntilItReads(t *testing.T) {
	k, peer := pair(t)
	other, otherPeer := pair(t)
	k.hold([2]*conn{k, other})
	for range 3 {
		k.send([]byte("a"))
		other.send([]byte("b"))
	}
	_ = peer.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if n, err := peer.Read(make([]byte, 8)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d bytes came before the reader had done with its messages: %v", n, err)
	}
	_ = peer.SetReadDeadline(time.Now().Add(20 * time.Second))
	_ = k.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := k.next(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("nothing was sent, yet: %v", err)
	}
	got := make([]byte, 3)
	for p, want := range map[*net.TCPConn]string{peer: "aaa", otherPeer: "bbb"} {
		if n, err := p.Read(got); err != nil || string(got[:n]) != want {
			t.Errorf("read %q, %v, want %q at once", got[:n], err, want)
		}
	}
}

// While the other side is still to be opened, which may take seconds, nothing is held.
func TestConnHoldsNothingAlone(t *testing.T) {
	k, peer := pair(t)
	k.hold([2]*conn{k, nil})
	k.send([]byte("a"))
	if n, err := peer.Read(make([]byte, 8)); n != 1 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestConnReadEnds(t *testing.T) {
	k, peer := pair(t)
	peer.Close()
	if _, err := k.next(); !errors.Is(err, io.EOF) {
		t.Errorf("the peer has closed: %v", err)
	}
	k, peer = pair(t)
	_ = peer.SetLinger(0)
	peer.Close()
	if _, err := k.next(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the peer has reset: %v", err)
	}
}
