package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"imeproxy/image/disk"
)

// esp makes a disk whose slot A has a system, as the image has.
func esp(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := f.Truncate(disk.ESPSize); err != nil {
		t.Fatal(err)
	}
	if err := disk.WriteESP(f, 0, 1, []disk.File{{Path: "EFI/BOOT/BOOTX64.EFI", Data: []byte("loader")}}); err != nil {
		t.Fatal(err)
	}
	if err := disk.WriteSlot(f, 0, 0, []byte("this runs"), disk.Parts{}); err != nil {
		t.Fatal(err)
	}
	return f
}

// whenever is a disk that cancels when so much was written.
type whenever struct {
	*os.File
	left   int
	cancel func()
}

func (w *whenever) WriteAt(b []byte, at int64) (int, error) {
	if w.left -= len(b); w.left <= 0 {
		w.cancel()
	}
	return w.File.WriteAt(b, at)
}

// An upgrade that is cancelled gets no name, whenever that happens, and the system that runs stays the one that starts.
func TestCancelledSystemCannotStart(t *testing.T) {
	system := bytes.Repeat([]byte("new"), 3<<20)
	for _, after := range []int{0, 1, 4 << 20, len(system), len(system) + 512, len(system) + 1024} {
		f := esp(t)
		if err := disk.WriteSlot(f, 0, 1, []byte("a former system"), disk.Parts{}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		if after == 0 {
			cancel()
		}
		m, w := &machine{}, &writing{size: int64(len(system))}
		s := &slots{f: f}
		d := &whenever{f, after, cancel}
		err := m.writeSystemTo(ctx, watched{d, ctx, &w.done}, s, system, disk.Parts{})
		if !errors.Is(err, errCancelled) {
			t.Errorf("cancelled after %d bytes: %v", after, err)
		}
		if got, err := disk.ReadSlot(f, 0, 1); err != nil || got != nil {
			t.Errorf("cancelled after %d bytes: the slot has %d bytes, %v", after, len(got), err)
		}
		if got, err := disk.ReadSlot(f, 0, 0); err != nil || string(got) != "this runs" {
			t.Errorf("cancelled after %d bytes: what runs is %q, %v", after, got, err)
		}
		if d, err := disk.Default(f, 0); err != nil || d != 0 {
			t.Errorf("cancelled after %d bytes: system %d starts, %v", after, d, err)
		}
	}
}

func TestSystemIsWritten(t *testing.T) {
	f, system := esp(t), bytes.Repeat([]byte("new"), 1<<20)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var done atomic.Int64
	if err := new(machine).writeSystemTo(ctx, watched{f, ctx, &done}, &slots{f: f}, system, disk.Parts{}); err != nil {
		t.Fatal(err)
	}
	if got, err := disk.ReadSlot(f, 0, 1); err != nil || !bytes.Equal(got, system) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if done.Load() < int64(len(system)) {
		t.Errorf("%d bytes were counted of %d", done.Load(), len(system))
	}
}

func TestCancelAndProgress(t *testing.T) {
	m := &machine{}
	if a := m.cancelUpgrade("admin from 192.0.2.1"); !strings.Contains(a.Error, "no upgrade is being written") {
		t.Errorf("%+v", a)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &writing{name: "imeproxy 2", size: 36 << 20, cancel: cancel, ended: make(chan struct{})}
	w.done.Store(9 << 20)
	m.upgrades.now = w
	if a := m.upgradeStatus(); a.Text != "writing imeproxy 2: 9 of 36 MiB, 25 %\n" {
		t.Errorf("status: %+v", a)
	}
	w.done.Store(36<<20 + 512)
	if a := m.upgradeStatus(); !strings.Contains(a.Text, "compared") {
		t.Errorf("status: %+v", a)
	}
	if a := m.upgradeFrom("next.upgrade", "admin"); !strings.Contains(a.Error, "is being written") {
		t.Errorf("a second one: %+v", a)
	}
	go func() {
		<-ctx.Done()
		m.upgrades.mu.Lock()
		m.upgrades.now, m.upgrades.status = nil, "cancelled by "+w.who
		m.upgrades.mu.Unlock()
		close(w.ended)
	}()
	if a := m.cancelUpgrade("admin from 192.0.2.1"); a.Text != "cancelled by admin from 192.0.2.1\n" {
		t.Errorf("cancel: %+v", a)
	}
}

func TestHistoryLines(t *testing.T) {
	at := time.Date(2026, 11, 29, 17, 0, 5, 0, time.FixedZone("", 3600))
	for _, c := range []struct{ who, what, want string }{
		{"", "Boot", "root: Boot 0.1.0 (x) Start"},
		{"admin from 192.0.2.1:50000", "Shutdown", "admin: Shutdown 0.1.0 (x) Start"},
		{"uid 100 pid 7", "System Restart", "root: System Restart 0.1.0 (x) Start"},
		{"admin from the console", "Upgrade 0.2.0 (y)", "admin: Upgrade 0.2.0 (y) Start"},
	} {
		if got := historyLine(at, c.who, c.what, "0.1.0 (x)", "Start"); got != "11/29/2026 16:00:05 | "+c.want+"\n" {
			t.Errorf("%s", got)
		}
	}
	if h := historyHead("0.1.0", "6.1.0-1"); !strings.Contains(h, "Product Version - 0.1.0\nKernel Image - 6.1.0-1\n") {
		t.Error(h)
	}
}

func TestLogPieceNames(t *testing.T) {
	for _, name := range []string{"", "x", "install.log", "../config/imeproxy.cfg 0", "install.log -1", "system.log 0"} {
		if a := logPiece(name); a.Error == "" {
			t.Errorf("%q was taken: %+v", name, a)
		}
	}
}
