package proxy

import (
	"fmt"
	"log/slog"
	"strings"

	"imeproxy/mapping"
	"imeproxy/mediaterm"
	"imeproxy/proxy/config"
	"imeproxy/proxy/observe"
)

// mediaEngine is the engine that moves the packets, from the first configuration with a media termination to the end of the daemon:
// the streams of former configurations live in it too.
type mediaEngine struct {
	chosen   bool
	keyword  string            // what the configuration said when it was chosen
	fast     *mediaterm.TProxy // nil: engine sockets, which has no state of its own
	fallback string            // why it is not the fast one although the configuration leaves the choice
}

// open chooses the engine at the first configuration that needs one. proveEngine then sees
// whether it works here. Afterwards it only sets what can be changed.
func (e *mediaEngine) open(m *config.MediaTermination, log *slog.Logger) error {
	if e.chosen {
		if m.Engine != e.keyword {
			return fmt.Errorf("media-termination %s: the engine cannot be changed while the daemon runs: restart it, or leave the engine command as it was", m.Name)
		}
		if e.fast != nil {
			e.fast.SetWait(m.BatchWait)
		}
		return nil
	}
	if m.Engine == mediaterm.EngineSockets {
		e.chosen, e.keyword = true, m.Engine
		return nil
	}
	open := mediaterm.TProxyConfig{Wait: m.BatchWait, Log: log, XDP: m.Engine != mediaterm.EngineTProxy}
	fast, err := mediaterm.OpenTProxy(open)
	if err != nil && m.Engine == "" {
		log.Info("media is moved without AF_XDP", "err", err)
		open.XDP = false
		fast, err = mediaterm.OpenTProxy(open)
	}
	if err != nil {
		return e.without(m, err, log)
	}
	e.chosen, e.keyword, e.fast = true, m.Engine, fast
	return nil
}

// without goes on with engine sockets, unless the configuration demands the fast one.
func (e *mediaEngine) without(m *config.MediaTermination, cause error, log *slog.Logger) error {
	if m.Engine != "" {
		return fmt.Errorf("media-termination %s: engine %s: %w", m.Name, m.Engine, cause)
	}
	log.Warn("media is moved by engine sockets, which is slower: engines xdp and tproxy cannot be used", "err", cause)
	e.chosen, e.keyword, e.fast, e.fallback = true, m.Engine, nil, cause.Error()
	return nil
}

// steering makes the engine ready for a specification and tells the kernel where its workers are. The taps come before the rules that
// leave packets to them: none is lost, and one that both bring is dropped as a repetition.
func (e *mediaEngine) steering(s mapping.Spec, log *slog.Logger) mapping.Steering {
	if e.fast == nil {
		return mapping.Steering{}
	}
	out := mapping.Steering{Workers: e.fast.Steer().Ports}
	var taps []mediaterm.Tap
	for _, t := range s.MediaTaps() {
		tap := mediaterm.Tap{Link: t.Link, Refused: t.Refused}
		for _, m := range t.Ranges {
			tap.Ranges = append(tap.Ranges, mediaterm.PortRange{Addr: m.Addr, Lo: m.Lo, Hi: m.Hi})
		}
		taps = append(taps, tap)
	}
	var err error
	if out.Tapped, err = e.fast.Tap(taps); err != nil {
		log.Warn("media is received by the network layer, which is slower: the interfaces cannot be tapped", "err", err)
	}
	return out
}

// probe proves that the kernel's rules bring packets to the workers.
func (e *mediaEngine) probe(p *plan) error {
	if e.fast == nil {
		return nil
	}
	for _, r := range p.mediaRanges() {
		if err := e.fast.Probe(r.Addr, r.Lo, r.Hi); err != nil {
			return err
		}
	}
	return nil
}

func (e *mediaEngine) close() error {
	if e.fast == nil {
		return nil
	}
	return e.fast.Close()
}

// spec is all that the kernel is to be told at once, as the media engine has been by then: for a plan, for media terminations of earlier ones, and for the media engine.
func (a *Appliance) spec(p *plan, listen []*listener, former []formerMedia) mapping.Spec {
	s := withFormer(p.spec(listen), former)
	s.Steering = a.engine.steering(s, a.log)
	return s
}

// newTerminator makes the media termination of a plan whose rules are in the kernel.
func (a *Appliance) newTerminator(p *plan) (*mediaterm.Terminator, error) {
	c := p.mediaConfig(a.log, a.now)
	if a.engine.fast != nil {
		c.Engine = a.engine.fast
	}
	return mediaterm.New(c)
}

// proveEngine is called once, when the rules of the first media termination are in the kernel: if they do not work here, the daemon goes
// on with engine sockets and rules for it.
func (a *Appliance) proveEngine(p *plan, spec func() mapping.Spec) error {
	err := a.engine.probe(p)
	if err == nil {
		return nil
	}
	fast := a.engine.fast
	if err := a.engine.without(p.Media, err, a.log); err != nil {
		return err
	}
	_ = fast.Close()
	return a.kernel.Update(spec())
}

// MediaTermination gives the state behind `show media-termination`.
func (a *Appliance) MediaTermination() observe.MediaTermination {
	p, t := a.plan.Load(), a.term.Load()
	if t == nil {
		return observe.MediaTermination{}
	}
	c := t.Counters()
	out := observe.MediaTermination{
		Name: p.Media.Name, Engine: c.Engine, EngineFallback: a.engine.fallback, MinPort: int(p.Media.MinPort), MaxPort: int(p.Media.MaxPort),
		Streams: c.Streams, MostStreams: c.MostStreams, MaximumStreams: c.MaxStreams, PortPairs: c.PortPairs, PortPairsUsed: c.InUse, PortPairsRest: c.Resting,
		RefusedForPorts: c.RefusedPorts, RefusedForStreams: c.RefusedStreams, PortConflicts: c.PortConflicts,
	}
	out.Withheld, out.WithheldEver = a.silent.counts()
	for _, m := range p.Media.Addresses {
		out.Addresses = append(out.Addresses, strings.TrimSpace(m.Addr.String()+" "+m.Interface))
	}
	out.Fast = a.fastMedia(c.EngineCounters)
	return out
}

// fastMedia gives the figures of engines tproxy and xdp; nil: another one is in use.
func (a *Appliance) fastMedia(e mediaterm.EngineCounters) *observe.MediaEngine {
	if a.engine.fast == nil {
		return nil
	}
	return &observe.MediaEngine{
		Workers: e.Workers, WorkerNice: e.Nice, Taps: e.Taps, BatchWaitUS: e.WaitUS, PacketsReceived: e.Packets, Batches: e.Batches, DroppedByOverload: e.KernelDrops,
		DroppedNoStream: e.NoStream, DroppedFlood: e.Flooded, DroppedMalformed: e.Malformed,
		SentDirect: e.SentDirect, SentXDP: e.SentXDP, SentRouted: e.SentRouted, PacketsFragmented: e.Fragmented, SendErrors: e.SendErrors,
		Stalls: e.Stalls.Number, StallsForCore: e.Stalls.ForCore, LongestStall: e.Stalls.Longest,
	}
}
