package ring

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"imeproxy/ucime/learn"
)

// askSync makes an empty push/pull and says whether it was answered.
func askSync(t *testing.T, c net.Conn) bool {
	t.Helper()
	head := []byte("\x06\x83\xa5Nodes\x00\xacUserStateLen\x00\xa4Join\xc2")
	if _, err := c.Write(head); err != nil {
		return false
	}
	if err := c.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var first [1]byte
	_, err := io.ReadFull(c, first[:])
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("neither an answer nor an end")
	}
	return err == nil && first[0] == mlPushPull
}

// holdSyncs opens full syncs with a certificate and says nothing on them.
func holdSyncs(t *testing.T, b *bench, boot *Ring, name string, n int) {
	t.Helper()
	w := &wire{n: &node{id: b.a.identity(t, false, peer("%s", name)), now: boot.cfg.Now}}
	for range n {
		c, _, err := w.dial(t.Context(), b.boot, alpnSync, learn.PeerID{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
}

// Two members open all the full syncs that they can and say nothing: others are served.
func TestSyncsOfTwoKeepNobodyOut(t *testing.T) {
	b, boot := newBench(t)
	v := newLeft(t, b, boot, "honest")
	holdSyncs(t, b, boot, "greedy", maxSyncs)
	holdSyncs(t, b, boot, "greedy too", maxSyncs)
	if !askSync(t, v.dial(t, b.boot, alpnSync)) {
		t.Error("a third member finds no place for a full sync")
	}
}

// The same with as many certificates as there are places: the oldest gives way.
func TestSyncsOfManyGiveWay(t *testing.T) {
	b, boot := newBench(t)
	v := newLeft(t, b, boot, "honest")
	for i := range maxSyncs/maxSyncsOfMember + 2 {
		holdSyncs(t, b, boot, peer("greedy %d", i).String(), maxSyncsOfMember)
	}
	if !askSync(t, v.dial(t, b.boot, alpnSync)) {
		t.Error("a member finds no place for a full sync")
	}
	boot.w.mu.Lock()
	defer boot.w.mu.Unlock()
	open := 0
	for c := range boot.w.open {
		if c.use.alpn == alpnSync {
			open++
		}
	}
	if open > maxSyncs {
		t.Errorf("%d full syncs at once, want %d at most", open, maxSyncs)
	}
}

// A member that has no place in the ring itself keeps no stream that nobody takes.
func TestSyncBeforeTheMembership(t *testing.T) {
	b, _ := newBench(t)
	outside := b.start(b.a.identity(t, false, peer("outside")), func(c *Config) { c.Bootstraps = []string{"127.0.0.1:1"} }) // nobody is there to admit it
	w := &wire{n: &node{id: b.a.identity(t, false, peer("m")), now: outside.cfg.Now}}
	c, _, err := w.dial(t.Context(), outside.Addr().String(), alpnSync, learn.PeerID{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if askSync(t, c) {
		t.Error("a stream was answered")
	}
}

func TestWhoGivesWay(t *testing.T) {
	type end struct {
		name, network string
		number        uint64
	}
	for what, x := range map[string]struct {
		open []end
		want uint64
	}{
		"the busiest network":               {[]end{{"a", "192.0.2.0/24", 1}, {"b", "198.51.100.0/24", 2}, {"c", "198.51.100.0/24", 3}, {"d", "203.0.113.0/24", 4}}, 2},
		"its busiest member":                {[]end{{"a", "192.0.2.0/24", 1}, {"b", "192.0.2.0/24", 2}, {"b", "192.0.2.0/24", 3}, {"c", "192.0.2.0/24", 4}}, 2},
		"the oldest where all have as many": {[]end{{"a", "192.0.2.0/24", 4}, {"b", "198.51.100.0/24", 2}, {"c", "203.0.113.0/24", 3}, {"d", "2001:db8::/48", 5}}, 2},
		"nobody while there is room":        {[]end{{"a", "192.0.2.0/24", 1}, {"a", "192.0.2.0/24", 2}, {"a", "192.0.2.0/24", 3}}, 0},
	} {
		w := &wire{open: map[*inbound]struct{}{}}
		for _, e := range x.open {
			w.open[&inbound{p: &party{name: peer("%s", e.name)}, network: netip.MustParsePrefix(e.network), number: e.number}] = struct{}{}
		}
		got := uint64(0)
		if v := w.tooMany(3, func(*inbound) bool { return true }); v != nil {
			got = v.number
		}
		if got != x.want {
			t.Errorf("%s: connection %d gives way, want %d", what, got, x.want)
		}
	}
}
