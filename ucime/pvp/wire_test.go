package pvp

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"imeproxy/ucime/learn"
)

func fullGrant() *Grant {
	g := &Grant{Domain: strings.Repeat("a23456789.", 25) + "abc", Ticket: strings.Repeat("Q", 4096)}
	for i := range 64 {
		g.Numbers = append(g.Numbers, learn.Number("+1408555000000"+string(rune('0'+i/8))+string(rune('0'+i%8))))
	}
	for range 8 {
		g.Routes = append(g.Routes, "sip:"+strings.Repeat("r", 251))
	}
	return g
}

// The largest grant that the limits allow fits the fixed size and comes back as it was.
func TestLargestAnswerFits(t *testing.T) {
	want := fullGrant()
	if err := want.check(); err != nil {
		t.Fatal(err)
	}
	code, got, err := decodeAnswer(encodeAnswer(CodeGranted, want))
	if err != nil || code != CodeGranted {
		t.Fatalf("code %v, %v", code, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	domain, err := decodeRequest(encodeRequest(want.Domain))
	if err != nil || domain != want.Domain || len(domain) != 253 {
		t.Fatalf("domain of %d bytes came back as %q: %v", len(want.Domain), domain, err)
	}
}

func TestGrantsThatMayNotGoOut(t *testing.T) {
	for name, spoil := range map[string]func(*Grant){
		"no number":        func(g *Grant) { g.Numbers = nil },
		"65 numbers":       func(g *Grant) { g.Numbers = append(g.Numbers, "+49301") },
		"bad number":       func(g *Grant) { g.Numbers[0] = "4930" },
		"short number":     func(g *Grant) { g.Numbers[0] = "+4" },
		"capitals":         func(g *Grant) { g.Domain = "B.Example" },
		"no domain":        func(g *Grant) { g.Domain = "" },
		"no route":         func(g *Grant) { g.Routes = nil },
		"9 routes":         func(g *Grant) { g.Routes = append(g.Routes, "sip:b.example") },
		"another scheme":   func(g *Grant) { g.Routes[0] = "http://b.example" },
		"line in route":    func(g *Grant) { g.Routes[0] = "sip:b.example\r\nX: y" },
		"long route":       func(g *Grant) { g.Routes[0] += "r" },
		"no ticket":        func(g *Grant) { g.Ticket = "" },
		"too large ticket": func(g *Grant) { g.Ticket += "Q" },
	} {
		g := fullGrant()
		spoil(g)
		if g.check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestContentsThatAreRefused(t *testing.T) {
	good := encodeRequest("a.example")
	for name, b := range map[string][]byte{
		"empty":           make([]byte, requestSize),
		"twice":           append(appendTLV(appendTLV(nil, 1, "a.example"), 1, "b.example"), 0, 0, 0, 0),
		"unknown":         appendTLV(nil, 7, "x"),
		"beyond the end":  {0, 1, 0, 9, 'a'},
		"padding":         append(append([]byte{}, good[:requestSize-1]...), 1),
		"capitals":        appendTLV(nil, 1, "A.example"),
		"descending":      appendTLV(appendTLV(nil, 0x0101, ""), 0x0100, ""),
		"rest of a field": append(appendTLV(nil, 1, "a.example"), 0, 1),
	} {
		if d, err := decodeRequest(b); !errors.Is(err, errTLV) {
			t.Errorf("%s: domain %q, error %v", name, d, err)
		}
	}
	if d, err := decodeRequest(appendTLV(appendTLV(nil, 1, "a.example"), 0x0100, "later")); err != nil || d != "a.example" {
		t.Errorf("an extension was not ignored: %q, %v", d, err)
	}
	for name, b := range map[string][]byte{
		"nothing":             make([]byte, 8),
		"unknown code":        encodeAnswer(3, nil),
		"local code":          encodeAnswer(CodeLost, nil),
		"refused with fields": encodeAnswer(CodeRefused, fullGrant()),
		"granted without":     encodeAnswer(CodeGranted, nil),
		"field before code":   appendTLV(nil, tlvDomain, "a.example"),
	} {
		if _, _, err := decodeAnswer(b); !errors.Is(err, errTLV) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestFramesOutOfTurn(t *testing.T) {
	var b bytes.Buffer
	for name, in := range map[string][]byte{
		"unknown type":   {9, 0, 0},
		"wrong length":   {frameStart, 0, 67},
		"not its turn":   {frameBusy, 0, 0},
		"HTTP":           []byte("GET / HTTP/1.1\r\n\r\n"),
		"end in header":  {frameStart, 0},
		"end in body":    {frameStart, 0, 68, 1},
		"nothing at all": {},
	} {
		b.Reset()
		b.Write(in)
		if _, _, err := readFrame(&b, frameStart, frameFinish); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	var b bytes.Buffer
	s := start{method: WithCaller, selector: 0x79d8}
	_ = writeFrame(&b, frameStart, s.encode())
	f.Add(b.Bytes())
	f.Add([]byte{frameBusy, 0, 0})
	f.Add([]byte{frameAnswer, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, in []byte) {
		kind, body, err := readFrame(bytes.NewReader(in), frameStart, frameOffer, frameFinish, frameAnswer, frameBusy)
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := writeFrame(&out, kind, body); err != nil || !bytes.HasPrefix(in, out.Bytes()) {
			t.Fatalf("%x came back as %x: %v", in, out.Bytes(), err)
		}
	})
}

func FuzzDecodeStart(f *testing.F) {
	s := start{method: WithoutCaller, selector: 1, originator: learn.PeerID{1}, terminator: learn.PeerID{2}}
	f.Add(s.encode())
	f.Fuzz(func(t *testing.T, in []byte) {
		if s, err := decodeStart(in); err == nil && !bytes.Equal(s.encode(), in) {
			t.Fatalf("%x came back as %x", in, s.encode())
		}
	})
}

func FuzzDecodeOffer(f *testing.F) {
	f.Add(make([]byte, offerSize))
	f.Fuzz(func(t *testing.T, in []byte) {
		o, err := decodeOffer(in)
		if err != nil {
			return
		}
		if !bytes.Equal(encodeOffer(o), in) {
			t.Fatal("the offer came back as another one")
		}
		for i := range o { // whatever decodes as a point encodes to itself: no second form of one point
			if p, err := decodePoint(o[i].public[:]); err == nil && encode(p) != o[i].public {
				t.Fatalf("%x is encoded as %x", o[i].public, encode(p))
			}
		}
	})
}

func FuzzDecodeFinish(f *testing.F) {
	f.Add(make([]byte, finishSize))
	f.Fuzz(func(t *testing.T, in []byte) {
		if d, err := decodeFinish(in); err == nil && (!bytes.Equal(d.encode(), in) || d.slot >= slots) {
			t.Fatalf("%x came back as %x", in, d.encode())
		}
	})
}

func FuzzDecodeRequest(f *testing.F) {
	f.Add(encodeRequest("a.example"))
	f.Add(appendTLV(appendTLV(nil, 1, "a.example"), 0x0100, "later"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > requestSize {
			return // there is none on the wire, and the time that the fuzzer takes to shorten an input grows with the square of its length
		}
		in = append(in, make([]byte, requestSize-len(in))...)
		if d, err := decodeRequest(in); err == nil {
			if again, err := decodeRequest(encodeRequest(d)); err != nil || again != d {
				t.Fatalf("%q came back as %q: %v", d, again, err)
			}
		}
	})
}

func FuzzDecodeAnswer(f *testing.F) {
	f.Add(encodeAnswer(CodeGranted, fullGrant()))
	f.Add(encodeAnswer(CodeRefused, nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		code, g, err := decodeAnswer(in)
		if err != nil {
			return
		}
		again, h, err := decodeAnswer(encodeAnswer(code, g))
		if err != nil || again != code || !cmp.Equal(g, h) {
			t.Fatalf("%v %v came back as %v %v: %v", code, g, again, h, err)
		}
	})
}
