package testbed

import (
	"syscall"
	"time"
)

// What runs beside a relay on its core while it is measured, and what it has to relay then.
const (
	busyPrograms = 3
	busyRate     = 100_000
	busyTime     = 5 * time.Second
)

// mediaBusy is what a relay did beside programs that want its core whole.
type mediaBusy struct {
	Programs int     `json:"programs"`
	Packets  int     `json:"packets"`
	Lost     int     `json:"lost"`
	P99      float64 `json:"p99_us"` // added delay at the even pace of the other figures
}

func (m *mediaBusy) percent() float64 { return 100 * float64(m.Lost) / float64(max(1, m.Packets)) }

// beside measures the relay while other programs, with the usual place among programs, have work for all of its core: a backup, a build, an attack on
// something else.
func (r *mediaRelay) beside(t T) *mediaBusy {
	t.Helper()
	for range busyPrograms {
		p, err := r.lab.A.EdgeHost.Start("busy", StartOptions{}, "taskset", "-c", "1", "sh", "-c", "while :; do :; done")
		if err != nil {
			t.Fatalf("%v", err)
		}
		defer p.Stop(syscall.SIGKILL, 5*time.Second)
	}
	r.takesFrames(t, "on")
	h := r.pour(t, *benchMany, busyRate, false, busyTime)
	r.takesFrames(t, "off")
	t.Logf("%s beside %d busy programs: %s", r.name, busyPrograms, h)
	r.sample(t, sampleDelay)
	defer r.sample(t, sampleCost)
	load := r.protect.some(*benchCalls)
	load.run(t, mediaRun{rate: 50 * *benchCalls, time: *benchTime})
	return &mediaBusy{Programs: busyPrograms, Packets: h.sent, Lost: h.sent - h.received, P99: load.percentile(0.99)}
}
