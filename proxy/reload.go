package proxy

import (
	"errors"
	"fmt"
	"slices"

	"imeproxy/mapping"
	"imeproxy/proxy/config"
)

// Reload puts a checked configuration into force: all of it, or nothing when any step fails. Standing calls and
// connections go on; what they were opened with holds until they end. Certificates are read again for new handshakes.
func (a *Appliance) Reload(cfg *config.Config) error {
	a.applying.Lock()
	defer a.applying.Unlock()
	if a.stopping.Load() { // what has been removed from the kernel must not come back
		return errors.New("the appliance is stopping")
	}
	old := a.plan.Load()
	if err := a.store.Reload(); err != nil {
		return fmt.Errorf("certificates: %w", err)
	}
	p, err := newPlan(cfg, old)
	if err != nil {
		return err
	}
	if err := errors.Join(a.checkTrustpoints(p), checkInterfaces(cfg)); err != nil {
		return err
	}
	listen, err := a.openListeners(p, a.listen)
	if err != nil {
		return err
	}
	hadEngine := a.engine.chosen
	if p.proxying() {
		if err := a.engine.open(p.Media, a.log); err != nil {
			closeFresh(listen)
			return err
		}
	}
	former := a.former
	if t := a.term.Load(); t != nil && !(p.proxying() && sameMedia(old, p)) {
		former = append(slices.Clone(former), old.former(t))
	}
	if err := a.kernel.Update(a.spec(p, listen, former)); err != nil {
		a.engineBack(old)
		closeFresh(listen)
		return err
	}
	back := func(err error) error {
		err = errors.Join(err, a.kernel.Update(a.spec(old, a.listen, a.former)), a.applyMappings(old), a.reloadPeer(p, old))
		closeFresh(listen)
		return err
	}
	if p.proxying() && !hadEngine {
		if err := a.proveEngine(p, func() mapping.Spec { return a.spec(p, listen, former) }); err != nil {
			return back(err)
		}
	}
	if err := a.applyMappings(p); err != nil {
		return back(err)
	}
	if err := a.reloadPeer(old, p); err != nil {
		return back(err)
	}
	switch {
	case !p.proxying():
		a.term.Store(nil)
	case !sameMedia(old, p):
		t, err := a.newTerminator(p)
		if err != nil {
			return back(err)
		}
		a.term.Store(t)
	}
	a.former = former
	a.plan.Store(p)
	a.setSyslog(p)
	a.quality.loadTable(p)
	a.limiter.SetMax(p.maxSessions())
	a.serveListeners(listen, a.listen)
	a.reloaded.Store(true)
	return nil
}

// engineBack readies the media engine again for the plan that stays: it has been readied for one that the kernel then refused, and packets of
// standing calls would come to interfaces where nobody takes them.
func (a *Appliance) engineBack(stays *plan) {
	if stays.proxying() {
		_ = a.engine.open(stays.Media, a.log) // it is open: this sets what can be changed
	}
	a.engine.steering(withFormer(stays.spec(a.listen), a.former), a.log)
}

func sameMedia(old, p *plan) bool {
	return old.proxying() && old.mediaAddr == p.mediaAddr && old.Media.MinPort == p.Media.MinPort && old.Media.MaxPort == p.Media.MaxPort &&
		old.UCIME.NoRTCP == p.UCIME.NoRTCP
}
