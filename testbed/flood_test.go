package testbed

import (
	"crypto/tls"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Strangers flood the trunk. Calls that stand go on, with their media, the known peer's new calls come through in time, and what is
// remembered of the strangers stays bounded.
func TestFloods(t *testing.T) {
	s := StartStubs(t)
	k := s.talk(t, false, srtpSuites[0])
	k.bothWays(t, 5)
	t.Run("SYNs of one source", func(t *testing.T) {
		s.under(t, k, s.hping(t, "-S", "-p", strconv.Itoa(TrunkPort), "--faster", s.A.Mapped.String()))
	})
	t.Run("SYNs of random sources", func(t *testing.T) {
		s.under(t, k, s.hping(t, "-S", "-p", strconv.Itoa(TrunkPort), "--faster", "--rand-source", s.A.Mapped.String()))
	})
	// To the very port of the call, up to 50,000 a second. A flood beyond what the engine reads takes the call's packets with it.
	t.Run("UDP to the media port of a call", func(t *testing.T) {
		s.under(t, k, s.hping(t, "--udp", "-p", strconv.Itoa(int(k.out.Port())), "-i", "u20", "-d", "172", s.A.MediaOut.String()))
	})
	t.Run("TLS handshakes", func(t *testing.T) { s.under(t, k, s.handshakes(t)) })
	set := s.A.EdgeHost.MustRun(t, "nft", "list", "set", "ip", "imeproxy_guard", "new_connections")
	if n := strings.Count(set, "limit rate over"); n > 65536 || n == 0 {
		t.Errorf("the guard remembers %d sources", n)
	}
	k.caller.Transact(t, k.callee, "BYE", 200)
}

// hping sends until it is stopped.
func (s *StubLab) hping(t T, args ...string) (stop func()) {
	t.Helper()
	p, err := s.Outsider.Start("hping3", StartOptions{}, append([]string{"hping3", "-q", "-n"}, args...)...)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return func() {
		p.Kill()
	}
}

// handshakes lets twenty sources begin TLS handshakes without a certificate, one after the other, as fast as they can.
func (s *StubLab) handshakes(t T) (stop func()) {
	t.Helper()
	var add, del []string
	done := make(chan struct{})
	var all sync.WaitGroup
	var n atomic.Int64
	for i := range 20 {
		ip := fmt.Sprintf("198.51.100.%d", 100+i)
		add, del = append(add, "addr add "+ip+"/24 dev eth0"), append(del, "addr del "+ip+"/24 dev eth0")
	}
	if err := s.Outsider.ip(add...); err != nil {
		t.Fatalf("%v", err)
	}
	for i := range 20 {
		all.Add(1)
		go func() {
			defer all.Done()
			for {
				select {
				case <-done:
					return
				default:
				}
				c, err := s.Outsider.Dial("tcp", fmt.Sprintf("198.51.100.%d", 100+i), s.Trunk().String(), 500*time.Millisecond)
				if err != nil {
					continue // the guard holds it up
				}
				_ = c.SetDeadline(time.Now().Add(2 * time.Second))
				if k := tls.Client(c, &tls.Config{InsecureSkipVerify: true}); k.Handshake() == nil {
					_, _ = k.Read(make([]byte, 1))
				}
				c.Close()
				n.Add(1)
			}
		}()
	}
	return func() {
		close(done)
		all.Wait()
		_ = s.Outsider.ip(del...)
		if n.Load() < 50 {
			t.Errorf("a flood of %d handshakes proves nothing", n.Load())
		}
	}
}

// under demands service for the known peer while a flood goes on.
func (s *StubLab) under(t *testing.T, k *talk, stop func()) {
	t.Helper()
	before := s.residentKiB(t)
	var slowest time.Duration
	for range 10 {
		begin := time.Now()
		f, a := s.CallIn(t)
		f.Transact(t, a, "BYE", 200)
		a, f = s.CallOut(t)
		a.Transact(t, f, "BYE", 200)
		slowest = max(slowest, time.Since(begin))
		k.bothWays(t, 5)
	}
	callStands(t, k.caller, k.callee)
	stop()
	grown := s.residentKiB(t) - before
	t.Logf("slowest pair of calls %v, memory grew by %d KiB", slowest.Round(time.Millisecond), grown)
	if slowest > 3*time.Second {
		t.Errorf("a pair of calls took %v", slowest)
	}
	if grown > 64<<10 {
		t.Errorf("the daemon's memory grew by %d KiB", grown)
	}
}

// residentKiB is the daemon's memory.
func (s *StubLab) residentKiB(t T) int {
	t.Helper()
	for line := range strings.Lines(readAll(fmt.Sprintf("/proc/%d/status", s.Proxy.Process().Pid()))) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			n, _ := strconv.Atoi(f[1])
			return n
		}
	}
	t.Fatalf("the daemon has no memory")
	return 0
}
