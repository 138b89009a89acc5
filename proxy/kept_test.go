package proxy

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"imeproxy/sipalg/dialog"
)

// heap is what is in use after everything that nobody holds has been collected, in bytes.
func heap() int64 {
	for range 2 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Whoever may call one number could fill the memory with session descriptions of 64 KiB whose calls then stand for hours.
func TestStandingCallKeepsNoDescription(t *testing.T) {
	const calls, long = 40, 50 << 10
	first := testMedia(t, false, 4*calls)
	pad := func(name string) string { return strings.Repeat("a="+name+strings.Repeat("x", 1000)+"\r\n", long/1000) }
	var standing []*media
	defer func() {
		for _, m := range standing {
			m.close()
		}
	}()
	before := heap()
	for range calls {
		m := newMedia(first.mediaPolicy)
		standing = append(standing, m)
		x, _, err := m.makeOffer(body("198.51.100.7", "m=audio 6000 RTP/SAVP 96", key80, "a=rtpmap:96 opus/48000", pad("offer")), dialog.Outside)
		if err != nil {
			t.Fatal(err)
		}
		codec := "a=rtpmap:96 " + strings.Repeat("c", 7<<10) + "/48000"
		if _, err := m.makeAnswer(x, body("192.168.10.21", "m=audio 4000 RTP/AVP 96", codec, pad("answer")), "tag"); err != nil {
			t.Fatal(err)
		}
		m.forget() // as of a call that has stood for a while
	}
	if each := (heap() - before) / calls; each > 32<<10 {
		t.Errorf("a standing call keeps %d bytes", each)
	}
	runtime.KeepAlive(standing)
}

// Nor with names.
func TestStandingCallKeepsNoLongNames(t *testing.T) {
	w := newWalk(t, nil)
	long := strings.Repeat("u", 7<<10)
	contact := "Contact: <sip:x@192.168.10.30;x=" + long + ">"
	m := sipMessage(t, "INVITE sip:"+long+"@b.example SIP/2.0", "Call-ID: c", "CSeq: 1 INVITE", "From: <sip:"+long+"@a.example>;tag=f", "To: <sip:t@b.example>", contact)
	c := w.s.newCall(m, dialog.Inside, "b.example", nil)
	defer c.media.close()
	for n := range 3 * maxNamed {
		c.name(sipMessage(t, "INVITE sip:x@y SIP/2.0", strings.Replace(contact, "sip:x", fmt.Sprint("sip:x", n), 1)))
	}
	kept := len(c.rec.From) + len(c.rec.To)
	for _, uri := range c.named {
		kept += len(uri)
	}
	if kept > 2*maxUser {
		t.Errorf("%d bytes of names are kept", kept)
	}
	if c.rec.From != long[:maxUser] || c.rec.To != long[:maxUser] {
		t.Errorf("the record names %.20q... and %.20q...", c.rec.From, c.rec.To)
	}
}
