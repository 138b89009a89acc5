package proxy

import (
	"errors"
	"fmt"

	"imeproxy/mediaterm"
	"imeproxy/proxy/config"
)

// Reload puts a checked configuration into force: all of it, or nothing when any step fails. Standing calls and
// connections go on; what they were opened with holds until they end. Certificates are read again for new handshakes.
func (a *Appliance) Reload(cfg *config.Config) error {
	a.applying.Lock()
	defer a.applying.Unlock()
	old := a.plan.Load()
	if err := a.store.Reload(); err != nil {
		return fmt.Errorf("certificates: %w", err)
	}
	p, err := newPlan(cfg, old)
	if err != nil {
		return err
	}
	if err := a.checkTrustpoints(p); err != nil {
		return err
	}
	listen, err := a.openListeners(p, a.listen)
	if err != nil {
		return err
	}
	if err := a.kernel.Update(p.spec(listen)); err != nil {
		closeFresh(listen)
		return err
	}
	switch {
	case !p.proxying():
		a.retire(a.term.Swap(nil))
	case !sameMedia(old, p):
		t, err := mediaterm.New(p.mediaConfig(a.log, a.now))
		if err != nil {
			back := a.kernel.Update(old.spec(a.listen))
			closeFresh(listen)
			return errors.Join(err, back)
		}
		a.retire(a.term.Swap(t))
	}
	a.plan.Store(p)
	a.limiter.SetMax(p.maxSessions())
	a.serveListeners(listen, a.listen)
	return nil
}

func sameMedia(old, p *plan) bool {
	return old.proxying() && old.mediaAddr == p.mediaAddr && old.Media.MinPort == p.Media.MinPort && old.Media.MaxPort == p.Media.MaxPort &&
		old.UCIME.NoRTCP == p.UCIME.NoRTCP
}

// retire keeps a media termination until its streams have ended.
func (a *Appliance) retire(t *mediaterm.Terminator) {
	if t != nil {
		a.retired = append(a.retired, t)
	}
}

// sweepTerminators closes media terminations of earlier configurations when their last stream has ended.
func (a *Appliance) sweepTerminators() {
	if !a.applying.TryLock() {
		return // a change is under way: the next second will do
	}
	defer a.applying.Unlock()
	keep := a.retired[:0]
	for _, t := range a.retired {
		if t.Counters().Streams > 0 {
			keep = append(keep, t)
			continue
		}
		if err := t.Close(); err != nil {
			a.log.Warn("former media termination did not close cleanly", "err", err)
		}
	}
	a.retired = keep
}
