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
	if !r.Groups[0].Rules[0].Log || r.Groups[0].Rules[1].Log {
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
