package mediaterm

import (
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// alone skips a test that looks at the processors of the whole program where another engine changes them too.
func alone(t *testing.T) {
	t.Helper()
	if testEngine != nil {
		t.Skip("the engine of the other tests has its own")
	}
}

// The scheduler has the workers' processors while packets come, and no longer.
func TestProcessorsWhilePacketsFlow(t *testing.T) {
	alone(t)
	synctest.Test(t, func(t *testing.T) {
		var group sync.WaitGroup
		var packets atomic.Uint64
		p := newProcessors(3, packets.Load, &group)
		before := runtime.GOMAXPROCS(0)
		want := func(when string, n int) {
			t.Helper()
			synctest.Wait()
			if got := runtime.GOMAXPROCS(0) - before; got != n || p.held.Load() != (n > 0) {
				t.Errorf("%s: %d processors more, held %v; want %d", when, got, p.held.Load(), n)
			}
		}
		want("no packet yet", 0)
		for range 3 {
			packets.Add(1)
			p.want()
		}
		want("the first packets", 3)
		for range 4 {
			packets.Add(1)
			p.want()
			time.Sleep(quietTime)
			want("packets flow", 3)
		}
		time.Sleep(2 * quietTime)
		want("no packet for a while", 0)
		p.want()
		want("packets again", 3)
		close(p.stop)
		group.Wait()
		want("the engine is closed", 0)
	})
}

func TestPacketsBringTheirWorkersProcessor(t *testing.T) {
	alone(t)
	before := runtime.GOMAXPROCS(0)
	e, err := OpenTProxy(TProxyConfig{Workers: 1})
	if err != nil {
		t.Skipf("engine %s cannot be opened here: %v", EngineTProxy, err)
	}
	defer e.Close()
	if n := runtime.GOMAXPROCS(0); n != before {
		t.Errorf("without packets: %d processors, want %d", n, before)
	}
	c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(e.Steer().Ports[0])})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("packet")); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); !e.processors.held.Load(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("no processor was added: %+v", e.Counters())
		}
	}
	if n := runtime.GOMAXPROCS(0); n != before+1 {
		t.Errorf("with packets: %d processors, want %d", n, before+1)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if n := runtime.GOMAXPROCS(0); n != before {
		t.Errorf("after the end: %d processors, want %d", n, before)
	}
}
