package proxy

import (
	"fmt"
	"time"

	"imeproxy/mediaterm"
	"imeproxy/proxy/observe"
)

// mediaOverload is the health problem of media that is dropped because nobody took it in time.
const mediaOverload = "media_overload"

// overloadFor is how long it stays on the list after the last packet that was dropped.
const overloadFor = time.Minute

// overload watches what the media engine could not relay. It is the sweeping goroutine's own.
type overload struct {
	term    *mediaterm.Terminator // that the figures are of
	dropped uint64                // at the last look
	stalls  mediaterm.Stalls      // at the last look
	before  mediaterm.Stalls      // at the last look before the problem was listed
	last    time.Time             // when some were dropped last
	lost    uint64                // since the problem was listed
	listed  bool
}

// sweepMedia lists a problem while packets of media are dropped.
func (a *Appliance) sweepMedia(now time.Time) {
	o, c := &a.overload, mediaterm.EngineCounters{}
	t := a.term.Load() // nil: the configuration has no media any more
	if o.term != t {
		o.term, o.dropped, o.stalls = t, 0, mediaterm.Stalls{}
	}
	if t != nil {
		c = t.Counters().EngineCounters
	}
	listed := o.listed
	p := o.look(now, c)
	switch {
	case p != nil:
		a.health.Raise(*p)
		if !listed {
			a.log.Warn("health problem", "problem", p.Code, "impact", p.Impact, "what_to_do", p.WhatToDo)
		}
	case listed && !o.listed:
		a.log.Info("media is not dropped any more", "dropped", o.lost)
		a.health.Clear(mediaOverload, "")
	}
}

// look tells what is to be listed, if packets have been dropped since it looked last.
func (o *overload) look(now time.Time, c mediaterm.EngineCounters) *observe.Problem {
	most := max(o.dropped, c.KernelDrops) // a socket that is being closed counts none any more
	lost := most - o.dropped
	defer func() { o.dropped, o.stalls = most, c.Stalls }()
	if lost == 0 {
		o.listed = o.listed && now.Sub(o.last) < overloadFor
		return nil
	}
	if !o.listed {
		o.listed, o.lost, o.before = true, 0, o.stalls
	}
	o.last, o.lost = now, o.lost+lost
	p := overloadProblem(now, o.lost, c, o.before)
	return &p
}

// overloadProblem tells of packets that were dropped, and what to do: a core that others keep busy needs something else than one that cannot do more.
// before are the stalls that there had been until then.
func overloadProblem(now time.Time, lost uint64, c mediaterm.EngineCounters, before mediaterm.Stalls) observe.Problem {
	p := observe.Problem{
		Code: mediaOverload, Severity: observe.Major, Since: now,
		Impact: fmt.Sprintf("%d packets of media were dropped, as they were not taken in time: voices break up", lost),
	}
	forCore := c.Stalls.ForCore > before.ForCore
	switch {
	case forCore && c.NiceDenied:
		p.WhatToDo = fmt.Sprintf("other programs keep the core busy, and media has no place before them: start the daemon with LimitNICE=%d (as its unit does) or CAP_SYS_NICE", mediaterm.WorkerNice)
	case forCore:
		p.WhatToDo = fmt.Sprintf("the core was busy for up to %d ms with what goes before media, or the hypervisor took it: give the machine cores of its own", c.Stalls.Longest.Milliseconds())
	default:
		p.WhatToDo = "more came than the media workers' cores can relay: fewer calls or more cores; `show media-termination` tells whether it was a flood (dropped flood, dropped no stream)"
	}
	return p
}
