package vap

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"imeproxy/ucime/learn"
)

// What the package makes, the other reading of the document reads.
func TestPackageEncodesAsTheDocumentSays(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	m := (&message{class: Request, method: Publish, id: [12]byte{1, 2, 3}}).putU32(attrClientHandle, 5).put(attrIdentity, identity{serviceNumbers, 3, serviceA}.bytes()).
		putU32(attrServiceVersion, 9).put(attrServiceData, []byte("<a/>!"))
	b, err := (&sealer{key: key, seq: 41}).seal(m)
	if err != nil {
		t.Fatal(err)
	}
	r, err := rawDecode(b)
	if err != nil || r.typ != 4 || r.id != m.id || !r.signed(key, 42) || r.u32(0x1002) != 5 || r.u32(0x100b) != 9 || string(r.attrs[0x100c]) != "<a/>!" ||
		!bytes.Equal(r.attrs[0x1007], rawIdentity(100, 3, rawService).value) {
		t.Errorf("%x, %v", b, err)
	}
}

func TestPatternsAndSets(t *testing.T) {
	for _, s := range []string{"", "+", "1408", "+1408X1", "+XXXX", "+1408902XXXX", "+1234567890123456", "+1 408", "+14Y", "+123456789012345X", "X"} {
		if p, err := ParsePattern(s); err == nil {
			t.Errorf("%q gives %q", s, p)
		}
	}
	for s, want := range map[string]uint64{"+14089021xxx": 1000, "+191937611xX": 100, "+14089523513": 1, "+X": 10} {
		p, err := ParsePattern(s)
		if err != nil || NewNumbers([]Pattern{p}, nil).Count() != want {
			t.Errorf("%q: %d, %v", s, NewNumbers([]Pattern{p}, nil).Count(), err)
		}
	}
	n := NewNumbers([]Pattern{"+0XX", "+014", "+14"}, []Pattern{"+01X", "+14"})
	all := slices.Collect(n.All())
	if n.Count() != 90 || len(all) != 90 || all[0] != "+000" || all[10] != "+020" || all[89] != "+099" {
		t.Errorf("%d: %v", n.Count(), all)
	}
}

// A set is what a naive one is.
func TestNumbersAgainstANaiveSet(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	draw := func() (list []Pattern) {
		for range rnd.IntN(9) {
			p := "+"
			for range 1 + rnd.IntN(3) {
				p += string(rune('0' + rnd.IntN(3)))
			}
			list = append(list, Pattern(p+strings.Repeat("X", rnd.IntN(3))))
		}
		return list
	}
	expand := func(set map[learn.Number]bool, list []Pattern, to bool) {
		for _, p := range list {
			all := []string{string(p)}
			for strings.Contains(all[0], "X") {
				var next []string
				for _, a := range all {
					for d := range 10 {
						next = append(next, strings.Replace(a, "X", string(rune('0'+d)), 1))
					}
				}
				all = next
			}
			for _, a := range all {
				if to {
					set[learn.Number(a)] = true
				} else {
					delete(set, learn.Number(a))
				}
			}
		}
	}
	for range 2000 {
		with, without := draw(), draw()
		naive := map[learn.Number]bool{}
		expand(naive, with, true)
		expand(naive, without, false)
		n := NewNumbers(with, without)
		all := slices.Collect(n.All())
		if n.Count() != uint64(len(naive)) || len(all) != len(naive) {
			t.Fatalf("%d numbers, %d listed, want %d", n.Count(), len(all), len(naive))
		}
		for _, a := range all {
			if !naive[a] || !n.Contains(a) {
				t.Fatalf("%s does not belong", a)
			}
		}
		for _, p := range without {
			if strings.Contains(string(p), "X") {
				continue
			}
			if n.Contains(learn.Number(p)) {
				t.Fatalf("%s was excluded", p)
			}
		}
	}
}

func TestDocumentsThatAreRefused(t *testing.T) {
	const uri = "<sipuri>sip:a@b.example;maddr=192.0.2.1;transport=tcp</sipuri>"
	service := func(more string) string { return "<vservice>" + more + "</vservice>" }
	full := "<name>n</name><domain>b.example</domain><didcount>1</didcount>" + uri
	for text, code := range map[string]Code{
		service(""): CodeBadRequest, service(full + "<name>m</name>"): CodeBadRequest, service(full) + service(full): CodeBadRequest,
		service(full + strings.Repeat(uri, 8)): CodeTooLarge, "<numbers/>": CodeBadRequest, "<!DOCTYPE x>" + service(full): CodeBadRequest,
		service(full + "<!ENTITY a 'b'>"): CodeBadRequest, service(full + "&a;"): CodeBadRequest, service(full + "text"): CodeBadRequest,
		service(strings.Replace(full, "b.example<", "-b.example<", 1)): CodeBadRequest, service(strings.Replace(full, ">1<", ">-1<", 1)): CodeBadRequest,
		service(strings.Replace(full, ";maddr=192.0.2.1", "", 1)): CodeBadRequest, service(strings.Replace(full, "sip:", "tel:", 1)): CodeBadRequest,
		service(full + strings.Repeat("<a>", 8) + strings.Repeat("</a>", 8)): CodeBadRequest, service(full)[:20]: CodeBadRequest, service(full) + "x": CodeBadRequest,
		service(full + "<trust><mode>maybe</mode></trust>"): CodeBadRequest, service(full + "<trust><mode>trusted</mode><prefix>1</prefix></trust>"): CodeBadRequest,
		service(full + "<?pi x?>"): CodeBadRequest, service(full + "</name>"): CodeBadRequest, service(strings.Replace(full, "n<", "<x/><", 1)): CodeBadRequest,
		service(full + "<trust><mode>trusted</mode><prefix>+123456789012345!</prefix></trust>"):                CodeBadRequest,
		service(full + "<trust><mode>trusted</mode><prefix>+" + strings.Repeat("1", 40) + "</prefix></trust>"): CodeBadRequest,
	} {
		if s, err := readService(serviceA, []byte(text)); codeOf(err) != code {
			t.Errorf("%s\ngives %+v, %v; want %d", text, s, err, code)
		}
	}
	good := `<?xml version="1.0" encoding="UTF-8"?> <vservice x="1"><!-- c --> <new><a>1</a></new><n:name>z</n:name>` + full +
		"<trust><mode>trusted</mode><domain>C.example</domain><prefix>+1408!</prefix><prefix>+</prefix></trust></vservice>\n"
	s, err := readService(serviceA, []byte(good))
	if err != nil || s.Name != "n" || !slices.Equal(s.Trust.Domains, []string{"c.example"}) || !slices.Equal(s.Trust.Prefixes, []string{"+1408", "+"}) {
		t.Errorf("%+v, %v", s, err)
	}
	again, err := readService(serviceA, s.document())
	if err != nil || !sameService(s, again) {
		t.Errorf("%+v\n%+v, %v", s, again, err)
	}
}

func TestTrust(t *testing.T) {
	list := Trust{Domains: []string{"b.example"}, Prefixes: []string{"+1408"}}
	white := list
	white.Trusted = true
	for _, c := range []struct {
		domain       string
		number       learn.Number
		white, black bool
	}{{"B.example", "+1", true, false}, {"c.example", "+14081", true, false}, {"c.example", "+1", false, true}} {
		if white.Allows(c.domain, c.number) != c.white || list.Allows(c.domain, c.number) != c.black {
			t.Errorf("%+v", c)
		}
	}
	if !(Trust{}).Allows("any.example", "+1") {
		t.Error("no trust group forbids")
	}
}

func TestRecordsThatAreRefused(t *testing.T) {
	vcr := func(old, new string) string {
		return strings.Replace(string(vcrDocument([]learn.VCR{theVCR})), old, new, 1)
	}
	for _, text := range []string{
		"<vcrs/>", vcr("originating", "other"), vcr("+14085551212", "14085551212"), vcr("<caller>+17325550001", "<caller>x"), vcr("10:03:07.456Z", "09:03:07.456Z"),
		vcr("27T10:03", "29T10:03")[:40], vcr("2026-11-27T10:03:07.456Z", "2026-12-27T10:03:07.456Z"), vcr("07.456Z", "07.456+01:00"), vcr("<stop>", "<stop/><stop>"),
	} {
		if v, err := readVCRs([]byte(text)); codeOf(err) != CodeBadRequest {
			t.Errorf("%s gives %+v, %v", text, v, err)
		}
	}
	many := vcrDocument(slices.Repeat([]learn.VCR{theVCR}, MaxVCRs+1))
	if _, err := readVCRs(many); codeOf(err) != CodeTooLarge {
		t.Errorf("101 records: %v", err)
	}
	unknown := theVCR
	unknown.Caller = ""
	if v, err := readVCRs(vcrDocument([]learn.VCR{unknown})); err != nil || v[0] != unknown {
		t.Errorf("%+v, %v", v, err)
	}
}

// FuzzMessage: no frame makes the decoder fail in another way than with an error, and what it reads it writes as something that reads the same.
func FuzzMessage(f *testing.F) {
	text, _ := hex.DecodeString("000100207f5a9bc7111111111111111111111111000600077661707573657200100100056e6f6465310000001003000400010000")
	f.Add(text)
	f.Add(rawEncode(0x114, [12]byte{}, []byte("k"), rawU64(0x1013, 3), rawAttr{9, []byte{0, 0, 4, 81}}, rawAttr{0x1015, make([]byte, 8)}))
	f.Add(rawEncode(0x004, [12]byte{}, nil, rawIdentity(100, 1, rawService), rawBytes(0x100c, rawVservice), rawBytes(0x7000, "x"), rawBytes(0x9000, "y")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if frame, err := readFrame(bufio.NewReader(bytes.NewReader(b)), maxBody, func() {}); err == nil && !bytes.HasPrefix(b, frame) {
			t.Fatal("frame is not what was read")
		}
		m, err := parse(b)
		if errors.Is(err, errFraming) {
			return
		}
		_ = m.refuse(err)
		if m.class == Failure {
			_ = m.err().Error()
		}
		if err != nil {
			return
		}
		if m.get(attrIdentity) != nil {
			_, _ = m.identity(MaxPages)
		}
		signed := &message{class: m.class, method: m.method, id: m.id}
		for _, a := range m.attrs {
			if a.typ != attrIntegrity && a.typ != attrSequence {
				signed.attrs = append(signed.attrs, a)
			}
		}
		out, err := (&sealer{key: []byte("key")}).seal(signed)
		if err != nil {
			return // too long with its integrity
		}
		again, err := parse(out)
		if err != nil || !(&opener{key: []byte("key")}).open(again) || len(again.attrs) != len(signed.attrs)+1 {
			t.Fatalf("%x reads as %+v, %v", out, again, err)
		}
	})
}

// FuzzDocument: what any of the documents' readers takes, it takes again as the package writes it.
func FuzzDocument(f *testing.F) {
	f.Add([]byte(rawVservice))
	f.Add([]byte("<numbers><pattern>+1408902155X</pattern><exclude>+14089021555</exclude></numbers>"))
	f.Add(vcrDocument([]learn.VCR{theVCR}))
	f.Add((&Notification{ID: 1, Routes: []learn.Route{theRoute}}).document())
	f.Add((&Notification{ID: 1, Withdrawn: []learn.Number{"+1"}, Reason: "<&>"}).document())
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := readService(serviceA, b); err == nil {
			if again, err := readService(serviceA, s.document()); err != nil || !sameService(s, again) {
				t.Fatalf("%+v: %v", s, err)
			}
		}
		if p, err := readPage(b); err == nil {
			if again, err := readPage(p.document()); err != nil || !slices.Equal(p.patterns, again.patterns) || !slices.Equal(p.exclude, again.exclude) {
				t.Fatalf("%+v: %v", p, err)
			}
		}
		if v, err := readVCRs(b); err == nil {
			if again, err := readVCRs(vcrDocument(v)); err != nil || !slices.Equal(v, again) {
				t.Fatalf("%+v: %v", v, err)
			}
		}
		for _, m := range []Method{Notify, Withdraw} {
			n := Notification{Service: serviceA, ID: 1}
			if readNotification(m, &n, b) != nil {
				continue
			}
			again := Notification{Service: serviceA, ID: 1}
			if err := readNotification(m, &again, n.document()); err != nil || len(again.Routes) != len(n.Routes) || !slices.Equal(again.Withdrawn, n.Withdrawn) || again.Reason != n.Reason {
				t.Fatalf("%+v: %v", n, err)
			}
		}
	})
}
