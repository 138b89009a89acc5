package dtmf

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/rtp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var loop = netip.MustParseAddr("127.0.0.1")

func session(t *testing.T) *Session {
	t.Helper()
	s, err := Open(loop, 30000, 39998)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestDigitsCrossASocket(t *testing.T) {
	a, b := session(t), session(t)
	ra, err := ParseRemote(a.Offer())
	if err != nil {
		t.Fatal(err)
	}
	b.SetRemote(ra)
	rb, err := ParseRemote(b.Answer(ra))
	if err != nil || rb.Event != 101 || rb.Addr != b.local {
		t.Fatalf("%+v %v", rb, err)
	}
	a.SetRemote(rb)
	ctx, done := context.WithTimeout(context.Background(), 10*time.Second)
	defer done()
	const digits = "00112233"
	if err := a.Send(ctx, digits); err != nil {
		t.Fatal(err)
	}
	if got := b.Collect(ctx, len(digits)); got != digits {
		t.Errorf("got %q", got)
	}
	select {
	case <-b.Audio():
	default:
		t.Error("no audio was heard")
	}
	select {
	case <-a.Audio():
		t.Error("the collecting side sent audio")
	default:
	}
}

func packet(t *testing.T, ssrc, ts uint32, seq uint16, e event) []byte {
	t.Helper()
	b, err := (&rtp.Packet{Header: rtp.Header{Version: 2, SSRC: ssrc, Timestamp: ts, SequenceNumber: seq, PayloadType: 101}, Payload: e.append(nil)}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestADigitCountsOnce(t *testing.T) {
	s := session(t)
	s.SetRemote(Remote{netip.MustParseAddrPort("127.0.0.1:4000"), 0, 101})
	from := netip.MustParseAddrPort("127.0.0.1:4002")
	for _, x := range []struct {
		ts   uint32
		code uint8
		end  bool
	}{{10, 4, false}, {10, 4, false}, {10, 4, true}, {10, 4, true}, {2000, 4, true}, {10, 4, true}, {4000, 11, true}, {6000, 7, false}} {
		s.packet(packet(t, 1, x.ts, 0, event{Code: x.code, End: x.end, Duration: 800}), from)
	}
	s.packet(packet(t, 1, 9000, 0, event{Code: 1}), netip.MustParseAddrPort("127.0.0.9:4000")) // a stranger
	s.packet([]byte{0x80}, from)
	ctx, done := context.WithCancel(context.Background())
	done()
	if got := s.Collect(ctx, 9); got != "447" {
		t.Errorf("got %q", got)
	}
}

func TestDigitsHaveALimit(t *testing.T) {
	var c collector
	for i := range uint32(100) {
		c.take(1, i*1000, event{Code: 1}.append(nil))
	}
	if len(c.digits) != maximumDigits {
		t.Errorf("%d digits", len(c.digits))
	}
}

func TestDescriptionsThatWillNotDo(t *testing.T) {
	const head = "v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\n"
	for _, x := range []string{
		"", head, head + "m=audio 0 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n",
		head + "m=audio 4000 RTP/AVP 9 101\r\na=rtpmap:101 telephone-event/8000\r\n",
		head + "m=audio 4000 RTP/AVP 0\r\n", head + "m=audio 4000 RTP/SAVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n",
		"c=IN IP4 0.0.0.0\r\nm=audio 4000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n",
	} {
		if r, err := ParseRemote([]byte(x)); err == nil {
			t.Errorf("%q: %+v", x, r)
		}
	}
	r, err := ParseRemote([]byte(head + "m=audio 4000 RTP/AVP 9 8 96\r\nc=IN IP4 10.0.0.2\r\na=rtpmap:96 Telephone-Event/8000\r\nm=video 5000 RTP/AVP 0\r\nc=IN IP4 10.0.0.3\r\n"))
	if want := (Remote{netip.MustParseAddrPort("10.0.0.2:4000"), 8, 96}); err != nil || r != want {
		t.Errorf("%+v %v", r, err)
	}
}

func FuzzPacket(f *testing.F) {
	f.Add([]byte{0x80, 101, 0, 1, 0, 0, 0, 10, 0, 0, 0, 1, 4, 0x8a, 3, 0x20})
	f.Add([]byte{0x80, 0, 0, 1, 0, 0, 0, 10, 0, 0, 0, 1, 0xff})
	f.Add([]byte{0xb0, 101})
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &Session{audio: make(chan struct{}), more: make(chan struct{}, 1)}
		s.SetRemote(Remote{netip.MustParseAddrPort("127.0.0.1:4000"), 0, 101})
		s.packet(b, netip.MustParseAddrPort("127.0.0.1:4000"))
		s.packet(b, netip.MustParseAddrPort("127.0.0.1:4000"))
		if len(s.got.digits) > 1 {
			t.Errorf("one packet, digits %q", s.got.digits)
		}
	})
}

func FuzzParseRemote(f *testing.F) {
	f.Add([]byte("c=IN IP4 10.0.0.1\r\nm=audio 4000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := ParseRemote(b); err == nil && (!r.Addr.IsValid() || r.Event > 127) {
			t.Errorf("%+v", r)
		}
	})
}
