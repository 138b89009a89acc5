package mapping

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// firstMatch is what a list means: the reference.
func firstMatch(rules []Rule, p Packet) int {
	for n, r := range rules {
		if (r.Proto == "ip" || r.Proto == p.Proto) && holds(r.Src, p.Src) && holds(r.Dst, p.Dst) &&
			within(p.SrcPort, r.SrcLo, r.SrcHi) && within(p.DstPort, r.DstLo, r.DstHi) {
			return n
		}
	}
	return -1
}

// someRules makes a list of rules that overlap each other often.
func someRules(rnd *rand.Rand, n, ranges int) []Rule {
	nets := func() netip.Prefix {
		bits := []int{0, 8, 24, 24, 30, 32, 32, 32}[rnd.IntN(8)]
		if bits == 0 {
			return netip.Prefix{}
		}
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(rnd.IntN(3)), byte(rnd.IntN(16))}), bits).Masked()
	}
	spans := []PortSpan{{}, {0, 65535}, {1024, 65535}}
	for range ranges {
		lo := uint16(rnd.IntN(40))
		spans = append(spans, PortSpan{lo, lo + 1 + uint16(rnd.IntN(30))})
	}
	ports := func() PortSpan {
		if rnd.IntN(2) == 0 {
			p := uint16(1 + rnd.IntN(40))
			return PortSpan{p, p}
		}
		return spans[rnd.IntN(len(spans))]
	}
	var out []Rule
	for range n {
		r := Rule{Permit: rnd.IntN(2) == 0, Proto: []string{"ip", "tcp", "udp", "icmp"}[rnd.IntN(4)], Src: nets(), Dst: nets()}
		if r.Proto == "tcp" || r.Proto == "udp" {
			s, d := PortSpan{}, ports()
			if rnd.IntN(3) == 0 {
				s = ports()
			}
			r.SrcLo, r.SrcHi, r.DstLo, r.DstHi = s.Lo, s.Hi, d.Lo, d.Hi
		}
		out = append(out, r)
	}
	return out
}

func somePacket(rnd *rand.Rand) Packet {
	a := func() netip.Addr {
		return netip.AddrFrom4([4]byte{10, byte(rnd.IntN(8) / 7), byte(rnd.IntN(3)), byte(rnd.IntN(18))})
	}
	p := Packet{Proto: []string{"tcp", "udp", "icmp"}[rnd.IntN(3)], Src: a(), Dst: a()}
	if p.Proto != "icmp" {
		p.SrcPort, p.DstPort = uint16(1+rnd.IntN(45)), uint16(1+rnd.IntN(45))
	}
	return p
}

// Whatever overlaps what, the layers give the list's first match, so that verdicts and hit counts are those of the list.
func TestLayersGiveTheFirstMatch(t *testing.T) {
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		rules := someRules(rnd, 1+rnd.IntN(300), []int{0, 5, 60}[seed%3])
		layers := arrange(rules)
		for range 3000 {
			p := somePacket(rnd)
			if got, want := decide(layers, p), firstMatch(rules, p); got != want {
				t.Fatalf("seed %d: %+v is decided by %d, want %d (%+v)", seed, p, got, want, rules[max(want, 0)])
			}
		}
	}
}

// What is written as a rule of its own must match what the layer matches.
func TestLayersMembersAreRules(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		rules := someRules(rnd, 100, []int{5, 60}[seed%2])
		for _, l := range arrange(rules) {
			var written []Rule
			for _, m := range l.members {
				written = append(written, l.rule(m, rules[m.rule]))
			}
			for range 500 {
				p := somePacket(rnd)
				got := firstMatch(written, p)
				if want, ok := l.find(p); ok != (got >= 0) || ok && l.members[got].rule != want {
					t.Fatalf("seed %d: %+v: layer %+v finds %d, its rules %d", seed, p, l.class, want, got)
				}
			}
		}
	}
}

func TestBlocksCoverARange(t *testing.T) {
	for _, s := range []PortSpan{{0, 65535}, {1, 65535}, {1024, 65535}, {5060, 5061}, {16384, 32767}, {1, 65534}, {7, 7}, {65535, 65535}, {0, 0}} {
		ports, sizes := blocks(s)
		next := uint32(s.Lo)
		for i, p := range ports {
			b := block(p, sizes[i])
			if uint32(b.Lo) != next || p&^mask16(sizes[i]) != 0 {
				t.Fatalf("%v: block %v does not follow %d", s, b, next)
			}
			next = uint32(b.Hi) + 1
		}
		if next != uint32(s.Hi)+1 || len(ports) > 30 {
			t.Errorf("%v: %d blocks end at %d", s, len(ports), next)
		}
	}
}

// Ten thousand lines as they are written come to a few layers, whatever the ports are, and quickly.
func TestLongListsHaveFewLayers(t *testing.T) {
	hosts := func(n int) netip.Prefix {
		return hostPrefix(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}))
	}
	const lines = 10000
	for _, c := range []struct {
		name string
		rule func(n int) Rule
		most int
	}{
		{"hosts and ports", func(n int) Rule {
			return Rule{Permit: true, Proto: "tcp", Dst: hosts(n / 3), DstLo: uint16(n%3 + 1), DstHi: uint16(n%3 + 1)}
		}, 1},
		{"permits and denials in turn", func(n int) Rule { return Rule{Permit: n%2 == 0, Proto: "udp", Src: hosts(n)} }, 1},
		{"an exception before each network", func(n int) Rule {
			if n%2 == 0 {
				return Rule{Proto: "tcp", Src: hosts(n << 8)}
			}
			return Rule{Permit: true, Proto: "tcp", Src: netip.PrefixFrom(hosts(n<<8).Addr(), 24).Masked()}
		}, 2},
		{"as many ranges of ports as lines", func(n int) Rule {
			return Rule{Permit: true, Proto: "udp", Dst: hosts(n), DstLo: uint16(n + 1), DstHi: uint16(n + 100)}
		}, 17},
	} {
		rules := make([]Rule, lines)
		for n := range rules {
			rules[n] = c.rule(n)
		}
		start := time.Now()
		layers := arrange(append(rules, Rule{Permit: true, Proto: "icmp"}))
		t.Logf("%s: %d layers in %v", c.name, len(layers), time.Since(start))
		if len(layers) > c.most+1 {
			t.Errorf("%s: %d layers, want at most %d", c.name, len(layers), c.most+1)
		}
	}
}

// A list that cannot be arranged, as each rule overlaps all before it, takes no square of its length.
func TestOverlappingListsStayBounded(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	var rules []Rule
	for range 10000 {
		a := func() netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(rnd.IntN(2)), byte(rnd.IntN(256)), byte(rnd.IntN(256))}), rnd.IntN(33)).Masked()
		}
		rules = append(rules, Rule{Permit: rnd.IntN(2) == 0, Proto: "ip", Src: a(), Dst: a()})
	}
	layers := arrange(rules)
	for range 300 {
		p := Packet{Proto: "udp", Src: netip.AddrFrom4([4]byte{10, 0, byte(rnd.IntN(256)), 1}), Dst: netip.AddrFrom4([4]byte{10, 1, byte(rnd.IntN(256)), 1})}
		if got, want := decide(layers, p), firstMatch(rules, p); got != want {
			t.Fatalf("%+v is decided by %d, want %d", p, got, want)
		}
	}
	t.Logf("%d layers", len(layers))
}
