package sdp_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	pion "github.com/pion/sdp/v3"

	"imeproxy/sipalg/sdp"
)

// golden is a pair "given this, expect exactly that" with its edit.
type golden struct {
	name          string
	edit          sdp.Edit
	given, expect string
}

// readGolden reads testdata/rewrite. Head lines: "addr: A", "media: port=N
// [addr=A] [proto=P] [rtcp=N]", "crypto: LINE" (of the last media), "sweep:
// OLD=NEW", "eol: lf", "final: none" (no line end at the end).
func readGolden(t testing.TB) []golden {
	t.Helper()
	files, err := filepath.Glob("testdata/rewrite/*.txt")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d golden files, %v", len(files), err)
	}
	var out []golden
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		head, rest, ok := strings.Cut(string(text), "-- given --\n")
		given, expect, ok2 := strings.Cut(rest, "-- expect --\n")
		if !ok || !ok2 {
			t.Fatalf("%s: no given or no expect", file)
		}
		g := golden{name: strings.TrimSuffix(filepath.Base(file), ".txt")}
		eol, final := "\r\n", true
		for line := range strings.Lines(head) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			switch key {
			case "eol":
				eol = "\n"
			case "final":
				final = false
			case "addr":
				g.edit.Addr = netip.MustParseAddr(value)
			case "media":
				g.edit.Media = append(g.edit.Media, goldenMedia(t, file, value))
			case "crypto":
				c, err := sdp.ParseCrypto(value)
				if err != nil {
					t.Fatalf("%s: %v", file, err)
				}
				m := &g.edit.Media[len(g.edit.Media)-1]
				m.Cryptos = append(m.Cryptos, c)
			case "sweep":
				old, repl, _ := strings.Cut(value, "=")
				g.edit.Sweep = func(line string) string {
					if strings.Contains(line, "X-remove-me") {
						return ""
					}
					return strings.ReplaceAll(line, old, repl)
				}
			default:
				if !strings.HasPrefix(line, "#") {
					t.Fatalf("%s: head line %q", file, line)
				}
			}
		}
		ends := func(s string) string {
			if !final {
				s = strings.TrimSuffix(s, "\n")
			}
			return strings.ReplaceAll(s, "\n", eol)
		}
		g.given, g.expect = ends(given), ends(expect)
		out = append(out, g)
	}
	return out
}

func goldenMedia(t testing.TB, file, text string) sdp.MediaEdit {
	t.Helper()
	var m sdp.MediaEdit
	for _, f := range strings.Fields(text) {
		key, value, _ := strings.Cut(f, "=")
		var err error
		switch key {
		case "port":
			m.Port, err = strconv.Atoi(value)
		case "rtcp":
			m.RTCP, err = strconv.Atoi(value)
		case "addr":
			m.Addr, err = netip.ParseAddr(value)
		case "proto":
			m.Proto = value
		default:
			t.Fatalf("%s: %q", file, f)
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	return m
}

func TestRewriteGolden(t *testing.T) {
	for _, g := range readGolden(t) {
		t.Run(g.name, func(t *testing.T) {
			s, err := sdp.Parse([]byte(g.given))
			if err != nil {
				t.Fatal(err)
			}
			if got := string(s.Bytes()); got != g.given {
				t.Fatalf("kept %q, given %q", got, g.given)
			}
			got, err := s.Rewrite(g.edit)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.SplitAfter(g.expect, "\n"), strings.SplitAfter(string(got), "\n")); diff != "" {
				t.Errorf("(-expected +got)\n%s", diff)
			}
			if again := string(s.Bytes()); again != g.given {
				t.Error("Rewrite changed the session")
			}
		})
	}
}

// What another library accepted before, it accepts afterwards, and it sees the
// same number of media.
func TestRewriteStaysReadableForOthers(t *testing.T) {
	read := 0
	for _, g := range readGolden(t) {
		var before, after pion.SessionDescription
		if before.UnmarshalString(g.given) != nil {
			continue
		}
		read++
		s, err := sdp.Parse([]byte(g.given))
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Rewrite(g.edit)
		if err != nil {
			t.Fatal(err)
		}
		if err := after.Unmarshal(out); err != nil {
			t.Errorf("%s: %v", g.name, err)
			continue
		}
		if len(before.MediaDescriptions) != len(after.MediaDescriptions) {
			t.Errorf("%s: %d media became %d", g.name, len(before.MediaDescriptions), len(after.MediaDescriptions))
		}
	}
	if read < 10 {
		t.Errorf("the other library read only %d", read)
	}
}

func TestRewriteRefuses(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.1")
	s, err := sdp.Parse([]byte("v=0\r\no=- 1 1 IN IP4 1.1.1.1\r\ns=x\r\nm=audio 1000 RTP/AVP 0\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	one := []sdp.MediaEdit{{Port: 2000}}
	sweep := func(kind, to string) func(string) string {
		return func(line string) string {
			if strings.HasPrefix(line, kind) {
				return to
			}
			return line
		}
	}
	for name, e := range map[string]sdp.Edit{
		"no address":           {Media: one},
		"too few media":        {Addr: addr},
		"too many media":       {Addr: addr, Media: []sdp.MediaEdit{{}, {}}},
		"negative port":        {Addr: addr, Media: []sdp.MediaEdit{{Port: -1}}},
		"large port":           {Addr: addr, Media: []sdp.MediaEdit{{Port: 65536}}},
		"large RTCP port":      {Addr: addr, Media: []sdp.MediaEdit{{Port: 1, RTCP: 65536}}},
		"transport with blank": {Addr: addr, Media: []sdp.MediaEdit{{Port: 1, Proto: "RTP/AVP 0\r\na=x"}}},
		"sweep adds a line":    {Addr: addr, Media: one, Sweep: sweep("s=", "s=x\r\na=y")},
		"sweep changes a type": {Addr: addr, Media: one, Sweep: sweep("s=", "a=x")},
		"sweep removes m=":     {Addr: addr, Media: one, Sweep: sweep("m=", "")},
		"sweep empties m=":     {Addr: addr, Media: one, Sweep: sweep("m=", "m=")},
		"sweep removes o=":     {Addr: addr, Media: one, Sweep: sweep("o=", "")},
	} {
		t.Run(name, func(t *testing.T) {
			if out, err := s.Rewrite(e); err == nil {
				t.Errorf("made %q", out)
			}
		})
	}
}

func TestRewritePortAtTheEnd(t *testing.T) {
	s, err := sdp.Parse([]byte("v=0\r\nc=IN IP4 1.1.1.1\r\nm=audio 1000 RTP/AVP 0\r\na=rtcp:1001\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Rewrite(sdp.Edit{Addr: netip.MustParseAddr("::ffff:192.0.2.1"), Media: []sdp.MediaEdit{{Port: 65535}}})
	if want := "v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 65535 RTP/AVP 0\r\na=rtcp:65535\r\n"; err != nil || string(out) != want {
		t.Errorf("got %q, %v", out, err)
	}
}
