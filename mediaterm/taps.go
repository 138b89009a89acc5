package mediaterm

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"golang.org/x/sys/unix"
)

// Tap makes the workers read the media packets of links from rings, before the network layer has seen them: a packet costs the kernel
// and the worker less. What a tap reads must not go on to the tproxy rules as well: the kernel is to drop whole datagrams of UDP for the
// ranges, without a VLAN tag, at the ingress of the links that are returned. Those are the ones of Ethernet's kind; on others packets come
// by the rules, as fragments do everywhere. Each call replaces what the one before it has set; with an error nothing is tapped.
func (e *TProxy) Tap(taps []Tap) (links []string, err error) {
	e.tapMu.Lock()
	defer e.tapMu.Unlock()
	if e.closed.Load() {
		return nil, ErrClosed
	}
	e.tapped = slices.Clone(taps)
	if links, err = e.tap(); err != nil {
		e.tapped = nil
		_, untap := e.tap()
		return nil, errors.Join(err, untap)
	}
	return links, nil
}

// tap opens, changes and closes taps as the settings say. The caller holds tapMu.
func (e *TProxy) tap() (links []string, err error) {
	var found []*net.Interface
	var taps []Tap
	for _, t := range e.tapped {
		link, err := net.InterfaceByName(t.Link)
		if err != nil {
			return nil, fmt.Errorf("interface %s: %w", t.Link, err)
		}
		if ethernet(t.Link) {
			found, taps, links = append(found, link), append(taps, t), append(links, t.Link)
		}
	}
	for _, w := range e.workers {
		if err := w.tap(found, taps); err != nil {
			return nil, err
		}
		w.output(found)
	}
	return links, nil
}

// relink taps links again that were removed and made anew, and sends through AF_XDP again where that had failed.
func (e *TProxy) relink() {
	e.tapMu.Lock()
	defer e.tapMu.Unlock()
	if e.closed.Load() || len(e.tapped) == 0 {
		return
	}
	var links []*net.Interface
	for _, t := range e.workers[0].openTaps() {
		link, err := net.InterfaceByName(t.link)
		if err == nil && link.Index == t.index {
			links = append(links, link)
		}
		if err != nil || link.Index == t.index {
			continue
		}
		if _, err := e.tap(); err != nil {
			e.log.Error("an interface was replaced, and its media cannot be received", "interface", t.link, "error", err)
		}
		return
	}
	for _, w := range e.workers {
		w.output(links)
	}
}

func (w *worker) openTaps() []*tap {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.taps)
}

// tap makes the worker's taps those of the links. Only TProxy.tap changes the list, one call at a time.
func (w *worker) tap(links []*net.Interface, taps []Tap) error {
	old := w.openTaps()
	var now []*tap
	var errs error
	for i, link := range links {
		filter, err := tapFilter(w.number, len(w.engine.workers), taps[i].Ranges, taps[i].Refused)
		if err == nil {
			var t *tap
			if at := slices.IndexFunc(old, func(t *tap) bool { return t.link == link.Name && t.index == link.Index }); at >= 0 {
				t = old[at]
				err = t.setFilter(filter)
			} else {
				t, err = openTap(link, max(tapLeast, tapAllFrames/len(w.engine.workers)), filter)
			}
			if err == nil {
				now = append(now, t)
			}
		}
		errs = errors.Join(errs, err)
	}
	w.mu.Lock()
	w.taps = now
	w.tapped.Store(len(now) > 0)
	for _, t := range old {
		if !slices.Contains(now, t) {
			w.tapDrops += t.dropped()
			errs = errors.Join(errs, t.close())
		}
	}
	w.mu.Unlock()
	w.wake()
	return errs
}

// ethernet tells whether packets on a link begin with an Ethernet header.
func ethernet(link string) bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(link)
	return err == nil && unix.IoctlIfreq(fd, unix.SIOCGIFHWADDR, req) == nil && req.Uint16() == unix.ARPHRD_ETHER
}
