package ring

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestWhereAMemberCanBe(t *testing.T) {
	public, private, loop := "198.51.100.1", "10.1.2.3", "127.0.0.1"
	for _, x := range []struct {
		addr, own string
		ok        bool
	}{
		{"203.0.113.7", public, true},
		{"2001:db8::7", public, true},
		{"::ffff:203.0.113.7", public, true},
		{"203.0.113.7", private, true},
		{"10.9.9.9", private, true},
		{"fd00::1", private, true},
		{"127.0.0.1", loop, true},
		{"10.9.9.9", public, false},
		{"192.168.1.1", public, false},
		{"100.64.1.1", public, false},
		{"fd00::1", public, false},
		{"::ffff:10.9.9.9", public, false},
		{"127.0.0.1", public, false},
		{"127.0.0.1", private, false},
		{"::1", public, false},
		{"169.254.169.254", private, false},
		{"fe80::1", private, false},
		{"224.0.0.1", private, false},
		{"ff02::1", private, false},
		{"255.255.255.255", private, false},
		{"0.0.0.0", private, false},
		{"0.1.2.3", private, false},
		{"::", private, false},
		{public, public, false},
		{"::ffff:" + public, public, false},
	} {
		err := reachable(netip.MustParseAddr(x.addr), netip.MustParseAddr(x.own))
		if (err == nil) != x.ok || err != nil && !errors.Is(err, errNowhere) {
			t.Errorf("at %s as %s sees it: %v, want %t", x.addr, x.own, err, x.ok)
		}
	}
	if reachable(netip.Addr{}, netip.MustParseAddr(private)) == nil {
		t.Error("a member without an address")
	}
}

// A member signs what it likes about its address: nobody connects there unless a member can be there.
func TestMembersAtAddressesOfOthers(t *testing.T) {
	a := newAuthority(t)
	var c clock
	c.t = epoch
	make := func(name string, boot bool) *node {
		n, err := newNode(a.identity(t, boot, peer("%s", name)), "", 1, 10, c.now)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	boot, villain := make("boot", true), make("villain", false)
	boot.addr = netip.MustParseAddrPort("198.51.100.1:6084")
	if err := boot.govern(cheapSettings()); err != nil {
		t.Fatal(err)
	}
	villain.trustParty(boot.self)
	adm, err := boot.admit(villain.self.peers, villain.self.spki, c.now())
	if err != nil {
		t.Fatal(err)
	}
	for addr, ok := range map[string]bool{
		"203.0.113.66:6084": true, "127.0.0.1:6084": false, "192.168.0.1:443": false, "169.254.169.254:80": false, "198.51.100.1:443": false, "203.0.113.66:0": false,
	} {
		if err := villain.admitted(adm, netip.MustParseAddrPort(addr)); err != nil {
			t.Fatal(err)
		}
		if _, err := boot.judge(villain.descRaw, peer("somebody")); (err == nil) != ok {
			t.Errorf("a member at %s: %v, want taken %t", addr, err, ok)
		}
	}
}

// A claim leads to its own member, or nowhere: a member could point the validators of all others at anybody else.
func TestClaimsThatPointElsewhere(t *testing.T) {
	s := newSimulation(t, 3, 1, nil)
	v, reader, victim := &villain{s.nodes[0], s}, s.nodes[1], s.nodes[2]
	x := numbers(0, 1)[0]
	sec, err := derive(x, s.settings.Key, s.settings.HashCost)
	if err != nil {
		t.Fatal(err)
	}
	claim := func(address string) []Claim {
		t.Helper()
		s.clock.add(time.Second)
		raw := v.record(func(r *record) {
			r.hash = sec.hash
			if err := r.sealClaim(sec.seal, address); err != nil {
				t.Fatal(err)
			}
		})
		for _, n := range s.nodes {
			if c := v.store(n, raw); c[0] != CodeOK {
				t.Fatalf("%s: %v", address, c)
			}
		}
		return s.find(reader, x)
	}
	own := v.m.Addr.Addr().String()
	for _, address := range []string{
		victim.m.Addr.Addr().String() + ":8470", reader.m.Addr.Addr().String() + ":8470", "203.0.113.66:8470", "127.0.0.1:8470", "[::1]:8470",
		"victim.example:8470", own + ":22", own + ":0", own, "", "[fe80::1%eth0]:8470",
	} {
		before := reader.count.ClaimsRefused
		if got := claim(address); len(got) != 0 || reader.count.ClaimsRefused == before {
			t.Errorf("a claim that names %q leads to %+v", address, got)
		}
	}
	for _, address := range []string{own + ":8470", "[::ffff:" + own + "]:8470", own + ":1024"} {
		at := netip.MustParseAddrPort(address)
		if got := claim(address); len(got) != 1 || got[0].Address != netip.AddrPortFrom(at.Addr().Unmap(), at.Port()).String() {
			t.Errorf("a claim that names %s leads to %+v", address, got)
		}
	}
	// Its holders have it still when the claimant is gone: nobody knows where it is, and whoever has it to validate tries again later.
	reader.leave(v.m.Name)
	c, err := reader.lookup(context.Background(), x, s.caller(reader))
	if err != nil || len(c) != 1 || c[0].Address != "" {
		t.Errorf("a claim of a member that is gone: %+v, %v", c, err)
	}
}

func TestValidatorElsewhereIsRefused(t *testing.T) {
	a := newAuthority(t)
	for _, v := range []string{"192.0.2.1:8470", "validator.example:8470"} {
		r, err := New(Config{Identity: a.identity(t, false, peer("m")), Listen: "127.0.0.1:0", Bootstraps: []string{"127.0.0.1:1"}, Validator: v})
		if err == nil {
			r.Close()
			t.Fatalf("a validator at %s is told to others", v)
		}
		if !strings.Contains(err.Error(), v) || !strings.Contains(err.Error(), "127.0.0.1") {
			t.Errorf("error %v", err)
		}
	}
}
