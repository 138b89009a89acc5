package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

const (
	// writeStep is how much of a system is written between two looks at whether it is still wanted.
	writeStep = 1 << 20
	// cancelPatience is how long a cancellation waits for its end: less than a request may take.
	cancelPatience = 3 * time.Second
)

// errCancelled says that nobody wants the upgrade any more.
var errCancelled = errors.New("cancelled")

// diskFile is what a system is written to.
type diskFile interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// watched is a disk whose writing can be cancelled and looked at. Nothing is written any more once ctx has ended, so that a system that was
// cancelled gets no name.
type watched struct {
	diskFile
	ctx  context.Context
	done *atomic.Int64 // bytes
}

// WriteAt writes in steps.
func (w watched) WriteAt(b []byte, at int64) (n int, err error) {
	for n < len(b) {
		if w.ctx.Err() != nil {
			return n, errCancelled
		}
		k, err := w.diskFile.WriteAt(b[n:min(len(b), n+writeStep)], at+int64(n))
		n += k
		w.done.Add(int64(k))
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// writing is an upgrade that is being written.
type writing struct {
	name   string
	size   int64
	cancel context.CancelFunc
	done   atomic.Int64  // bytes that are written
	ended  chan struct{} // closed when the slot is what it will be
	who    string        // who has cancelled it, guarded by upgrades.mu
}

// progress tells how far it has come.
func (w *writing) progress() string {
	if done := w.done.Load(); done < w.size {
		return fmt.Sprintf("writing %s: %d of %d MiB, %d %%", w.name, done>>20, w.size>>20, done*100/w.size)
	}
	return fmt.Sprintf("writing %s: all of it is written, and compared with what was meant", w.name)
}

// cancelUpgrade ends the upgrade that is being written. Its slot is left empty; what runs, and everything else, is not touched.
func (m *machine) cancelUpgrade(who string) reply {
	u := &m.upgrades
	u.mu.Lock()
	w := u.now
	if w == nil {
		u.mu.Unlock()
		return reply{Error: "no upgrade is being written"}
	}
	if w.who == "" {
		w.who = who
	}
	w.cancel()
	u.mu.Unlock()
	late := time.NewTimer(cancelPatience)
	defer late.Stop()
	select {
	case <-w.ended:
		return m.upgradeStatus()
	case <-late.C:
		return reply{Text: "The upgrade is being cancelled: utils system upgrade status tells when it is over.\n"}
	}
}
