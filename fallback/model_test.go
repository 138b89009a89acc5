package fallback

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// arrival is a packet of a test: number counts on without wrap.
type arrival struct {
	at     time.Duration
	number int
	ts     uint32
	pt     uint8
}

// model computes the figures of a sample from the words of the protocol file, over all packets at once. It knows no odd packets and no holds.
type model struct {
	packets []arrival // in the order of arrival
	hz      float64
	ptime   time.Duration
}

type number struct {
	turn, came time.Duration // came: of the first copy, -1: none
	ts         uint32
	pt         uint8
}

// numbers gives those from the first packet's to the highest that have arrived by an instant.
func (m *model) numbers(at time.Duration) []number {
	first := m.packets[0].number
	var list []number
	for _, p := range m.packets {
		if p.at > at || p.number < first {
			continue
		}
		for len(list) <= p.number-first {
			list = append(list, number{turn: p.at, came: -1})
		}
		if n := &list[p.number-first]; n.came < 0 {
			n.came, n.ts, n.pt = p.at, p.ts, p.pt
		}
	}
	return list
}

func (n *number) received() bool { return n.came >= 0 && n.came-n.turn <= 200*time.Millisecond }

func (n *number) lost(at time.Duration) bool {
	return !n.received() && at-n.turn > 200*time.Millisecond
}

func (m *model) sample(at time.Duration) Figures {
	var f Figures
	var transits []float64
	var seconds [8]struct{ lost, all int }
	steps := map[uint32]int{}
	run, longest := 0, 0
	list := m.numbers(at)
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
			transits = append(transits, n.came.Seconds()-float64(n.ts)/m.hz)
			if i > 0 && list[i-1].received() && list[i-1].pt == n.pt && list[i-1].turn > at-8*time.Second && n.ts > list[i-1].ts {
				steps[n.ts-list[i-1].ts]++
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
	step, times := uint32(0), 0
	for s, n := range steps {
		if n > times || n == times && s < step {
			step, times = s, n
		}
	}
	f.PacketTime = m.ptime
	if times > 0 {
		f.PacketTime = time.Duration(float64(step) / m.hz * float64(time.Second))
	}
	f.Burst = time.Duration(longest) * f.PacketTime
	if len(transits) > 1 {
		slices.Sort(transits)
		f.PDV = time.Duration((transits[int(math.Ceil(0.95*float64(len(transits))))-1] - transits[0]) * float64(time.Second))
	}
	return f
}

// scenario is a way to lose, delay and repeat packets.
type scenario struct {
	loss, burstLoss, repeat float64
	jitter                  time.Duration
	late                    float64 // of packets that come 150 to 300 ms later
}

func (sc scenario) packets(rnd *rand.Rand, from time.Duration, n int, first int) []arrival {
	var list []arrival
	gone := 0
	for i := range n {
		if gone == 0 && rnd.Float64() < sc.burstLoss {
			gone = 1 + rnd.IntN(20)
		}
		if gone > 0 || rnd.Float64() < sc.loss {
			gone = max(0, gone-1)
			if i > 0 {
				continue
			}
		}
		p := arrival{at: from + time.Duration(i)*20*time.Millisecond, number: first + i, ts: uint32(160 * i)}
		if sc.jitter > 0 && i > 0 {
			p.at += time.Duration(rnd.Int64N(int64(sc.jitter)))
		}
		if i > 0 && rnd.Float64() < sc.late {
			p.at += 150*time.Millisecond + time.Duration(rnd.IntN(150))*time.Millisecond
		}
		list = append(list, p)
		if rnd.Float64() < sc.repeat {
			p.at += time.Duration(rnd.IntN(400)) * time.Millisecond
			list = append(list, p)
		}
	}
	slices.SortStableFunc(list, func(a, b arrival) int { return int(a.at - b.at) })
	return list
}

// The stream's figures are those of the model at every sample, whatever the network did.
func TestFiguresAgainstModel(t *testing.T) {
	for name, sc := range map[string]scenario{
		"clean": {}, "loss": {loss: 0.05}, "bursts": {burstLoss: 0.01}, "jitter": {jitter: 60 * time.Millisecond}, "repeats": {repeat: 0.1},
		"late": {late: 0.05}, "all": {loss: 0.03, burstLoss: 0.005, jitter: 90 * time.Millisecond, repeat: 0.05, late: 0.02},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(8) {
				rnd := rand.New(rand.NewPCG(seed, 7))
				first := []int{1, 65000, 65535, 30000}[seed%4]
				m := &model{packets: sc.packets(rnd, time.Second, 1000, first), hz: 8000, ptime: 30 * time.Millisecond}
				s := NewStream([]Format{{PayloadType: 0}}, 30*time.Millisecond)
				next := 0
				for at := time.Second; at < 24*time.Second; at += 50 * time.Millisecond {
					for ; next < len(m.packets) && m.packets[next].at <= at; next++ {
						p := m.packets[next]
						s.Packet(Packet{At: p.at, SSRC: 1, Seq: uint16(p.number), Timestamp: p.ts, PayloadType: p.pt, Authentic: true, PayloadLength: 160})
					}
					if next == 0 {
						continue
					}
					got, want := s.Sample(at), m.sample(at)
					if got.Dead {
						continue
					}
					if want.Lost == 0 {
						want.Burst, want.PacketTime = 0, 0
					}
					pdv := got.PDV - want.PDV
					if got.Received != want.Received || got.Lost != want.Lost || got.Events != want.Events || got.Burst != want.Burst || pdv.Abs() > time.Millisecond {
						t.Fatalf("seed %d at %v:\ngot  %+v\nwant %+v", seed, at, got, want)
					}
				}
			}
		})
	}
}
