package fallback

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// happening is what a stream sees in a test: a packet, or a hold that begins or ends.
type happening struct {
	Packet
	hold, held bool
}

// reference computes the figures of a sample from the words of the protocol file, over all packets since the beginning at once.
type reference struct {
	all     []happening // in the order of arrival
	formats map[uint8]refFormat
	ptime   time.Duration
}

type refFormat struct {
	codec codec
	hz    float64
}

// counted is a packet that counts, with its extended number.
type counted struct {
	Packet
	number int
}

type number struct {
	turn, came time.Duration // came: of the first copy, -1: none
	ts         uint32
	pt         uint8
	transit    float64 // seconds; NaN: no part of pdv
}

// state is what the packets up to an instant have led to.
type refState struct {
	window  []counted // since the window began; nil: none has
	last    *Packet   // the last authenticated one that is not odd
	alive   time.Duration
	held    bool
	codec   codec
	highest int
}

func (m *reference) walk(at time.Duration) (s refState) {
	var odd *Packet // the packet before, when it was odd
	for i := range m.all {
		h := &m.all[i]
		if h.At > at {
			break
		}
		p := &h.Packet
		switch {
		case h.hold:
			if s.held && !h.held {
				s.window, s.alive = nil, h.At
			}
			if s.held != h.held {
				odd = nil
			}
			s.held = h.held
			continue
		case s.held:
		case s.window == nil:
			s.window, s.highest = []counted{{*p, int(p.Seq)}}, int(p.Seq)
		default:
			ahead := int(int16(p.Seq - uint16(s.highest)))
			if p.SSRC != s.window[0].SSRC || ahead >= 3000 || ahead <= -100 {
				if odd != nil && odd.SSRC == p.SSRC && (p.Seq-odd.Seq == 1 || odd.Seq-p.Seq == 1) {
					s.window, s.highest, odd = []counted{{*p, int(p.Seq)}}, int(p.Seq), nil
					break
				}
				odd = p
				continue
			}
			s.window = append(s.window, counted{*p, s.highest + ahead})
			s.highest = max(s.highest, s.highest+ahead)
		}
		odd = nil
		s.last, s.alive = p, h.At
		if c := m.formats[p.PayloadType].codec; c.audio() {
			s.codec = c
		}
	}
	return s
}

// numbers gives the window's numbers from the first to the highest that have arrived.
func (m *reference) numbers(window []counted) []number {
	first := window[0].number
	var list []number
	var before *counted // whose transit counted last
	step := 0.0
	for i := range window {
		p := &window[i]
		if p.number < first {
			continue
		}
		for len(list) <= p.number-first {
			list = append(list, number{turn: p.At, came: -1, transit: math.NaN()})
		}
		n := &list[p.number-first]
		if n.came >= 0 {
			continue
		}
		n.came, n.ts, n.pt = p.At, p.Timestamp, p.PayloadType
		f := m.formats[p.PayloadType]
		if !n.received() || f.codec == codecEvent {
			continue
		}
		if before != nil {
			b := m.formats[before.PayloadType]
			step = (p.At - before.At).Seconds() - float64(int32(p.Timestamp-before.Timestamp))/f.hz
			if b.hz != f.hz || math.Abs(step) >= 4 {
				for k := range list {
					list[k].transit = math.NaN()
				}
				before = nil
			}
		}
		if before == nil {
			n.transit = 0
		} else {
			n.transit = m.transitOf(list, before.number-first) + step
		}
		before = p
	}
	return list
}

func (m *reference) transitOf(list []number, i int) float64 { return list[i].transit }

func (n *number) received() bool { return n.came >= 0 && n.came-n.turn <= 200*time.Millisecond }

func (n *number) lost(at time.Duration) bool {
	return !n.received() && at-n.turn > 200*time.Millisecond
}

func (m *reference) sample(at time.Duration) Figures {
	s := m.walk(at)
	f := Figures{Held: s.held}
	if s.held {
		return f
	}
	if s.window != nil {
		m.figures(&f, m.numbers(s.window), at, s.codec)
		f.SSRC = s.window[0].SSRC
	}
	if s.last != nil && at-s.alive >= 2*time.Second && !m.silent(s.last) {
		f.Measured, f.Dead, f.Burst, f.MOS = true, true, at-s.alive, 1
	}
	return f
}

func (m *reference) silent(p *Packet) bool {
	switch c := m.formats[p.PayloadType].codec; c {
	case codecNoise:
		return true
	case codecG729:
		return p.PayloadLength%10 == 2
	case codecOpus:
		return p.PayloadLength <= 2
	}
	return false
}

func (m *reference) figures(f *Figures, list []number, at time.Duration, c codec) {
	var transits []float64
	var seconds [8]struct{ lost, all int }
	steps := map[time.Duration]int{}
	run, longest := 0, 0
	for i := range list {
		n := &list[i]
		if n.turn <= at-8*time.Second || n.turn > at {
			continue
		}
		k := int((at - n.turn) / time.Second)
		switch {
		case n.received():
			f.Received++
			seconds[k].all++
			run = 0
			if !math.IsNaN(n.transit) {
				transits = append(transits, n.transit)
			}
			if b := i - 1; i > 0 && list[b].received() && list[b].pt == n.pt && list[b].turn > at-8*time.Second && int32(n.ts-list[b].ts) > 0 {
				steps[time.Duration(math.Round(float64(n.ts-list[b].ts)/m.formats[n.pt].hz*1e6))*time.Microsecond]++
			}
		case n.lost(at):
			f.Lost++
			seconds[k].lost++
			seconds[k].all++
			run++
			longest = max(longest, run)
		default:
			run = 0
		}
	}
	for _, s := range seconds {
		if s.lost > 0 && 20*s.lost >= s.all {
			f.Events++
		}
	}
	if f.Lost > 0 {
		times := 0
		f.PacketTime = m.ptime
		for s, n := range steps {
			if n > times || n == times && s < f.PacketTime {
				f.PacketTime, times = s, n
			}
		}
		f.Burst = time.Duration(longest) * f.PacketTime
	}
	if len(transits) > 1 {
		slices.Sort(transits)
		f.PDV = time.Duration((transits[int(math.Ceil(0.95*float64(len(transits))))-1] - transits[0]) * float64(time.Second))
	}
	if f.Measured = f.Received+f.Lost > 0; f.Measured {
		ppl := 100 * float64(f.Lost) / float64(f.Lost+f.Received)
		ie, bpl := 5.0, 20.0
		switch c {
		case codecG711, codecG722:
			ie, bpl = 0, 25.1
		case codecG729:
			ie, bpl = 11, 19
		case codecOpus:
			ie, bpl = 0, 30
		}
		f.MOS = mosOf(93.2 - (ie + (95-ie)*ppl/(ppl+bpl)))
	}
}

// mosOf is G.107 annex B.
func mosOf(r float64) float64 {
	switch {
	case r <= 0:
		return 1
	case r >= 100:
		return 4.5
	}
	return max(1, 1+0.035*r+r*(r-60)*(100-r)*7e-6)
}

// scenario is a way to lose, delay and repeat packets, and what else may happen to a stream.
type scenario struct {
	loss, burstLoss, repeat float64
	jitter                  time.Duration
	late                    float64 // of packets that come 150 to 300 ms later
	codecs                  bool    // payload types change, with other clocks and packet times; telephone-events, comfort noise with silence
	restarts                bool    // another SSRC, a jump of numbers or timestamps, strangers' packets
	holds                   bool
}

var testFormats = []Format{
	{PayloadType: 0},
	{PayloadType: 18},
	{PayloadType: 96, Encoding: "opus", ClockRate: 48000},
	{PayloadType: 97, Encoding: "L16", ClockRate: 16000},
	{PayloadType: 101, Encoding: "telephone-event", ClockRate: 8000},
	{PayloadType: 13},
}

var refFormats = map[uint8]refFormat{
	0: {codecG711, 8000}, 18: {codecG729, 8000}, 96: {codecOpus, 48000}, 97: {codecOther, 16000}, 101: {codecEvent, 8000}, 13: {codecNoise, 8000},
}

func (sc scenario) happenings(rnd *rand.Rand, from, length time.Duration, first uint16) []happening {
	var list []happening
	p := Packet{SSRC: 7, Seq: first, PayloadType: 0, PayloadLength: 160}
	gone, step := 0, 20*time.Millisecond
	for at, i := from, 0; at < from+length; at, i = at+step, i+1 {
		hz := refFormats[p.PayloadType].hz
		if i > 0 {
			p.Seq++
			p.Timestamp += uint32(step.Seconds() * hz)
		}
		if sc.codecs && rnd.IntN(150) == 0 {
			p.PayloadType = []uint8{0, 0, 18, 96, 97, 101, 13}[rnd.IntN(7)]
			step = []time.Duration{10, 20, 30, 60}[rnd.IntN(4)] * time.Millisecond
			p.PayloadLength = []int{160, 20, 2, 1}[rnd.IntN(4)]
			if rnd.IntN(4) == 0 { // silence, announced or not
				at += time.Duration(rnd.IntN(4000)) * time.Millisecond
			}
		}
		if sc.restarts && rnd.IntN(200) == 0 {
			switch rnd.IntN(4) {
			case 0:
				p.SSRC++
			case 1:
				p.Seq += uint16(rnd.IntN(6000)) - 500
			case 2:
				p.Timestamp += rnd.Uint32()
			default:
				odd := p
				odd.At, odd.SSRC, odd.Seq = at, 99, uint16(rnd.IntN(1<<16))
				list = append(list, happening{Packet: odd})
			}
		}
		if sc.holds && rnd.IntN(150) == 0 {
			list = append(list, happening{Packet: Packet{At: at}, hold: true, held: rnd.IntN(2) == 0})
		}
		if gone == 0 && rnd.Float64() < sc.burstLoss {
			gone = 1 + rnd.IntN(20)
		}
		if gone > 0 || rnd.Float64() < sc.loss {
			gone = max(0, gone-1)
			if i > 0 {
				continue
			}
		}
		q := p
		q.At = at
		if sc.jitter > 0 && i > 0 {
			q.At += time.Duration(rnd.Int64N(int64(sc.jitter)))
		}
		if i > 0 && rnd.Float64() < sc.late {
			q.At += 150*time.Millisecond + time.Duration(rnd.IntN(150))*time.Millisecond
		}
		list = append(list, happening{Packet: q})
		if rnd.Float64() < sc.repeat {
			q.At += time.Duration(rnd.IntN(400)) * time.Millisecond
			list = append(list, happening{Packet: q})
		}
	}
	slices.SortStableFunc(list, func(a, b happening) int { return int(a.At - b.At) })
	return list
}

// The stream's figures are those of the slow reference at every sample, whatever the network and the far end did.
func TestFiguresAgainstReference(t *testing.T) {
	all := scenario{loss: 0.03, burstLoss: 0.005, jitter: 90 * time.Millisecond, repeat: 0.05, late: 0.02}
	everything := all
	everything.codecs, everything.restarts, everything.holds = true, true, true
	for name, sc := range map[string]scenario{
		"clean": {}, "loss": {loss: 0.05}, "bursts": {burstLoss: 0.01}, "jitter": {jitter: 60 * time.Millisecond}, "repeats": {repeat: 0.1}, "late": {late: 0.05}, "all": all,
		"codecs": {codecs: true}, "codecs and loss": {codecs: true, loss: 0.04, jitter: 30 * time.Millisecond}, "restarts": {restarts: true, loss: 0.02, jitter: 15 * time.Millisecond},
		"holds": {holds: true, loss: 0.05}, "everything": everything,
	} {
		t.Run(name, func(t *testing.T) {
			seen := 0
			for seed := range uint64(16) {
				rnd := rand.New(rand.NewPCG(seed, 7))
				first := []uint16{1, 65000, 65535, 30000}[seed%4]
				m := &reference{all: sc.happenings(rnd, time.Second, 20*time.Second, first), formats: refFormats, ptime: 30 * time.Millisecond}
				s := NewStream(testFormats, 30*time.Millisecond)
				next := 0
				every := []time.Duration{50, 100, 600, 50, 2000, 150, 50, 5000}[seed%8] * time.Millisecond // a late sample finds the same
				for at := time.Second; at < 24*time.Second; at += every {
					for ; next < len(m.all) && m.all[next].At <= at; next++ {
						if h := &m.all[next]; h.hold {
							s.SetHold(h.At, h.held)
						} else {
							s.Packet(h.Packet)
						}
					}
					got, want := s.Sample(at), m.sample(at)
					got.SSRC, want.SSRC = 0, 0
					pdv, mos := got.PDV-want.PDV, got.MOS-want.MOS
					got.PDV, got.MOS, want.PDV, want.MOS = 0, 0, 0, 0
					if got.Measured {
						seen++
					}
					if got.Dead { // burst is the silence
						got.PacketTime, want.PacketTime = 0, 0
					}
					if got != want || pdv.Abs() > time.Millisecond || math.Abs(mos) > 1e-9 {
						t.Fatalf("seed %d at %v: pdv differs by %v, mos by %v\ngot  %+v\nwant %+v", seed, at, pdv, mos, got, want)
					}
				}
			}
			if seen < 1000 {
				t.Errorf("%d samples measured", seen)
			}
		})
	}
}

// MOS of the E-model, worked out by hand: without loss (R = 93.2 is 4.41, as ITU-T G.107 says of its defaults), and at a loss.
func TestMOS(t *testing.T) {
	for _, x := range []struct {
		encoding  string
		loss, mos float64
	}{
		{"PCMU", 0, 4.41},
		{"PCMA", 0, 4.41},
		{"G722", 0, 4.41},
		{"opus", 0, 4.41},
		{"G729", 0, 4.10},
		{"iLBC", 0, 4.29},
		{"PCMU", 5, 3.92},
		{"opus", 5, 4.01},
		{"G729", 5, 3.34},
		{"GSM", 5, 3.61},
		{"PCMU", 100, 1.18}, // R 77.4, 79.6, 64.7, 70.2, 17.3
	} {
		if got := codecOf(x.encoding).mos(x.loss); math.Abs(got-x.mos) > 0.005 {
			t.Errorf("%s at %v %%: %.4f, want %v", x.encoding, x.loss, got, x.mos)
		}
	}
}
