package testbed

import (
	"slices"
	"testing"
	"time"

	"github.com/pion/rtp"
)

// Sequence numbers go round more than once in each direction, with re-INVITEs
// in between (a rollover counter that starts anew there gives one-way sound
// after some 20 minutes), with packets lost and changing places at the wraps,
// and with damaged and repeated ones among them.
func TestMediaWrap(t *testing.T) {
	s := StartStubs(t)
	t.Run("more than a whole cycle", func(t *testing.T) {
		k := s.talk(t, true, srtpSuites[1])
		k.far.UseLibsrtp(t, k.farKey, k.ourKey)
		k.phone.Seq, k.far.Seq = 64000, 60000
		mediaWraps(t, k, 65536+6400, 4096)
		k.end(t)
	})
	for _, suite := range []string{srtpSuites[0], srtpSuites[2], srtpSuites[3]} {
		t.Run(suite, func(t *testing.T) {
			k := s.talk(t, false, suite)
			k.far.UseLibsrtp(t, k.farKey, k.ourKey)
			k.phone.Seq, k.far.Seq = 65500, 65400
			mediaWraps(t, k, 512, 64)
			k.end(t)
		})
	}
	checkReturned(t, s)
}

// mediaWraps lets each end send total packets in bursts, with a re-INVITE, a
// damaged and a repeated packet every so many.
func mediaWraps(t *testing.T, k *talk, total, every int) {
	const burst = 64
	// The engine takes 200 packets of a stream in 20 ms; more is a flood to it, which a fast machine would make of the bursts.
	const pace = 10 * time.Millisecond
	next := time.Now()
	in, out := k.in, k.out
	var sent, lost, reinvites int
	for n := 0; n < total; n += burst {
		time.Sleep(time.Until(next))
		next = time.Now().Add(pace)
		events := n%every == 0
		if events && n > 0 {
			seen, back := k.again(t, reinvites%2 == 0, nil, nil)
			k.learnFrom(t, reinvites%2 == 0, seen, back)
			reinvites++
			k.reports(t, false) // their indices go on too
		}
		toFar, gap := disturbed(k.phone, burst)
		lost += gap
		for _, p := range toFar {
			k.phone.SendRaw(t, k.in, k.phone.Seal(t, p))
		}
		toPhone, _ := disturbed(k.far, burst)
		for i, p := range toPhone {
			b := k.far.Seal(t, p)
			if events && i == 0 {
				bad := slices.Clone(b)
				bad[len(bad)-n/every%len(bad)-1] ^= 1
				k.far.SendRaw(t, k.out, bad)
			}
			k.far.SendRaw(t, k.out, b)
			if events && i == 20 {
				k.far.SendRaw(t, k.out, b)
			}
		}
		arrives(t, k.far, toFar)
		arrives(t, k.phone, toPhone)
		sent += burst
	}
	if k.in != in || k.out != out || reinvites < 7 {
		t.Errorf("%d re-INVITEs moved the ports from %v, %v to %v, %v", reinvites, in, out, k.in, k.out)
	}
	m, bad := k.shown(t), reinvites+1
	if m.Outside.Auth != bad || m.Outside.Replays != bad {
		t.Errorf("%d damaged and as many repeated packets are shown as %d and %d", bad, m.Outside.Auth, m.Outside.Replays)
	}
	if m.Outside.Tx != sent || m.Inside.Rx != sent || m.Outside.Rx != sent || m.Inside.Tx != sent || m.Outside.Dropped != 0 || m.Inside.Dropped != 0 {
		t.Errorf("%d packets were sent each way: %+v", sent, m)
	}
	if m.Inside.Lost != lost || lost == 0 {
		t.Errorf("%d packets of the phone were lost, shown are %d", lost, m.Inside.Lost)
	}
}

// disturbed makes an end's next packets: around a wrap some are missing and others change places.
func disturbed(m *MediaStub, n int) (list []*rtp.Packet, lost int) {
	for len(list) < n {
		p := m.Packet()
		if p.SequenceNumber == 65534 || p.SequenceNumber == 1 || p.SequenceNumber == 2 {
			lost++
			continue
		}
		list = append(list, p)
	}
	for i := 1; i < len(list)-1; i++ {
		if list[i].SequenceNumber == 65535 {
			list[i], list[i+1] = list[i+1], list[i]
			break
		}
	}
	return list, lost
}
