package vap

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"imeproxy/ucime/learn"
)

// cutter is a network that loses each connection after some bytes.
type cutter struct {
	l   net.Listener
	to  string
	mu  sync.Mutex // guards the rest
	rnd *rand.Rand
	end bool // lose no more
	cut int
	wg  sync.WaitGroup
}

func newCutter(t *testing.T, to string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{l: l, to: to, rnd: rand.New(rand.NewPCG(7, 7))}
	c.wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			c.wg.Go(func() { c.join(in) })
		}
	})
	t.Cleanup(func() { l.Close(); c.wg.Wait() })
	return c
}

// join carries a connection until it has carried its bytes, one way or the other.
func (c *cutter) join(in net.Conn) {
	defer in.Close()
	out, err := net.Dial("tcp", c.to)
	if err != nil {
		return
	}
	defer out.Close()
	both := sync.WaitGroup{}
	for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
		limit := int64(1 << 40)
		c.mu.Lock()
		if !c.end {
			limit = 100 + c.rnd.Int64N(4000)
			c.cut++
		}
		c.mu.Unlock()
		both.Go(func() {
			_, _ = io.CopyN(way[1], way[0], limit)
			_ = in.Close()
			_ = out.Close()
		})
	}
	both.Wait()
}

// Whatever a network loses, and whenever: records that were acknowledged are stored, every route is brought and settled once, and the server
// ends up with the client's offers.
func TestNothingIsLostOnABadNetwork(t *testing.T) {
	s := startServer(t, newMemory(), 50000)
	s.cfg.HoldTime = 100 * 365 * 24 * time.Hour // the server's clock runs wild here
	bad := newCutter(t, s.addr())
	var mu sync.Mutex
	rnd := rand.New(rand.NewPCG(3, 4))
	stored := map[uint64]bool{}
	c, clock := startClient(t, ClientConfig{Addr: bad.l.Addr().String(), RetryInterval: shortRetry, OnNotify: func(_ context.Context, n Notification) error {
		mu.Lock()
		defer mu.Unlock()
		if rnd.IntN(4) == 0 {
			return errors.New("busy")
		}
		stored[n.ID] = true
		return nil
	}})
	over := make(chan struct{})
	var wg sync.WaitGroup
	defer func() { close(over); wg.Wait() }()
	wg.Go(func() { // time passes for who waits
		for {
			select {
			case <-over:
				return
			case <-time.After(time.Millisecond):
			}
			if clock.armed(shortRetry) > 0 {
				clock.advance(shortRetry)
			}
			for d := retryFirst; d <= retryLast; d *= 2 {
				if s.clock.armed(d) > 0 {
					s.clock.advance(time.Second)
					break
				}
			}
		}
	})
	const routes, calls = 60, 40
	ctx := within(t)
	wg.Go(func() {
		for id := range uint64(routes) {
			s.handler.add(keyA, notification(id+1))
			s.Wake(keyA)
		}
	})
	vcr := func(i int) learn.VCR {
		v := theVCR
		v.Start = v.Start.Add(time.Duration(i) * time.Millisecond)
		return v
	}
	last := Offer{}
	for i := range calls {
		last = offerA("+1408902XXX", Pattern("+1408903"+string(rune('0'+i%10))+"XX"))
		last.Exclude = []Pattern{"+14089020000"}
		if err := c.SetServices([]Offer{last}); err != nil {
			t.Fatal(err)
		}
		if err := c.Upload(ctx, serviceA, []learn.VCR{vcr(i)}); err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
		if n := len(s.handler.stored(keyA)); n != i+1 {
			t.Fatalf("%d records are stored after %d were acknowledged", n, i+1)
		}
	}
	eventually(t, "all routes are settled", func() bool { return s.handler.waiting(keyA) == 0 })
	bad.mu.Lock()
	bad.end = true
	cuts := bad.cut
	bad.mu.Unlock()
	eventually(t, "all is published", complete(c, serviceA))
	p, _ := s.handler.publication(keyA)
	if want := NewNumbers(last.Patterns, last.Exclude); !p.Numbers.Equal(want) {
		t.Errorf("%d numbers, want %d", p.Numbers.Count(), want.Count())
	}
	mu.Lock()
	defer mu.Unlock()
	if len(stored) != routes {
		t.Errorf("%d routes were stored, want %d", len(stored), routes)
	}
	if cuts < 20 {
		t.Errorf("only %d cuts", cuts)
	}
	t.Logf("%d ways cut; %+v", cuts, s.Stats())
}
