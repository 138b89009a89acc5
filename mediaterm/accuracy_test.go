package mediaterm

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"imeproxy/fallback"
)

// profile is what the Internet does to one stream of the accuracy test, by its seed.
type profile struct {
	seed              uint64
	pt                uint8
	hz                int
	step              time.Duration
	loss, burst, copy float64
	jitter            time.Duration
	swap              float64 // of packets that come behind the next ones
}

func newProfile(seed uint64) profile {
	rnd := rand.New(rand.NewPCG(seed, 1))
	p := profile{seed: seed, hz: 8000, step: []time.Duration{10, 20, 30}[rnd.IntN(3)] * time.Millisecond, pt: []uint8{0, 8, 9, 18}[rnd.IntN(4)]}
	if seed%7 == 3 {
		p.pt, p.hz = 10, 44100
	}
	p.jitter = time.Duration(1+rnd.IntN(60)) * time.Millisecond
	if seed%3 != 0 {
		p.loss = rnd.Float64() * 0.1
	}
	if seed%4 == 1 {
		p.burst = rnd.Float64() * 0.02
	}
	if seed%5 == 2 {
		p.copy = rnd.Float64() * 0.1
	}
	if seed%2 == 0 {
		p.swap = rnd.Float64() * 0.05
	}
	return p
}

// passing is a packet as it arrives.
type passing struct {
	at  time.Duration
	rtp []byte
}

// packets are those of a minute, in the order of arrival. The first and the last come, so that everybody agrees on what was expected.
func (p profile) packets() (list []passing) {
	rnd := rand.New(rand.NewPCG(p.seed, 2))
	n, gone := int(time.Minute/p.step), 0
	first, last := uint16(rnd.Uint32()), time.Duration(0)
	for i := range n {
		pkt := rtpPayload(uint32(1000+p.seed), first+uint16(i), p.pt, 20)
		binary.BigEndian.PutUint32(pkt[4:], uint32(int64(i)*int64(p.step)*int64(p.hz)/int64(time.Second)))
		if gone == 0 && rnd.Float64() < p.burst {
			gone = 1 + rnd.IntN(15)
		}
		inner := i > 0 && i < n-1
		if lost := gone > 0 || rnd.Float64() < p.loss; lost && inner {
			gone = max(0, gone-1)
			continue
		}
		// The network holds packets back, and keeps their order but for those that swap.
		at := time.Duration(i)*p.step + time.Duration(math.Abs(rnd.NormFloat64())*float64(p.jitter)/2)
		if i > 0 && i < n-20 && rnd.Float64() < p.swap { // tshark takes the number that arrives last for the highest
			at += p.step + time.Duration(rnd.IntN(60))*time.Millisecond
		} else {
			at = max(at, last+50*time.Microsecond)
			last = at
		}
		list = append(list, passing{at, pkt})
		if inner && rnd.Float64() < p.copy {
			list = append(list, passing{at + time.Duration(1+rnd.IntN(30))*time.Millisecond, pkt})
		}
	}
	slices.SortStableFunc(list, func(a, b passing) int { return int(a.at - b.at) })
	return list
}

// writeCapture writes a pcap file (raw IPv4, microseconds) of streams to ports from 20000 on.
func writeCapture(t *testing.T, file string, streams [][]passing) {
	t.Helper()
	type record struct {
		at   time.Duration
		data []byte
	}
	var all []record
	for s, list := range streams {
		for _, p := range list {
			b := make([]byte, ipLen+udpLen, ipLen+udpLen+len(p.rtp))
			b[0], b[8], b[9] = 0x45, 64, protocolUDP
			binary.BigEndian.PutUint16(b[2:], uint16(cap(b)))
			copy(b[12:], []byte{198, 51, 100, 7, 203, 0, 113, 5})
			binary.BigEndian.PutUint16(b[20:], uint16(30000+2*s))
			binary.BigEndian.PutUint16(b[22:], uint16(20000+2*s))
			binary.BigEndian.PutUint16(b[24:], uint16(udpLen+len(p.rtp)))
			all = append(all, record{p.at, append(b, p.rtp...)})
		}
	}
	slices.SortStableFunc(all, func(a, b record) int { return int(a.at - b.at) })
	out := make([]byte, 24)
	for i, v := range []uint32{0xa1b2c3d4, 2 | 4<<16, 0, 0, 65535, 101} {
		binary.LittleEndian.PutUint32(out[4*i:], v)
	}
	for _, r := range all {
		us := r.at.Microseconds()
		for _, v := range []uint32{uint32(1_700_000_000 + us/1e6), uint32(us % 1e6), uint32(len(r.data)), uint32(len(r.data))} {
			out = binary.LittleEndian.AppendUint32(out, v)
		}
		out = append(out, r.data...)
	}
	if err := os.WriteFile(file, out, 0o600); err != nil {
		t.Fatal(err)
	}
}

// analysed is a row of tshark's RTP analysis.
type analysed struct {
	packets, lost         int
	meanJitter, maxJitter float64 // ms
}

var streamRow = regexp.MustCompile(`0x([0-9A-Fa-f]{8})\s+.*?\s(\d+)\s+(-?\d+) \(-?[\d.]+%\)\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)`)

// analyse lets tshark look at a capture, after editcap has taken the copies out: SRTP's replay list keeps them from whoever counts here, and
// to tshark each would make up for a lost packet.
func analyse(t *testing.T, file string, streams int) map[uint32]analysed {
	t.Helper()
	for _, tool := range []string{"tshark", "editcap"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("this machine has no %s (Debian: tshark)", tool)
		}
	}
	once := file + ".once"
	if out, err := exec.Command("editcap", "-D", "2000", file, once).CombinedOutput(); err != nil {
		t.Fatalf("editcap: %v: %s", err, out)
	}
	args := []string{"-n", "-r", once, "-q", "-z", "rtp,streams"}
	for s := range streams {
		args = append(args, "-d", fmt.Sprintf("udp.port==%d,rtp", 20000+2*s))
	}
	out, err := exec.Command("tshark", args...).Output()
	if err != nil {
		t.Fatalf("tshark: %v", err)
	}
	rows := make(map[uint32]analysed)
	for line := range strings.Lines(string(out)) {
		m := streamRow.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		ssrc, _ := strconv.ParseUint(m[1], 16, 32)
		var a analysed
		a.packets, _ = strconv.Atoi(m[2])
		a.lost, _ = strconv.Atoi(m[3])
		a.meanJitter, _ = strconv.ParseFloat(m[8], 64)
		a.maxJitter, _ = strconv.ParseFloat(m[9], 64)
		rows[uint32(ssrc)] = a
	}
	if len(rows) != streams {
		t.Fatalf("tshark tells of %d streams:\n%s", len(rows), out)
	}
	return rows
}

type judged struct{ *fallback.Stream }

func (judged) Prefetch(int) {}

func (j judged) Watch(at time.Duration, p WatchedPacket) {
	j.Packet(fallback.Packet{At: at, SSRC: p.SSRC, Timestamp: p.Timestamp, Seq: p.Seq, PayloadType: p.PayloadType, PayloadLength: p.PayloadLength})
}

// The figures of 30 streams, each hurt in its own way, are those of tshark's analysis of the same capture: packets and loss exactly, in the
// counters and in the quality windows; the jitter of RFC 3550 within 5 %.
func TestAccuracy(t *testing.T) {
	const profiles = 30
	var streams [][]passing
	for seed := range uint64(profiles) {
		streams = append(streams, newProfile(seed).packets())
	}
	file := filepath.Join(t.TempDir(), "impaired.pcap")
	writeCapture(t, file, streams)
	rows := analyse(t, file, profiles)
	hurt := 0
	for seed, list := range streams {
		p, want := newProfile(uint64(seed)), rows[uint32(1000+seed)]
		l := newLoop(t, mustKey(t, SuiteCM80))
		watched := judged{fallback.NewStream([]fallback.Format{{PayloadType: p.pt, ClockRate: uint32(p.hz)}}, 0)}
		l.rx.watcher = watched
		l.rx.setClockRate(p.pt, uint32(p.hz))
		sealed := make(map[*byte][]byte)
		for _, x := range slices.SortedStableFunc(slices.Values(list), func(a, b passing) int { // as they were sent
			return int(int32(binary.BigEndian.Uint32(a.rtp[4:]) - binary.BigEndian.Uint32(b.rtp[4:])))
		}) {
			if sealed[&x.rtp[0]] == nil {
				sealed[&x.rtp[0]] = l.seal(x.rtp)
			}
		}
		begin, sum, peak, n := time.Now(), 0.0, 0.0, 0
		leg := &l.rx.legs[Outside]
		for _, x := range list {
			l.rx.now = func() time.Time { return begin.Add(x.at) }
			if l.open(sealed[&x.rtp[0]]) == nil {
				continue
			}
			j := leg.receptions.jitter(uint32(1000 + seed))
			sum, peak, n = sum+j, max(peak, j), n+1
		}
		_, got := l.rx.stats()
		watched.Sample(Instant(begin.Add(2 * time.Minute)))
		totals := watched.Totals()
		if int(got.RxRTPPackets) != want.packets || int(got.Lost) != want.lost {
			t.Errorf("%+v: %d packets, %d lost; tshark %+v", p, got.RxRTPPackets, got.Lost, want)
		}
		if int(totals.Packets) != want.packets || int(totals.Lost) != want.lost || totals.Late != 0 {
			t.Errorf("%+v: window %+v; tshark %+v", p, totals, want)
		}
		if mean := sum / float64(n); math.Abs(mean-want.meanJitter) > 0.05*want.meanJitter || math.Abs(peak-want.maxJitter) > 0.05*want.maxJitter {
			t.Errorf("%+v: jitter %.3f, at most %.3f; tshark %+v", p, mean, peak, want)
		}
		if want.lost > 0 {
			hurt++
		}
	}
	if hurt < profiles/2 {
		t.Errorf("%d streams lost packets", hurt)
	}
}
