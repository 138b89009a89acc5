package testbed

import (
	"bytes"
	"slices"
	"testing"

	"github.com/pion/rtcp"
)

// compound is a report with all that ends put into one: sender report with a
// block about the other end, description, feedback and an extended report
// whose block type nobody knows.
func compound(ssrc, about uint32) []rtcp.Packet {
	return []rtcp.Packet{
		&rtcp.SenderReport{
			SSRC: ssrc, NTPTime: 0xda8bd1fcdddda05a, RTPTime: 0xaaf4edd5, PacketCount: 1234, OctetCount: 5678,
			Reports: []rtcp.ReceptionReport{{SSRC: about, FractionLost: 55, TotalLost: 77, LastSequenceNumber: 0x46e1, Jitter: 273, LastSenderReport: 0x9f36432, Delay: 150137}},
		},
		rtcp.NewCNAMESourceDescription(ssrc, "phone@example"),
		&rtcp.TransportLayerNack{SenderSSRC: ssrc, MediaSSRC: about, Nacks: []rtcp.NackPair{{PacketID: 0xaaaa, LostPackets: 0x5555}}},
		&rtcp.ExtendedReport{SenderSSRC: ssrc, Reports: []rtcp.ReportBlock{&rtcp.UnknownReportBlock{XRHeader: rtcp.XRHeader{BlockType: 250}, Bytes: []byte{1, 2, 3, 4}}}},
	}
}

// reports lets each end send a compound packet, which must arrive whole: on
// the port that was agreed, and readable for pion/rtcp.
func (k *talk) reports(t T, mux bool) {
	t.Helper()
	for _, way := range []struct {
		from, to *MediaStub
		via      int
	}{{k.phone, k.far, 0}, {k.far, k.phone, 1}} {
		our := []addrPort{k.in, k.out}[way.via]
		if !mux {
			our = next(our)
		}
		way.to.ForgetReports()
		sent := way.from.SendRTCP(t, our, mux, compound(way.from.SSRC, way.to.SSRC)...)
		way.to.await(t, "a report", func() bool { return len(way.to.reports) > 0 || len(way.to.bad) > 0 })
		got, muxed := way.to.Reports()
		if len(got) != 1 || !bytes.Equal(got[0], sent) {
			t.Fatalf("the report came as %x, was sent as %x; unreadable: %v", got, sent, way.to.Bad())
		}
		if (muxed == 1) != mux {
			t.Errorf("%d reports came on the RTP port, agreed was %v", muxed, mux)
		}
		packets, err := rtcp.Unmarshal(got[0])
		if err != nil || len(packets) != 4 {
			t.Fatalf("%d packets in the report: %v", len(packets), err)
		}
		if sr, ok := packets[0].(*rtcp.SenderReport); !ok || sr.PacketCount != 1234 || len(sr.Reports) != 1 || sr.Reports[0].Jitter != 273 {
			t.Errorf("sender report: %+v", packets[0])
		}
	}
}

// farReports compares what the proxy shows of both ends' reports with what they say, and what the call's list shows of it.
func (k *talk) farReports(t T) {
	t.Helper()
	type report struct {
		Loss   float64 `json:"loss_percent"`
		Lost   int     `json:"lost"`
		Jitter float64 `json:"jitter_ms"`
	}
	type side struct {
		Far report `json:"far_report"`
	}
	var all struct {
		Sessions []struct {
			CallID  string `json:"call_id"`
			Inside  side   `json:"inside"`
			Outside side   `json:"outside"`
		} `json:"sessions"`
	}
	k.s.Proxy.Show(t, "uc-ime media-sessions detail", &all)
	want, seen := report{Loss: 21.48, Lost: 77, Jitter: 34.13}, false // 55 of 256, 273 ticks of 8 kHz
	for _, m := range all.Sessions {
		if m.CallID == k.caller.CallID {
			if seen = true; m.Inside.Far != want || m.Outside.Far != want {
				t.Errorf("reports: inside %+v, outside %+v, want %+v", m.Inside.Far, m.Outside.Far, want)
			}
		}
	}
	var worst struct {
		Calls []struct {
			CallID string  `json:"call_id"`
			Far    float64 `json:"far_loss_percent"`
			MOS    float64 `json:"mos"`
		} `json:"calls"`
	}
	Until(t, wait, "the call has been sampled", func() bool {
		k.s.Proxy.Show(t, "uc-ime quality", &worst)
		return len(worst.Calls) > 0 && worst.Calls[0].MOS > 0
	})
	if !seen || len(worst.Calls) != 1 || worst.Calls[0].CallID != k.caller.CallID || worst.Calls[0].Far != want.Loss || worst.Calls[0].MOS < 1 {
		t.Errorf("call of %s: %v; quality %+v", k.caller.CallID, seen, worst)
	}
}

// ForgetReports empties what has come of RTCP.
func (m *MediaStub) ForgetReports() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reports, m.muxed = nil, 0
}

// RTCP crosses as SRTCP, on a port of its own, on one that a=rtcp names, or
// on that of RTP (RFC 5761), as the ends agreed.
func TestMediaRTCP(t *testing.T) {
	s := StartStubs(t)
	for _, out := range []bool{true, false} {
		name := map[bool]string{true: "outbound", false: "inbound"}[out]
		t.Run(name+"/port of its own", func(t *testing.T) {
			k := s.talk(t, out, srtpSuites[0])
			k.reports(t, false)
			k.bothWays(t, 5)
			k.reports(t, false)
			k.farReports(t)
			k.end(t)
		})
		t.Run(name+"/multiplexed", func(t *testing.T) {
			k := s.talk(t, out, srtpSuites[3], "a=rtcp-mux")
			k.reports(t, true)
			k.bothWays(t, 5)
			k.reports(t, true)
			// Given up in a re-INVITE.
			k.more = nil
			k.again(t, false, nil, nil)
			k.reports(t, false)
			k.bothWays(t, 5)
			k.end(t)
		})
		t.Run(name+"/multiplexing refused", func(t *testing.T) {
			k := s.talk(t, out, srtpSuites[0])
			// Only the offerer wants it.
			seen, back := k.again(t, true, []string{"a=rtcp-mux"}, nil)
			if !bytes.Contains([]byte(seen.Body), []byte("a=rtcp-mux\r\n")) || bytes.Contains([]byte(back.Body), []byte("rtcp-mux")) {
				t.Errorf("offer\n%s\nanswer\n%s", seen.Body, back.Body)
			}
			k.reports(t, false)
			k.end(t)
		})
		t.Run(name+"/named port", func(t *testing.T) {
			k := s.talk(t, out, srtpSuites[0])
			other := NewMediaStub(t, s.B.EdgeHost, after(k.far.Addr, 200))
			other.SetKeys(t, k.farKey, k.ourKey)
			k.again(t, true, []string{"a=rtcp:" + portText(next(other.Addr)) + " IN IP4 " + other.Addr.Addr().String()}, nil)
			sent := k.phone.SendRTCP(t, next(k.in), false, compound(1, 2)...)
			other.await(t, "a report at the named port", func() bool { return len(other.reports) > 0 })
			if got, _ := other.Reports(); !slices.EqualFunc(got, [][]byte{sent}, bytes.Equal) {
				t.Errorf("came as %x, was sent as %x", got, sent)
			}
			k.end(t)
		})
	}
}

// `no rtcp` drops it in both directions and nothing else.
func TestMediaNoRTCP(t *testing.T) {
	s := StartStubs(t, func(o *Options) {
		o.A.Config = func(text string) string {
			return replaceOnce(text, "uc-ime local-ent-ime\n", "uc-ime local-ent-ime\n no rtcp\n")
		}
	})
	for _, mux := range []bool{false, true} {
		var more []string
		if mux {
			more = []string{"a=rtcp-mux"}
		}
		k := s.talk(t, mux, srtpSuites[0], more...)
		in, out := next(k.in), next(k.out)
		if mux {
			in, out = k.in, k.out
		}
		k.phone.SendReport(t, in, mux, 1)
		k.far.SendReport(t, out, mux, 1)
		k.bothWays(t, 5)
		Until(t, wait, "the dropped reports are counted", func() bool {
			m := k.shown(t)
			return m.Inside.Dropped == 1 && m.Outside.Dropped == 1
		})
		for _, end := range []*MediaStub{k.phone, k.far} {
			if got, _ := end.Reports(); len(got) > 0 {
				t.Errorf("a report came to %v", end.Addr)
			}
		}
		k.end(t)
	}
}
