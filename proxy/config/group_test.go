package config

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

const edge = `interface e
 nameif outside
 security-level 0
 ip address 209.165.200.225 255.255.255.224
`

// Ranges, groups, neq and entries that are inactive come to the rules that they mean.
func TestRulesOfGroups(t *testing.T) {
	c, found := Load("f", []byte(edge+`object network r
 range 10.0.0.5 10.0.0.8
object-group network g
 network-object host 198.51.100.7
 group-object h
object-group network h
 network-object 203.0.113.0 255.255.255.0
 network-object host 198.51.100.7
access-list a extended permit tcp object-group g object r neq 80
access-list a extended permit ip any any inactive
access-list a line 1 extended deny udp any any log
access-group a in interface outside
`))
	if found.HasErrors() {
		t.Fatal(found.Error())
	}
	r, _ := c.Resolve()
	var got []string
	for _, x := range r.Groups[0].Rules {
		got = append(got, strings.TrimSpace(x.Proto+" "+x.Src.String()+" "+x.Dst.String()+x.DstPorts.String()))
	}
	want := []string{"udp invalid Prefix invalid Prefix"}
	for _, src := range []string{"198.51.100.7/32", "203.0.113.0/24"} {
		for _, dst := range []string{"10.0.0.5/32", "10.0.0.6/31", "10.0.0.8/32"} {
			want = append(want, "tcp "+src+" "+dst+" range 1 79", "tcp "+src+" "+dst+" range 81 65535")
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the rules are\n%s", strings.Join(got, "\n"))
	}
	if !r.Groups[0].Rules[0].Log.Flows || r.Groups[0].Rules[1].Log.Flows {
		t.Error("log is at the wrong entry")
	}
	again, found := Load("f", []byte(c.String()))
	if found.HasErrors() || again.String() != c.String() {
		t.Errorf("printed it is another:\n%s", c)
	}
}

// The prefixes of a range hold its addresses and no others.
func TestRangePrefixes(t *testing.T) {
	for text, n := range map[string]int{"0.0.0.0 255.255.255.255": 1, "10.0.0.0 10.0.0.255": 1, "10.0.0.1 10.0.0.1": 1, "10.0.0.1 10.0.0.254": 14, "0.0.0.1 255.255.255.254": 62, "255.255.255.255 255.255.255.255": 1} {
		f := strings.Fields(text)
		first, last := netip.MustParseAddr(f[0]), netip.MustParseAddr(f[1])
		got := rangePrefixes(first, last)
		if len(got) != n {
			t.Errorf("%s: %d prefixes", text, len(got))
		}
		next := first
		for _, p := range got {
			if p.Masked() != p || p.Addr() != next {
				t.Errorf("%s: %v begins not at %v", text, p, next)
			}
			b := p.Addr().As4()
			for i := p.Bits(); i < 32; i++ {
				b[i/8] |= 0x80 >> (i % 8)
			}
			end := netip.AddrFrom4(b)
			if end == last {
				next = netip.Addr{}
				continue
			}
			next = end.Next()
		}
		if next.IsValid() {
			t.Errorf("%s: ends before %v", text, next)
		}
	}
}

func TestTooManyRules(t *testing.T) {
	var b strings.Builder
	b.WriteString(edge + "object-group network g\n")
	for i := range 250 {
		b.WriteString(" network-object host 10.0.1." + strings.TrimSpace(netip.AddrFrom4([4]byte{0, 0, 0, byte(i)}).String()[6:]) + "\n")
	}
	b.WriteString("access-list a extended permit tcp object-group g object-group g neq 1000\naccess-group a in interface outside\n")
	if _, found := Load("f", []byte(b.String())); !found.HasErrors() || !strings.Contains(found.Error(), "more than 50000 rules") {
		t.Errorf("got %v", found)
	}
}

func TestGroupInItself(t *testing.T) {
	_, found := Load("f", []byte(edge+"object-group network a\n group-object b\nobject-group network b\n group-object a\n"))
	if !found.HasErrors() || !strings.Contains(found.Error(), `group "a" is in itself`) {
		t.Errorf("got %v", found)
	}
	_, found = Load("f", []byte(edge+"object-group network a\n group-object none\naccess-list x extended permit ip object-group gone any\n"))
	for _, want := range []string{`"none"`, `"gone"`} {
		if !strings.Contains(found.Error(), want) {
			t.Errorf("no %s in %v", want, found)
		}
	}
}

// Groups of services come to the rules that they mean, and a global list stands behind that of an interface.
func TestRulesOfServices(t *testing.T) {
	c, found := Load("f", []byte(edge+`interface i
 nameif inside
 security-level 100
 ip address 10.1.1.1 255.255.255.0
object-group service web tcp
 port-object eq 80
 port-object range 8080 8089
 group-object more
object-group service more tcp
 port-object eq 443
 port-object eq 80
object-group service both tcp-udp
 port-object eq 53
object-group service all
 service-object tcp-udp source eq 5000 destination range 6000 6001
 service-object icmp
 group-object rest
object-group service rest
 service-object udp
access-list a extended permit tcp host 192.0.2.1 eq 7 any object-group web log
access-list a extended deny udp any any object-group both
access-list g extended permit object-group all any host 10.0.0.9
access-group a in interface outside
access-group g global
`))
	if found.HasErrors() {
		t.Fatal(found.Error())
	}
	r, _ := c.Resolve()
	text := func(g ResolvedGroup) (out []string) {
		for _, x := range g.Rules {
			word := "deny "
			if x.Permit {
				word = "permit "
			}
			out = append(out, word+x.Proto+x.SrcPorts.String()+" to"+x.DstPorts.String())
		}
		return out
	}
	global := []string{
		"permit tcp eq 5000 to range 6000 6001", "permit udp eq 5000 to range 6000 6001", "permit icmp to", "permit udp to",
	}
	own := []string{"permit tcp eq 7 to eq 80", "permit tcp eq 7 to range 8080 8089", "permit tcp eq 7 to eq 443", "deny udp to eq 53"}
	if len(r.Groups) != 2 || r.Groups[0].Interface.Nameif != "outside" || r.Groups[1].Interface.Nameif != "inside" {
		t.Fatalf("groups: %+v", r.Groups)
	}
	if got := text(r.Groups[0]); !slices.Equal(got, append(own, global...)) {
		t.Errorf("outside: %q", got)
	}
	if got := text(r.Groups[1]); !slices.Equal(got, global) || r.Groups[1].Global != "g" {
		t.Errorf("inside: %q", got)
	}
	again, found := Load("f", []byte(c.String()))
	if found.HasErrors() || again.String() != c.String() {
		t.Errorf("printed it is another:\n%s", c)
	}
}

func TestMistakenServices(t *testing.T) {
	for text, want := range map[string]string{
		"object-group service s tcp\n service-object tcp destination eq 80":                              "no such member",
		"object-group service s\n port-object eq 80":                                                     "no such member",
		"object-group service s tcp\nobject-group service s udp":                                         "of another kind",
		"object-group service s tcp\n group-object s":                                                    "in itself",
		"object-group service s tcp\n group-object t":                                                    "object-group service",
		"object-group service s tcp\n group-object t\nobject-group service t udp\n port-object eq 1":     "of another kind",
		"object-group service s\nobject-group network s":                                                 "two object groups s",
		"object-group service s udp\n port-object eq 1\naccess-list a permit tcp any any object-group s": "of udp ports",
		"object-group service s udp\n port-object eq 1\naccess-list a permit object-group s any any":     "says no protocol",
		"object-group service s\n service-object udp\naccess-list a permit tcp any any object-group s":   "of protocols",
		"access-list a permit object-group s any any":                                                    "object-group service",
		"access-list a permit tcp any any object-group s":                                                "object-group service",
		"object-group service s tcp\n port-object range 9 8":                                             "ends before it begins",
		"access-group nothing global":                                                                    "access-list",
		"object-group service s tcp\n port-object eq 80\n no port-object eq 81":                          "no such",
	} {
		_, found := Load("f", []byte(text+"\n"))
		if !found.HasErrors() || !strings.Contains(found.Error(), want) {
			t.Errorf("%q gives\n%s", text, found.Error())
		}
	}
}

// A static translation of several hosts gives each its own address, in order.
func TestStaticOfNetworks(t *testing.T) {
	const two = edge + `interface i
 nameif inside
 security-level 100
 ip address 10.1.1.1 255.255.255.0
`
	for text, want := range map[string][]string{
		"object network a\n subnet 10.2.0.8 255.255.255.252\n nat (inside,outside) static 209.165.200.240\n": {
			"10.2.0.8 209.165.200.240", "10.2.0.9 209.165.200.241", "10.2.0.10 209.165.200.242", "10.2.0.11 209.165.200.243",
		},
		"object network m\n range 209.165.200.240 209.165.200.242\nobject network a\n range 10.2.0.254 10.2.1.0\n nat (inside,outside) static m\n": {
			"10.2.0.254 209.165.200.240", "10.2.0.255 209.165.200.241", "10.2.1.0 209.165.200.242",
		},
		"object network m\n range 209.165.200.240 209.165.200.240\nobject network a\n host 10.2.0.1\n nat (inside,outside) static m service tcp 1 2\n": {"10.2.0.1 209.165.200.240"},
	} {
		c, found := Load("f", []byte(two+text))
		if found.HasErrors() {
			t.Errorf("%s: %s", text, found.Error())
			continue
		}
		r, _ := c.Resolve()
		var got []string
		for _, s := range r.Statics {
			got = append(got, s.RealAddr.String()+" "+s.MappedAddr.String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q", text, got)
		}
	}
	for text, want := range map[string]string{
		"object network a\n subnet 10.2.0.0 255.255.254.0\n nat (inside,outside) static 209.165.200.240\n":                                                                                   "has 512 addresses",
		"object network a\n subnet 10.2.0.0 255.255.255.252\n nat (inside,outside) static 209.165.200.240 service tcp 1 2\n":                                                                 "more than a host",
		"object network m\n range 209.165.200.240 209.165.200.242\nobject network a\n subnet 10.2.0.0 255.255.255.252\n nat (inside,outside) static m\n":                                     "has 4 addresses, the mapped object",
		"object network a\n subnet 10.2.0.0 255.255.255.252\n nat (inside,outside) static 209.165.200.224\n":                                                                                 "is that of interface e itself",
		"object network a\n subnet 10.2.0.0 255.255.255.252\n nat (inside,outside) static 209.165.200.240\nobject network b\n host 10.3.0.1\n nat (inside,outside) static 209.165.200.242\n": "used twice",
		"object network a\n subnet 0.0.0.0 0.0.0.0\n nat (inside,outside) static 209.165.200.240\n":                                                                                          "has 4294967296 addresses",
		"object network m\n range 209.165.200.240 209.165.200.242\nobject network a\n host 10.2.0.1\n nat (inside,outside) dynamic m\n":                                                      "is not one host",
		"object network m\nobject network a\n host 10.2.0.1\n nat (inside,outside) static m\n":                                                                                               "is not one host",
	} {
		_, found := Load("f", []byte(two+text))
		if !found.HasErrors() || !strings.Contains(found.Error(), want) {
			t.Errorf("%s gives\n%s", text, found.Error())
		}
	}
}
