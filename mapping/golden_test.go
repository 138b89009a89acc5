package mapping

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var counters = regexp.MustCompile(`counter packets \d+ bytes \d+`)

// normal takes out what packets change.
func normal(ruleset string) string { return counters.ReplaceAllString(ruleset, "counter") }

func goldenSpecs() map[string]Spec {
	net := netip.MustParsePrefix
	inside := Interface{Link: "ein", Name: "inside", Level: 100, Address: net("192.168.10.1/24")}
	outside := Interface{Link: "eout", Name: "outside", Level: 0, Address: net("209.165.200.225/27")}
	dmz := Interface{Link: "edmz", Name: "dmz", Level: 50, Address: net("10.1.1.1/24")}
	lab := labSpec()
	return map[string]Spec{
		"lab":   lab,
		"empty": {Interfaces: []Interface{inside, outside}},
		"levels": {
			Interfaces: []Interface{inside, outside, dmz, {Link: "edmz2.7@x", Level: 50}},
			Groups:     []AccessGroup{{Link: "ein", Direction: "out", Rules: []Rule{{Permit: true, Proto: "udp", DstLo: 53, DstHi: 53}}}},
		},
		"translations": {
			Interfaces: []Interface{inside, outside, dmz},
			Statics: []StaticNAT{
				{RealLink: "ein", MappedLink: "eout", Real: addr("192.168.10.5"), Mapped: addr("209.165.200.226")},
				{RealLink: "ein", MappedLink: "eout", Real: addr("192.168.10.6"), Mapped: addr("209.165.200.225"), RealPort: 53, MappedPort: 5353},
				{RealLink: "ein", MappedLink: "edmz", Real: addr("192.168.10.5"), Mapped: addr("192.168.10.5")},
			},
			Dynamics: []DynamicNAT{
				{RealLink: "ein", MappedLink: "eout", Real: net("0.0.0.0/0")},
				{RealLink: "ein", MappedLink: "eout", Real: net("192.168.10.128/25"), Mapped: addr("209.165.200.226")},
				{RealLink: "eout", MappedLink: "ein", Real: net("0.0.0.0/0")},
			},
		},
		"many-translations": {Interfaces: []Interface{inside, outside}, Statics: manyStatics()},
		"long-list": {
			Interfaces: []Interface{inside, outside},
			Groups:     []AccessGroup{{Link: "eout", Direction: "in", Name: "LONG", Rules: longList()}, {Link: "ein", Direction: "out", Name: "LONG", Rules: longList()}},
		},
		"steering": {
			Interfaces: []Interface{inside, outside},
			Media:      []MediaRange{{addr(mediaIn), 16384, 32767}, {addr(mediaOut), 20000, 20009}},
			Steering:   Steering{Workers: []uint16{40001, 40002}, Tapped: []string{"ein", "eout"}},
		},
		"steering-one": {
			Interfaces: []Interface{inside, outside},
			Media:      []MediaRange{{addr(mediaOut), 16384, 32767}},
			Steering:   Steering{Workers: []uint16{40001}},
		},
		"access-lists": {
			Interfaces: []Interface{inside, outside},
			Groups: []AccessGroup{
				{Link: "eout", Direction: "in", Rules: accessForms()},
				{Link: "eout", Direction: "out"},
				{Link: "ein", Direction: "out", Name: "told", Rules: []Rule{{Permit: true, Proto: "tcp", Log: true, ID: "an entry"}, {Proto: "ip", Log: true}}},
			},
			DenyFlows: 100,
			Open: []OpenPort{
				{Proto: "tcp", Port: 22, Src: net("203.0.113.0/24")},
				{Link: "eout", Proto: "udp", Port: 123, Addr: addr("209.165.200.225")},
				{Link: "ein", Proto: "tcp", Port: 80},
				{Link: "eout", Proto: "tcp", Port: 20000, PortHi: 39999, Src: net("198.51.100.7/32"), Addr: addr("209.165.200.225")},
			},
		},
	}
}

// manyStatics are enough of each kind to be maps.
func manyStatics() (out []StaticNAT) {
	at := func(net string, n int) netip.Addr { return addr(fmt.Sprintf("%s.%d", net, n)) }
	for n := 1; n <= 9; n++ {
		out = append(
			out,
			StaticNAT{RealLink: "ein", MappedLink: "eout", Real: at("192.168.10", 10+n), Mapped: at("203.0.113", 10+n)},
			StaticNAT{RealLink: "ein", MappedLink: "eout", Real: at("192.168.10", 30), RealPort: uint16(n), Mapped: at("209.165.200", 225), MappedPort: uint16(1000 + n), Proto: "tcp"},
			StaticNAT{RealLink: "ein", MappedLink: "eout", Real: at("192.168.10", 31), RealPort: uint16(n), Mapped: at("209.165.200", 225), MappedPort: uint16(2000 + n)},
		)
	}
	return append(out, StaticNAT{RealLink: "ein", MappedLink: "eout", Real: addr("192.168.10.40"), Mapped: addr("192.168.10.40")})
}

// longList is long enough to be arranged, with every form of an entry among its lines.
func longList() (rules []Rule) {
	at := func(n, bits int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 20, byte(n), 8}), bits).Masked()
	}
	for n := range 5 {
		rules = append(
			rules,
			Rule{Permit: true, Proto: "tcp", Dst: at(n, 32), DstLo: 5061, DstHi: 5061, ID: fmt.Sprint("host ", n)},
			Rule{Permit: n%2 == 0, Proto: "udp", Src: at(n, 24), Dst: at(n, 32), DstLo: 16384, DstHi: 32767, Log: n > 2},
			Rule{Permit: true, Proto: "udp", Src: at(n, 32), Dst: at(0, 16), SrcLo: uint16(n + 1), SrcHi: uint16(n + 1), DstLo: 53, DstHi: 53},
			Rule{Proto: "tcp", DstLo: uint16(n + 1), DstHi: uint16(n + 1)},
			Rule{Permit: true, Proto: "icmp", Src: at(n, 24)},
		)
	}
	return append(rules, accessForms()...)
}

// accessForms has every form of an access list entry.
func accessForms() []Rule {
	host, net := netip.MustParsePrefix("203.0.113.9/32"), netip.MustParsePrefix("10.20.0.0/14")
	return []Rule{
		{Permit: true, Proto: "ip", Src: host, Dst: net},
		{Proto: "ip", Dst: host},
		{Permit: true, Proto: "icmp", Src: netip.MustParsePrefix("0.0.0.0/0")},
		{Permit: true, Proto: "tcp", Src: net, SrcLo: 1024, SrcHi: 65535, Dst: host, DstLo: 443, DstHi: 443},
		{Proto: "tcp", DstHi: 1023, Quiet: true},
		{Permit: true, Proto: "udp", SrcLo: 53, SrcHi: 53, Log: true},
		{Permit: true, Proto: "udp", DstLo: 16384, DstHi: 32767},
		{Permit: true, Proto: "tcp", DstLo: 0, DstHi: 65535},
	}
}

func TestGoldenRules(t *testing.T) {
	if cannot != "" {
		t.Skip(cannot)
	}
	for name, spec := range goldenSpecs() {
		t.Run(name, func(t *testing.T) {
			if err := Validate(spec); err != nil {
				t.Fatal(err)
			}
			l := &lab{t: t, box: newNamespace(t)}
			for _, link := range spec.Steering.Tapped {
				l.run(l.box, "ip", "link", "add", link, "type", "veth", "peer", "name", "p"+link)
			}
			l.in(l.box, func() error { _, _, err := install(spec, nil); return err })
			got := normal(l.run(l.box, "nft", "list", "ruleset"))
			compareGolden(t, name+".golden", "rules", got)
			l.in(l.box, uninstall)
			if rest := l.run(l.box, "nft", "list", "ruleset"); rest != "" {
				t.Errorf("left after uninstall:\n%s", rest)
			}
			// What is printed can be read back: an operator may save and compare it.
			file := filepath.Join(t.TempDir(), "rules")
			if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
			l.run(l.box, "nft", "-c", "-f", file)
		})
	}
}

// What a program reads of the guide's configuration, and of the forms of access lists: nft's JSON, without the numbers that differ each time.
func TestGoldenJSON(t *testing.T) {
	if cannot != "" {
		t.Skip(cannot)
	}
	for _, name := range []string{"lab", "access-lists"} {
		t.Run(name, func(t *testing.T) {
			l := &lab{t: t, box: newNamespace(t)}
			l.in(l.box, func() error { _, _, err := install(goldenSpecs()[name], nil); return err })
			var all struct {
				Objects []map[string]map[string]any `json:"nftables"`
			}
			if err := json.Unmarshal([]byte(l.run(l.box, "nft", "-j", "list", "ruleset")), &all); err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, o := range all.Objects {
				if o["metainfo"] != nil { // nft's own version
					continue
				}
				for _, x := range o {
					delete(x, "handle")
				}
				line := json.NewEncoder(&got) // that ends it
				line.SetEscapeHTML(false)
				if err := line.Encode(o); err != nil {
					t.Fatal(err)
				}
			}
			compareGolden(t, name+".json", "objects, one a line", got.String())
		})
	}
}

// Ten thousand lines go through netlink in one transaction, and a packet meets a few rules.
func TestLongAccessList(t *testing.T) {
	if cannot != "" {
		t.Skip(cannot)
	}
	const lines = 10000
	spec := Spec{Interfaces: []Interface{{Link: "eout"}}}
	g := AccessGroup{Link: "eout", Direction: "in"}
	for n := range lines {
		g.Rules = append(g.Rules, Rule{Permit: n%7 != 0, Proto: "tcp", Dst: netip.MustParsePrefix(fmt.Sprintf("10.0.%d.%d/32", n/256, n%256)), DstLo: 80, DstHi: 80, ID: fmt.Sprint("line ", n)})
	}
	spec.Groups = []AccessGroup{g}
	l := &lab{t: t, box: newNamespace(t)}
	if err := try(l.box, func() error { _, _, err := install(spec, nil); return err }); errors.Is(err, unix.EMSGSIZE) && strings.Contains(err.Error(), "wmem_max") {
		t.Skip("this user namespace may not raise socket buffers")
	} else if err != nil {
		t.Fatal(err)
	}
	got := l.run(l.box, "nft", "list", "table", "ip", TableFilter)
	if n := strings.Count(got, "comment \"line "); n != lines {
		t.Errorf("%d elements, want %d", n, lines)
	}
	if !regexp.MustCompile(`10\.0\.39\.15 \. 80 counter packets 0 bytes 0 comment "line 9999" : accept`).MatchString(got) {
		t.Error("the last line is missing")
	}
	if rules := strings.Count(l.run(l.box, "nft", "list", "chain", "ip", TableFilter, "from_eout"), "\n"); rules > 20 {
		t.Errorf("a packet meets %d lines of rules", rules)
	}
}

func TestFeatureProbe(t *testing.T) {
	if cannot != "" {
		t.Skip(cannot)
	}
	l := &lab{t: t, box: newNamespace(t)}
	l.in(l.box, func() error {
		if missing := missingFeatures(); len(missing) > 0 {
			t.Errorf("this kernel runs the rules and is said to lack %q", missing)
		}
		return nil
	})
	if rest := l.run(l.box, "nft", "list", "ruleset"); rest != "" {
		t.Errorf("the probe leaves\n%s", rest)
	}
}

// compareGolden compares with a file of testdata, which -update writes. What names the text in the error.
func compareGolden(t *testing.T, file, what, got string) {
	t.Helper()
	golden := filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}
