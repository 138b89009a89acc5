package testbed

import (
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	churnRate  = 2100 // streams that are set up or torn down, a second: 2,000 with the time that the last ones take counted in
	churnLines = 32   // streams of a call: as many m= lines as the daemon takes
	churnTime  = 5 * time.Second
	churnMost  = 400_000 // packets/s that a load's socket could send at best
)

// mediaChurn is a run in which calls come and go beside the packets of those that stand.
type mediaChurn struct {
	PPS     int     `json:"packets_per_second"` // that the generator sent
	Packets int     `json:"packets"`
	Lost    int     `json:"lost"`
	Streams float64 `json:"streams_per_second"` // set up or torn down
}

// churning measures at the highest rate, of some from pps down, at which nothing is lost beside the calls.
func (r *mediaRelay) churning(t T, pps int) *mediaChurn {
	t.Helper()
	for {
		c := r.churnAt(t, pps)
		t.Logf("%s at %d packets/s and %.0f streams/s: %d of %d packets lost", r.name, c.PPS, c.Streams, c.Lost, c.Packets)
		if c.Lost == 0 && c.Streams >= 0.97*churnRate || pps <= 50_000 {
			return c
		}
		pps = pps * 4 / 5
	}
}

// churnAt asks the generator for a rate.
func (r *mediaRelay) churnAt(t T, pps int) *mediaChurn {
	t.Helper()
	pinProcess(t, r.process.Pid())
	load := r.protect.some(*benchMany)
	stop, stopped := make(chan struct{}), make(chan struct{})
	var calls sync.WaitGroup
	var ended atomic.Int64
	begin := time.Now()
	go func() {
		defer close(stopped)
		tick := time.NewTicker(time.Second * 2 * churnLines / churnRate)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				calls.Go(func() {
					r.comeAndGo(t)
					ended.Add(1)
				})
			}
		}
	}()
	load.run(t, mediaRun{rate: pps, time: churnTime})
	close(stop)
	<-stopped
	calls.Wait()
	streams := float64(ended.Load()) * 2 * churnLines / time.Since(begin).Seconds()
	if load.wrong.Load() > 0 {
		t.Errorf("%s, while calls come and go: %s", r.name, load)
	}
	return &mediaChurn{PPS: load.sent / int(churnTime/time.Second), Packets: load.sent, Lost: load.sent - int(load.received), Streams: streams}
}

// comeAndGo sets up a call of as many lines as there may be, and ends it.
func (s *StubLab) comeAndGo(t T, conn *StubConn) {
	t.Helper()
	offer := plainOffer(s.A.PhoneIP.String(), 4000)
	for range churnLines - 1 {
		offer = withVideo(offer, 4000, nil)
	}
	agent := s.Outbound(conn)
	inv := agent.Request(t, "INVITE", sdp(offer))
	seen := s.Far.Expect(t, InCall(agent.CallID, ReqIs("INVITE")), wait)
	key := NewStubCrypto(CryptoOf(t, seen.Body, srtpSuites[0]).Tag, srtpSuites[0])
	answer := secureOffer(s.B.MediaOut.String(), 20000, key.Line())
	for range churnLines - 1 {
		answer = withVideo(answer, 20000, &key)
	}
	far := s.Far.AnswerLeg(seen)
	far.Respond(t, seen, 200, "OK", sdp(answer))
	ok := agent.AwaitStatus(t, inv, 200)
	if n := len(MediaLines(t, ok.Body)); n != churnLines {
		t.Fatalf("%d lines of %d", n, churnLines)
	}
	agent.Learn(ok)
	agent.Ack(t)
	far.Expect(t, "ACK")
	agent.Transact(t, far, "BYE", 200)
}

// mediaMemory is what a monitored call takes on the media side, in bytes: its stream, and what judges its quality, as long as nothing is lost.
func mediaMemory(t T) int64 {
	t.Helper()
	sum := int64(0)
	for dir, test := range map[string]string{"./mediaterm": "^TestMemoryOfAStream$", "./fallback": "^TestMemoryOfAWindow$"} {
		out, err := run(exec.CommandContext, "go", "test", "-C", Root(), "-count=1", "-v", "-run", test, dir)
		m := regexp.MustCompile(`: (\d+) bytes`).FindStringSubmatch(out)
		if err != nil || m == nil {
			t.Fatalf("%s: %v: %s", test, err, out)
		}
		n, _ := strconv.ParseInt(m[1], 10, 64)
		sum += n
	}
	return sum
}
