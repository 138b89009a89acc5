package proxy

import (
	"math/rand/v2"
	"strings"
	"time"

	"imeproxy/fallback"
	"imeproxy/mediaterm"
)

// reportEvery is how often a far end is told on average (RFC 3550 section 6.2); the times vary by half of it, so that reports do not fall together.
const reportEvery = 5 * time.Second

// reported is an audio line that the far end outside is told of.
type reported struct {
	reporter *mediaterm.Reporter
	stream   *mediaterm.Stream
	quality  *fallback.Stream
	codec    string
}

func nextReport(at time.Duration) time.Duration { return at + reportEvery/2 + rand.N(reportEvery) }

// tell takes the audio lines of a call of which its far end is told from now on.
func (c *callQuality) tell(lines []reported) {
	c.q.mu.Lock()
	defer c.q.mu.Unlock()
	for i := range lines {
		for _, old := range c.reported {
			if old.stream == lines[i].stream {
				lines[i].reporter = old.reporter
			}
		}
	}
	c.reported = lines
}

// toReport are the lines of a lane whose turn it is.
func (q *quality) toReport(lane int, at time.Duration) (out []reported) {
	if p := q.a.plan.Load(); !p.proxying() || !p.UCIME.ReportXR {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, c := range q.lanes[lane] {
		if at < c.reportAt || len(c.reported) == 0 {
			continue
		}
		if c.reportAt > 0 {
			for i := range c.reported {
				if r := &c.reported[i]; r.reporter == nil {
					r.reporter = mediaterm.NewReporter(r.stream)
				}
			}
			out = append(out, c.reported...)
		}
		c.reportAt = nextReport(at)
	}
	return out
}

// report sends one. A stream that was heard of nothing, is on hold or has no key has none, and its packets are counted as any.
func (r *reported) report(now time.Time) {
	_ = r.reporter.Send(r.voip(), now)
}

// voip are the figures of a line since it began.
func (r *reported) voip() mediaterm.VoIP {
	b, loss := r.quality.Bursts(), r.quality.LossRatio()
	name, _, _ := strings.Cut(r.codec, "/")
	rating, mos := fallback.MOS(name, 100*loss)
	v := mediaterm.VoIP{
		Loss: loss, BurstDensity: b.Density, GapDensity: b.GapDensity, BurstLength: b.Length, GapLength: b.GapLength, R: -1, MOSLQ: mos, MOSCQ: -1,
	}
	if trip := r.stream.Stats().Outside.Report; trip.RoundTrip {
		v.R, v.MOSCQ = fallback.Conversational(rating, trip.RoundTripMS/2)
	}
	return v
}
