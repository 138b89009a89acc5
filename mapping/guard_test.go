package mapping

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A source that is shunned reaches nothing any more, standing connections are cut off, others are not touched, changes of the spec do not let it in, and
// afterwards all is as before.
func TestShun(t *testing.T) {
	l := newLab(t)
	spec := labSpec()
	k := l.apply(spec)
	l.serve(l.ca, caReal+":8000")
	shun := func(a string, d time.Duration) {
		t.Helper()
		l.in(l.box, func() error { return k.Shun(addr(a), d) })
	}
	l.reach("before", l.outside, "", caMapped+":8000", caReal+":8000", remoteAddr)
	shun("198.51.100.7", 0)
	l.reach("another is shunned", l.outside, "", caMapped+":8000", caReal+":8000", remoteAddr)
	shun(remoteAddr, time.Hour)
	l.unreachable(l.outside, map[string]string{"shunned": caMapped + ":8000"})
	changed := labSpec()
	changed.Groups = nil
	l.update(k, changed)
	l.update(k, spec)
	l.unreachable(l.outside, map[string]string{"shunned, after changes": caMapped + ":8000"})
	var all []Shunned
	l.in(l.box, func() (err error) {
		all, err = k.Shunned()
		return err
	})
	if len(all) != 2 || all[0].Addr != addr("198.51.100.7") || all[0].Left != 0 || all[1].Addr != addr(remoteAddr) || all[1].Left < 59*time.Minute || all[1].Left > time.Hour {
		t.Errorf("shunned are %+v", all)
	}
	l.in(l.box, func() error { return k.Unshun(addr(remoteAddr)) })
	l.reach("let in again", l.outside, "", caMapped+":8000", caReal+":8000", remoteAddr)
	_ = try(l.box, func() error {
		if err := k.Unshun(addr(remoteAddr)); !errors.Is(err, ErrNotShunned) {
			t.Errorf("let in twice: %v", err)
		}
		if err := k.Shun(netip.MustParseAddr("::1"), 0); err == nil {
			t.Error("an IPv6 address was taken")
		}
		return nil
	})
	shun(remoteAddr, time.Hour)
	shun(remoteAddr, time.Second) // the later time counts
	for end := time.Now().Add(10 * time.Second); ; {
		if _, _, err := ask(l.outside, "", caMapped+":8000"); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the time of a shun does not end")
		}
	}
}

func TestStandingConnectionIsShunned(t *testing.T) {
	l := newLab(t)
	k := l.apply(labSpec())
	in := l.packetConn(l.ca, caReal+":5000")
	from := l.packetConn(l.phone, phoneReal+":5000")
	out := l.packetConn(l.outside, remoteAddr+":5000")
	_ = from
	if _, ok := sends(t, in, out, remoteAddr+":5000"); !ok {
		t.Fatal("nothing passes")
	}
	if _, ok := sends(t, out, in, caMapped+":5000"); !ok {
		t.Fatal("no answer passes")
	}
	l.in(l.box, func() error { return k.Shun(addr(remoteAddr), 0) })
	if _, ok := sends(t, out, in, caMapped+":5000"); ok {
		t.Error("an answer of a shunned host passes")
	}
}

// oneSYN sends the first segment of a connection and gives it up.
func oneSYN(from, to string, port int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: addr(from).As4()}); err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: addr(to).As4(), Port: port}); !errors.Is(err, unix.EINPROGRESS) {
		return fmt.Errorf("connect: %w", err)
	}
	return nil
}

// A source opens so many connections at once and no more, another is not touched by that, and one that is known has no limit.
func TestNewConnectionsAreLimited(t *testing.T) {
	l := newLab(t)
	spec := labSpec()
	spec.Intercepts[1].ID = "class"
	k := l.apply(spec)
	l.run(l.outside, "ip", "address", "add", "209.165.200.231/27", "dev", "eth0")
	class := func() (n int) {
		l.in(l.box, func() error {
			h, err := k.Hits()
			n = int(h["class"].Packets)
			return err
		})
		return n
	}
	passed := func(from string, n int) int {
		t.Helper()
		before := class()
		for range n {
			l.in(l.outside, func() error { return oneSYN(from, caMapped, 5070) })
		}
		return class() - before
	}
	const tries = 3 * newBurst
	began := time.Now()
	first := passed(remoteAddr, tries)
	if most := newBurst + int(time.Since(began).Seconds()*newRate) + 5; first < newBurst/2 || first > most || first >= tries-5 {
		t.Errorf("%d of %d came through, at most %d may", first, tries, most)
	}
	if other := passed("209.165.200.231", newBurst/2); other < newBurst/2 {
		t.Errorf("of another source %d of %d came through", other, newBurst/2)
	}
	l.in(l.box, func() error { return k.Know(addr(remoteAddr)) })
	if known := passed(remoteAddr, tries); known < tries {
		t.Errorf("of a known source %d of %d came through", known, tries)
	}
}
