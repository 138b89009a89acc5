package mediaterm

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"
)

func TestLoss(t *testing.T) {
	seqs := func(s ...uint16) []uint16 { return s }
	for name, c := range map[string]struct {
		seq  []uint16
		lost uint64
	}{
		"none":                   {seqs(1, 2, 3), 0},
		"gap":                    {seqs(1, 2, 5), 2},
		"late":                   {seqs(1, 2, 5, 3), 1},
		"over the wrap":          {seqs(65533, 65534, 2, 65535), 2},
		"duplicates hide none":   {seqs(1, 1, 1, 1), 0},
		"one stray far away":     {seqs(100, 101, 20000, 102), 0},
		"restart after a gap":    {seqs(100, 103, 20000, 20001, 20003), 3},
		"restart below":          {seqs(50000, 50002, 10, 11, 12), 1},
		"begins with the wrap":   {seqs(65535, 0, 1), 0},
		"late before the first":  {seqs(10, 9, 11), 0},
		"dropout still counted":  {seqs(1, 2999), 2997},
		"dropout is a new start": {seqs(1, 3100, 3101), 0},
	} {
		t.Run(name, func(t *testing.T) {
			var rs receptions
			for _, s := range c.seq {
				rs.packet(rtpHeader{ssrc: 1, seq: s}, 8000, 0)
			}
			if got := rs.lost(); got != c.lost {
				t.Errorf("lost %d, want %d", got, c.lost)
			}
		})
	}
}

// RFC 3550 A.8 by hand: packets of 20 ms, each second one 8 ms late, make the estimate
// approach 8 ms; evenly spaced ones leave it at 0; events and other clocks do not disturb.
func TestJitter(t *testing.T) {
	const start = time.Hour
	run := func(late time.Duration, hz uint32, events bool) float64 {
		var rs receptions
		for i := range 400 {
			at := start + time.Duration(i)*20*time.Millisecond
			if i%2 == 1 {
				at += late
			}
			rs.packet(rtpHeader{ssrc: 1, seq: uint16(i), timestamp: uint32(i) * hz / 50}, hz, at)
			if events {
				rs.packet(rtpHeader{ssrc: 1, seq: uint16(i), timestamp: 7, payloadType: 101}, hz, at+time.Millisecond)
				rs.packet(rtpHeader{ssrc: 1, seq: uint16(i), timestamp: 7, payloadType: 101}, hz, at+9*time.Millisecond)
			}
		}
		return rs.jitter(1)
	}
	for name, c := range map[string]struct{ got, want float64 }{
		"even":             {run(0, 8000, false), 0},
		"8 ms at 8 kHz":    {run(8*time.Millisecond, 8000, false), 8},
		"8 ms at 48 kHz":   {run(8*time.Millisecond, 48000, false), 8},
		"even with events": {run(0, 8000, true), 0},
	} {
		if math.Abs(c.got-c.want) > 0.01 {
			t.Errorf("%s: %.3f ms, want %.3f", name, c.got, c.want)
		}
	}
}

// SSRCs beyond the table: the one idle longest goes, its losses stay counted.
func TestReceptionTableBounded(t *testing.T) {
	var rs receptions
	at := time.Hour
	for ssrc := range uint32(100) {
		at += time.Second
		rs.packet(rtpHeader{ssrc: ssrc, seq: 1}, 8000, at)
		rs.packet(rtpHeader{ssrc: ssrc, seq: 4}, 8000, at)
	}
	if n := 1 + len(rs.further); n != statsSources || rs.lost() != 200 {
		t.Errorf("%d sources, %d lost", n, rs.lost())
	}
	if rs.of(99-statsSources) != nil || rs.of(100-statsSources) == nil || rs.of(99) == nil {
		t.Error("it is not the newest that are kept")
	}
}

func TestClockRates(t *testing.T) {
	l := newLoop(t, mustKey(t, SuiteCM80))
	for _, c := range []struct {
		pt    uint8
		media string
		want  uint32
	}{{0, "audio", 8000}, {9, "audio", 8000}, {6, "audio", 16000}, {10, "audio", 44100}, {14, "audio", 90000}, {34, "video", 90000}, {96, "video", 90000}, {111, "audio", 8000}} {
		l.tx.media = c.media
		if got := l.tx.clock(&l.tx.legs[Inside], c.pt); got != c.want {
			t.Errorf("payload type %d of %s: %d Hz, want %d", c.pt, c.media, got, c.want)
		}
	}
	l.tx.setClockRate(111, 48000)
	if got := l.tx.clock(&l.tx.legs[Inside], 111); got != 48000 {
		t.Errorf("told clock: %d", got)
	}
}

func TestStatsJSON(t *testing.T) {
	r := newRig(t, nil)
	r.setCrypto(Outside, mustKey(t, SuiteGCM256), nil)
	send(t, r.phone.rtp, r.our(Inside, portRTP), rtpPayload(0x1234, 1, 8, 160))
	recv(t, r.far.rtp)
	r.waitFor(func(s Stats) bool { return s.Outside.TxRTPPackets == 1 })
	data, err := json.Marshal(r.stream.Stats())
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		`"call_id":"call-1"`, `"media":"audio"`, `"rx_rtp_packets":1`, `"rx_rtp_bytes":172`, `"tx_rtp_bytes":188`,
		`"ssrc":4660`, `"payload_type":8`, `"suite":"AEAD_AES_256_GCM"`, `"secure":true`, `"last_packet":"2`, `"auth_failures":0`,
	} {
		if !strings.Contains(string(data), part) {
			t.Errorf("%s is not in %s", part, data)
		}
	}
}
