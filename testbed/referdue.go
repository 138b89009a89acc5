package testbed

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"time"
)

// Badness is what a sample must exceed to be bad: loss in percent, burst and pdv in ms, events of eight.
type Badness struct {
	Loss, Burst, PDV float64
	Events           int
}

// levels are the built-in thresholds of the sensitivity levels 1 to 5.
var levels = [6]Badness{
	1: {20, 1200, 400, 7},
	2: {10, 600, 200, 5},
	3: {5, 300, 80, 3},
	4: {2, 120, 40, 2},
	5: {0.5, 40, 20, 1},
}

const (
	sampleEvery = 100 * time.Millisecond
	windowSpan  = 8 * time.Second
	lateLimit   = 200 * time.Millisecond
)

// heardStream is an audio stream as it arrived, number by number.
type heardStream struct {
	clock   float64 // Hz
	packets []RTP   // in the order of arrival
	turn    []time.Time
	came    []time.Time // zero: never
	stamp   []uint32
}

// newHeardStream finds the turn of each number: when it, or a higher one, first came. Streams without odd packets alone.
func newHeardStream(packets []RTP) *heardStream {
	h := &heardStream{clock: 8000, packets: packets}
	base, last := int(packets[0].Seq), int(packets[0].Seq)
	for _, p := range packets {
		n := last + int(int16(p.Seq-uint16(last)))
		last = max(last, n)
		if n < base {
			continue
		}
		for len(h.turn) <= n-base {
			h.turn, h.came, h.stamp = append(h.turn, p.Time), append(h.came, time.Time{}), append(h.stamp, 0)
		}
		if h.came[n-base].IsZero() {
			h.came[n-base], h.stamp[n-base] = p.Time, p.Timestamp
		}
	}
	return h
}

// bad judges the sample at a time, by keeping every packet.
func (h *heardStream) bad(at time.Time, limit Badness) bool {
	arrived := func(i int) bool { return !h.came[i].IsZero() && !h.came[i].After(at) }
	n := sort.Search(len(h.packets), func(i int) bool { return h.packets[i].Time.After(at) })
	if n == 0 {
		return false
	}
	if at.Sub(h.packets[n-1].Time) >= 2*time.Second {
		return true
	}
	var lost, received, run, longest int
	var second [8][2]int // lost, counted
	var transit []float64
	old := sort.Search(len(h.turn), func(i int) bool { return at.Sub(h.turn[i]) < windowSpan })
	for i := old; i < len(h.turn) && !h.turn[i].After(at); i++ {
		u := h.turn[i]
		k := int(at.Sub(u) / time.Second)
		switch {
		case arrived(i) && h.came[i].Sub(u) <= lateLimit:
			received++
			second[k][1]++
			run = 0
			transit = append(transit, 1000*(h.came[i].Sub(h.packets[0].Time).Seconds()-float64(int32(h.stamp[i]-h.packets[0].Timestamp))/h.clock))
		case at.Sub(u) > lateLimit:
			lost++
			second[k][0]++
			second[k][1]++
			run++
			longest = max(longest, run)
		}
	}
	events := 0
	for _, s := range second {
		if s[1] > 0 && 20*s[0] >= s[1] {
			events++
		}
	}
	pdv := 0.0
	if len(transit) > 1 {
		slices.Sort(transit)
		pdv = transit[int(math.Ceil(0.95*float64(len(transit))))-1] - transit[0]
	}
	const packetTime = 20 // ms, of every phone in the lab
	return 100*float64(lost) > limit.Loss*float64(lost+received) || packetTime*float64(longest) > limit.Burst || pdv > limit.PDV || events > limit.Events
}

// ReferDue says when a call whose only stream from the Internet arrived like this is to be told of: zero is never, as far as the
// packets go. Samples are taken at phase after the first packet, then every 100 ms until the last. It follows the project's
// fallback protocol (docs/fallback.md) and shares nothing with the program under test.
func ReferDue(packets []RTP, until time.Time, holdDown time.Duration, limit Badness, phase time.Duration) time.Time {
	h := newHeardStream(packets)
	var since, lastBad time.Time // of suspicion; zero: good
	var counted, badOnes int
	decided := false // at least half was bad, but not the deciding sample
	for at := packets[0].Time.Add(phase); !at.After(until); at = at.Add(sampleEvery) {
		bad := h.bad(at, limit)
		if bad {
			lastBad = at
		}
		switch {
		case since.IsZero():
			if bad {
				since, counted, badOnes, decided = at, 0, 0, false
			}
			continue
		case at.Sub(lastBad) >= windowSpan:
			since = time.Time{}
			continue
		}
		counted++
		if bad {
			badOnes++
		}
		switch {
		case decided && bad:
			return at
		case decided || at.Sub(since) < holdDown:
		case 2*badOnes < counted:
			since = time.Time{}
		case bad:
			return at
		default:
			decided = true
		}
	}
	return time.Time{}
}

// ReferDues are the due times for sampling phases 5 ms apart; a call's samples may begin at any. One of the phases has a sample at
// the time of the notification, zero where there was none: were it early by a millisecond, that one would tell.
func ReferDues(packets []RTP, refer, until time.Time, holdDown time.Duration, limit Badness) (dues []time.Time) {
	var begin time.Duration
	if !refer.IsZero() {
		begin = refer.Sub(packets[0].Time) % sampleEvery
	}
	for phase := time.Duration(0); phase < sampleEvery; phase += 5 * time.Millisecond {
		dues = append(dues, ReferDue(packets, until, holdDown, limit, (begin+phase)%sampleEvery))
	}
	return dues
}

// referFits compares a notification with the times when it was due, by the phases of the sampling: it must come within three
// samples of one of them, and none comes where none is due. It returns how long after the nearest it came.
func referFits(refer time.Time, dues []time.Time) (late time.Duration, err error) {
	if refer.IsZero() {
		if !slices.ContainsFunc(dues, time.Time.IsZero) {
			return 0, fmt.Errorf("none came; due at %v", dues[0])
		}
		return 0, nil
	}
	late = -1
	for _, due := range dues {
		if d := refer.Sub(due); !due.IsZero() && d >= 0 && (late < 0 || d < late) {
			late = d
		}
	}
	switch {
	case late < 0:
		return 0, errors.New("one came before it was due, or where none is")
	case late > 3*sampleEvery:
		return late, fmt.Errorf("it came %v after it was due", late)
	}
	return late, nil
}

// notification is the time of a proxy's REFER about a call in a capture of its inside, zero when there is none. The call is named
// by its Call-ID, or by "" where it is the only one.
func notification(packets []Packet, callID string) time.Time {
	for _, p := range packets {
		if p.Proto == protoTCP && bytes.Contains(p.Payload, []byte("REFER ")) && bytes.Contains(p.Payload, []byte("X-Cisco-UC-IME-Quality:")) &&
			bytes.Contains(p.Payload, []byte("Target-Dialog: "+callID)) {
			return p.Time
		}
	}
	return time.Time{}
}
