package proxy

import (
	"slices"

	"imeproxy/fallback"
	"imeproxy/proxy/observe"
)

// worstCalls is how many calls `show uc-ime quality` lists.
const worstCalls = 20

// Quality lists the calls that sound worst now.
func (a *Appliance) Quality() observe.Quality {
	type sampled struct {
		c *callQuality
		r fallback.Result
	}
	var all []sampled
	q := a.quality
	q.mu.Lock()
	for _, lane := range q.lanes {
		for _, c := range lane {
			all = append(all, sampled{c, c.monitor.Last()})
		}
	}
	q.mu.Unlock()
	slices.SortFunc(all, func(x, y sampled) int {
		switch {
		case silent(&x.r) != silent(&y.r): // nothing is worse to listen to
			if silent(&x.r) {
				return -1
			}
			return 1
		case x.r.Worse(&y.r):
			return -1
		case y.r.Worse(&x.r):
			return 1
		}
		return 0
	})
	out := observe.Quality{Monitored: len(all)}
	for _, s := range all[:min(len(all), worstCalls)] {
		out.Calls = append(out.Calls, s.c.call.quality(s.r))
	}
	out.Omitted = len(all) - len(out.Calls)
	return out
}

// silent tells whether nothing has come from the Internet that could be judged, though it should: the streams are answered and not on hold. The
// state of such a call is good by the protocol, as there is no sample to call bad.
func silent(r *fallback.Result) bool { return r.Sampled && !r.Figures.Measured }

// quality describes a call and its latest sample.
func (c *call) quality(r fallback.Result) observe.QualityCall {
	o := observe.QualityCall{State: r.State.String(), Level: r.Level.String(), Bad: r.Bad}
	if silent(&r) {
		o.State = "silent"
	}
	if f := &r.Figures; f.Measured {
		o.Loss, o.BurstMS, o.PDVMS = rounded(f.Loss()), rounded(float64(f.Burst.Microseconds())/1000), rounded(float64(f.PDV.Microseconds())/1000)
		o.Events, o.MOS = rounded(float64(f.Events)), rounded(f.MOS)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	o.CallID, o.SessionID, o.Direction, o.From, o.To, o.PeerDomain = c.d.ID, c.rec.SessionID, c.rec.Direction, c.rec.From, c.rec.To, c.rec.PeerDomain
	for _, l := range c.media.lines {
		if l.stream == nil || l.quality == nil {
			continue
		}
		if far := l.stream.Stats().Outside.Report; far.Reports > 0 {
			o.FarLoss = rounded(far.LossPercent)
		}
	}
	return o
}
