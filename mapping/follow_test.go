package mapping

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// followed waits until the kernel has counted packets of a flow to a port, and gives it.
func (l *lab) followed(k *Kernel, port uint16, packets uint64) CountedFlow {
	l.t.Helper()
	var all []CountedFlow
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		l.in(l.box, func() (err error) { all, err = k.Flows(); return err })
		for _, f := range all {
			if f.Dst.Port() == port && f.Packets == packets {
				return f
			}
		}
	}
	l.t.Fatalf("no flow to port %d has %d packets: %+v", port, packets, all)
	return CountedFlow{}
}

// followSpec has a list on the way in and one on the way out of the DMZ.
func followSpec() Spec {
	spec := plainSpec()
	spec.Groups = []AccessGroup{
		{Link: linkOut, Direction: "in", Name: "incoming", Rules: []Rule{
			{Permit: true, Proto: "udp", DstLo: 53, DstHi: 54, Log: true, ID: "permit"}, {Proto: "ip", Dst: hostPrefix(addr(dmzHost)), Log: true, ID: "deny"}, {Proto: "ip", Quiet: true},
		}},
		{Link: linkDMZ, Direction: "out", Name: "outgoing", Rules: []Rule{{Proto: "udp", DstLo: 54, DstHi: 54, Log: true, ID: "out"}, {Permit: true, Proto: "ip"}}},
	}
	return spec
}

// The kernel counts each packet of a flow on which an entry that says log has decided, of every protocol, on the way in and out, and says which entry that is; it goes on when
// the rules change, and forgotten flows begin anew.
func TestFollow(t *testing.T) {
	l := newLab(t)
	spec := followSpec()
	k := l.apply(spec)
	if !canLog() {
		t.Skip("this kernel has no nfnetlink_log")
	}
	l.run(l.outside, "ip", "route", "replace", "default", "via", boxOut)
	from, dns := l.packetConn(l.outside, remoteAddr+":4000"), l.packetConn(l.dmz, dmzHost+":53")
	send := func(to string, n int) {
		t.Helper()
		for range n {
			if _, err := from.WriteToUDPAddrPort([]byte("x"), netip.MustParseAddrPort(to)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, ok := sends(t, from, dns, dmzHost+":53"); !ok {
		t.Error("a followed flow does not pass that is permitted")
	}
	send(dmzHost+":55", 7)
	send(dmzHost+":54", 3)
	tryPing(l.outside, dmzHost)
	l.in(l.outside, func() error {
		raw, err := net.Dial("ip4:99", dmzHost) // an experiment's number (RFC 3692)
		if err != nil {
			return err
		}
		defer raw.Close()
		for range 2 {
			if _, err := raw.Write([]byte("x")); err != nil {
				return err
			}
		}
		return nil
	})
	remote := netip.MustParseAddr(remoteAddr)
	denied := Flow{Link: linkOut, Direction: "in", Proto: "udp", Src: netip.AddrPortFrom(remote, 4000), Dst: netip.MustParseAddrPort(dmzHost + ":55")}
	out := Flow{Link: linkDMZ, Direction: "out", Proto: "udp", Src: netip.AddrPortFrom(remote, 4000), Dst: netip.MustParseAddrPort(dmzHost + ":54")}
	permitted := Flow{Link: linkOut, Direction: "in", Permitted: true, Proto: "udp", Src: netip.AddrPortFrom(remote, 4000), Dst: netip.MustParseAddrPort(dmzHost + ":53")}
	at := netip.AddrPortFrom(addr(dmzHost), 0)
	ping := Flow{Link: linkOut, Direction: "in", Proto: "icmp", Src: netip.AddrPortFrom(remote, 0), Dst: at, ICMPType: 8}
	other := Flow{Link: linkOut, Direction: "in", Proto: "99", Src: netip.AddrPortFrom(remote, 0), Dst: at}
	l.followed(k, 55, 7)
	l.in(l.box, func() error {
		all, err := k.Flows()
		for f, want := range map[Flow]struct {
			id      string
			packets uint64
			in, out string
		}{
			denied: {"deny", 7, linkOut, linkDMZ}, out: {"out", 3, linkOut, linkDMZ}, permitted: {"permit", 1, linkOut, linkDMZ}, ping: {"deny", 1, linkOut, linkDMZ}, other: {"deny", 2, linkOut, linkDMZ},
		} {
			i := slices.IndexFunc(all, func(x CountedFlow) bool { return x.Flow == f })
			if i < 0 || all[i].Packets != want.packets {
				t.Errorf("%+v: %d packets are wanted: %+v", f, want.packets, all)
			}
			if id := k.Entry(f); id != want.id {
				t.Errorf("%+v: entry %q has decided on it, not %q", f, id, want.id)
			}
			if in, out := f.Way(); in != want.in || out != want.out {
				t.Errorf("%+v: it comes over %s and goes over %s", f, in, out)
			}
		}
		return err
	})
	// A change that leaves the entries.
	spec.Groups[0].Rules = append([]Rule{{Permit: true, Proto: "tcp", DstLo: 80, DstHi: 80}}, spec.Groups[0].Rules...)
	l.update(k, spec)
	send(dmzHost+":55", 2)
	f := l.followed(k, 55, 9)
	var hits map[string]Hit
	l.in(l.box, func() (err error) { hits, err = k.Hits(); return err })
	if hits["deny"].Packets != 9+1+2 {
		t.Errorf("the entry has %d hits", hits["deny"].Packets)
	}
	l.in(l.box, func() error { return k.Forget([]CountedFlow{f}) })
	l.in(l.box, func() error { return k.Forget([]CountedFlow{f}) }) // gone already
	send(dmzHost+":55", 1)
	l.followed(k, 55, 1)
	l.in(l.box, func() error { // what it forgets is no change of the rules
		if k.gen == 0 {
			t.Error("the rules are held to be touched by others")
		}
		return nil
	})
	// Without entries that say log nothing is followed.
	spec.Groups = nil
	l.update(k, spec)
	if sets := l.run(l.box, "nft", "list", "sets", "table", "ip", TableFilter); strings.Contains(sets, "_log_") {
		t.Errorf("sets stay that no entry needs:\n%s", sets)
	}
}

// A flood of flows fills the set and no more: the rest is counted, told once a second at most, and dropped all the same.
func TestFollowFull(t *testing.T) {
	l := newLab(t)
	spec := followSpec()
	spec.DenyFlows = 10
	k := l.apply(spec)
	if !canLog() {
		t.Skip("this kernel has no nfnetlink_log")
	}
	l.run(l.outside, "ip", "route", "replace", "default", "via", boxOut)
	var mu sync.Mutex
	first, full := 0, 0
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- try(l.box, func() error {
			return k.Denials(ctx, func(d Denial) {
				mu.Lock()
				defer mu.Unlock()
				if d.Full && !d.Permitted {
					full++
				} else if d.Logged {
					first++
				}
			})
		})
	}()
	from, at := l.packetConn(l.outside, remoteAddr+":4000"), l.packetConn(l.dmz, dmzHost+":7000")
	begin := time.Now()
	const flows = 5000
	for n := range flows {
		if _, err := from.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(addr(dmzHost), uint16(7000+n))); err != nil {
			t.Fatal(err)
		}
	}
	var all []CountedFlow
	var hits map[string]Hit
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end) && hits[IDDenyFull].Packets < flows-10; time.Sleep(20 * time.Millisecond) {
		l.in(l.box, func() (err error) {
			if all, err = k.Flows(); err == nil {
				hits, err = k.Hits()
			}
			return err
		})
	}
	if len(all) != 10 || hits[IDDenyFull].Packets != flows-10 || hits["deny"].Packets != flows {
		t.Errorf("%d flows are followed, %d packets not, %d were denied", len(all), hits[IDDenyFull].Packets, hits["deny"].Packets)
	}
	// A larger set takes more, and what was counted beside it stays counted.
	spec.DenyFlows = 20
	l.update(k, spec)
	for n := range 30 {
		_, _ = from.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(addr(dmzHost), uint16(7000+n)))
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end) && hits[IDDenyFull].Packets < flows; time.Sleep(20 * time.Millisecond) {
		l.in(l.box, func() (err error) {
			if all, err = k.Flows(); err == nil {
				hits, err = k.Hits()
			}
			return err
		})
	}
	if len(all) != 20 || hits[IDDenyFull].Packets != flows {
		t.Errorf("after the change %d flows are followed, %d packets not", len(all), hits[IDDenyFull].Packets)
	}
	_ = at.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := at.Read(make([]byte, 10)); err == nil {
		t.Errorf("%d bytes came through", n)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	seconds := int(time.Since(begin)/time.Second) + 2
	if first > 30 || full > seconds {
		t.Errorf("%d first packets and %d full sets are told in %d s", first, full, seconds)
	}
}

// A long list, which is looked up and not walked, follows the flows of its entries too.
func TestFollowLongList(t *testing.T) {
	l := newLab(t)
	spec := plainSpec()
	g := AccessGroup{Link: linkOut, Direction: "in", Name: "long"}
	for n := range 100 {
		g.Rules = append(g.Rules, Rule{Proto: "udp", Dst: hostPrefix(addr(dmzHost)), DstLo: uint16(7000 + n), DstHi: uint16(7000 + n), Log: n%2 == 0, Quiet: n%2 == 1, ID: fmt.Sprint("entry ", n)})
	}
	spec.Groups = []AccessGroup{g}
	k := l.apply(spec)
	if !canLog() {
		t.Skip("this kernel has no nfnetlink_log")
	}
	l.run(l.outside, "ip", "route", "replace", "default", "via", boxOut)
	from := l.packetConn(l.outside, remoteAddr+":4000")
	for _, port := range []uint16{7041, 7042, 7042} {
		if _, err := from.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(addr(dmzHost), port)); err != nil {
			t.Fatal(err)
		}
	}
	f := l.followed(k, 7042, 2)
	if id := k.Entry(f.Flow); id != "entry 42" {
		t.Errorf("%q has decided on it", id)
	}
	l.in(l.box, func() error {
		all, err := k.Flows()
		if len(all) != 1 {
			t.Errorf("followed are %+v", all)
		}
		return err
	})
}

// No key makes a flow of another kind, or panics.
func FuzzFlowKey(f *testing.F) {
	f.Add(0, []byte{1, 2, 3, 4, 5, 6, 7, 8, 0, 53, 0, 0, 0, 54, 0, 0})
	f.Fuzz(func(t *testing.T, kind int, key []byte) {
		k := flowKinds[uint(kind)%uint(len(flowKinds))]
		x, ok := flowSet{AccessGroup{Link: "a", Direction: "in"}, true, k}.flow(key)
		if ok && (k.name != "" && x.Proto != k.name || !x.Src.Addr().Is4() || x.Link != "a" || !x.Permitted) {
			t.Errorf("%+v", x)
		}
	})
}
