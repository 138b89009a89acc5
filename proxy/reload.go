package proxy

import (
	"errors"
	"fmt"
	"reflect"

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
	oldListen, oldTerm := a.listen, a.term.Load()
	a.listen = nil
	if err := a.openListeners(p); err != nil {
		a.listen = oldListen
		return err
	}
	newListen := a.listen
	if err := a.kernel.Update(p.spec(newListen)); err != nil {
		a.closeListeners()
		a.listen = oldListen
		return err
	}
	if !sameMedia(old, p) {
		t, err := mediaterm.New(p.mediaConfig(a.log, a.now))
		if err != nil {
			back := a.kernel.Update(old.spec(oldListen))
			a.closeListeners()
			a.listen = oldListen
			return errors.Join(err, back)
		}
		a.term.Store(t)
		a.retired = append(a.retired, oldTerm)
	}
	a.plan.Store(p)
	a.limiter.SetMax(p.maxSessions())
	for _, l := range newListen {
		a.wg.Go(func() { a.accept(l) })
	}
	for _, l := range oldListen {
		_ = l.Close()
	}
	return nil
}

func sameMedia(old, p *plan) bool {
	return old.mediaAddr == p.mediaAddr && old.media.MinPort == p.media.MinPort && old.media.MaxPort == p.media.MaxPort &&
		old.cfg.UCIME.NoRTCP == p.cfg.UCIME.NoRTCP && reflect.DeepEqual(old.media.Addresses, p.media.Addresses)
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
