package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"imeproxy/image/disk"
	"imeproxy/image/upgrade"
)

const (
	releaseFile = "/etc/imeproxy/release.json"
	switchFile  = stateMount + "/config/switch.json"
	maxUpgrade  = disk.SlotSize + upgrade.MaxManifest + 4096
	// A new system is healthy when its service is ready within healthLimit and still there healthTime later.
	healthLimit = 5 * time.Minute
	healthTime  = 20 * time.Second
	// healthOption of the kernel's command line, which is signed with the system, gives another limit.
	healthOption = "imeproxy.healthy-within="
)

// healthyWithin is how long this system has to become healthy. cmdline is the kernel's command line.
func healthyWithin(cmdline string) time.Duration {
	for _, word := range strings.Fields(cmdline) {
		if v, ok := strings.CutPrefix(word, healthOption); ok {
			if d, err := time.ParseDuration(v); err == nil && d > 0 {
				return d
			}
		}
	}
	return healthLimit
}

// identity is what a system knows of itself: which upgrades it takes.
type identity struct {
	Release int64             `json:"release"`
	Minimum int64             `json:"minimum"`
	Key     ed25519.PublicKey `json:"key"`
}

// upgrades writes one upgrade at a time.
type upgrades struct {
	mu     sync.Mutex
	now    *writing // nil: none is being written; guarded by mu, as status
	status string   // of the last one
}

// upgradeFrom begins to write the system of a file of disk0: into the slot that does not run. Calls go on meanwhile.
func (m *machine) upgradeFrom(name, who string) reply {
	u := &m.upgrades
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.now != nil {
		return reply{Error: "an upgrade is being written: utils system upgrade status"}
	}
	file, err := readUpgrade(name)
	if err != nil {
		return reply{Error: err.Error()}
	}
	var self identity
	text, err := os.ReadFile(releaseFile)
	if err == nil {
		err = json.Unmarshal(text, &self)
	}
	if err != nil {
		return reply{Error: err.Error()}
	}
	manifest, system, err := upgrade.Open(file, self.Key, self.Minimum)
	if err != nil {
		m.historyOf(who, "Upgrade "+name, "Failure")
		m.say("upgrade %s, asked for by %s: refused: %v", name, who, err)
		return reply{Error: err.Error()}
	}
	ctx, cancel := context.WithCancel(context.Background())
	u.now = &writing{name: manifest.Name, size: int64(len(system)), cancel: cancel, ended: make(chan struct{})}
	m.historyOf(who, "Upgrade "+bare(manifest.Name), "Start")
	go m.writeUpgrade(ctx, u.now, manifest, system, who)
	return reply{Text: manifest.Name + " is being written; calls go on. utils system upgrade status tells when it is done, utils system upgrade cancel ends it.\n"}
}

// readUpgrade reads a file of the service's state directory; a link there leads nowhere.
func readUpgrade(name string) ([]byte, error) {
	name = strings.TrimPrefix(strings.TrimPrefix(name, "disk0:"), "/")
	if name == "" || strings.ContainsAny(name, "/\x00") || name[0] == '.' {
		return nil, errors.New("a file of disk0: is expected")
	}
	fd, err := unix.Open(stateDir+"/"+name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("disk0:%s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxUpgrade {
		return nil, fmt.Errorf("disk0:%s: %w", name, upgrade.ErrFormat)
	}
	return io.ReadAll(io.LimitReader(f, maxUpgrade))
}

// writeUpgrade writes a system, and says what became of it.
func (m *machine) writeUpgrade(ctx context.Context, w *writing, manifest upgrade.Manifest, system []byte, who string) {
	defer w.cancel()
	defer close(w.ended)
	s, err := openSlots()
	if err == nil {
		defer s.close()
		err = m.writeSystem(ctx, s, w, manifest, system)
	}
	u := &m.upgrades
	u.mu.Lock()
	defer u.mu.Unlock()
	u.now = nil
	if err == nil && ctx.Err() != nil { // after the last byte, and before anybody was told
		err = errors.Join(errCancelled, disk.ForgetSlot(s.f, s.base, s.other()))
	}
	switch {
	case err == nil:
		u.status = manifest.Name + " is written: utils system switch-version starts it"
		m.historyOf(who, "Upgrade "+bare(manifest.Name), "Success")
		m.say("upgrade to %s, asked for by %s, is written", manifest.Name, who)
	case errors.Is(err, errCancelled):
		u.status = fmt.Sprintf("the upgrade to %s was cancelled by %s: its slot is empty", manifest.Name, w.who)
		m.historyOf(w.who, "Upgrade "+bare(manifest.Name), "Cancel")
		m.say("the upgrade to %s, asked for by %s, was cancelled by %s", manifest.Name, who, w.who)
	default:
		u.status = fmt.Sprintf("%s was not written: %v", manifest.Name, err)
		m.historyOf(who, "Upgrade "+bare(manifest.Name), "Failure")
		m.say("upgrade to %s, asked for by %s: %v", manifest.Name, who, err)
	}
}

// writeSystem puts a system into the slot that does not run, and compares what stands there. The slot is empty when it fails.
func (m *machine) writeSystem(ctx context.Context, s *slots, w *writing, manifest upgrade.Manifest, system []byte) error {
	if d, err := disk.Default(s.f, s.base); err != nil {
		return err
	} else if d != s.running {
		return errors.New("this system is on trial yet: an upgrade would take the other one's place")
	}
	return m.writeSystemTo(ctx, watched{s.f, ctx, &w.done}, s, system, disk.Parts{
		Kernel: disk.Part(manifest.Kernel), Initrd: disk.Part(manifest.Initrd), Script: disk.Part(manifest.Script),
	})
}

func (m *machine) writeSystemTo(ctx context.Context, d watched, s *slots, system []byte, parts disk.Parts) error {
	err := disk.WriteSlot(d, s.base, s.other(), system, parts)
	if errors.Is(err, errCancelled) { // maybe before the former system was taken away
		return errors.Join(err, disk.ForgetSlot(s.f, s.base, s.other()))
	}
	if err != nil {
		return err
	}
	_ = unix.Fadvise(int(s.f.Fd()), 0, 0, unix.FADV_DONTNEED) // what is read now comes from the disk
	got, err := disk.ReadSlot(s.f, s.base, s.other())
	if err == nil && !bytes.Equal(got, system) {
		err = upgrade.ErrDamaged
	}
	if err == nil && ctx.Err() != nil {
		err = errCancelled
	}
	if err != nil {
		return errors.Join(err, disk.ForgetSlot(s.f, s.base, s.other()))
	}
	return nil
}

func (m *machine) upgradeStatus() reply {
	m.upgrades.mu.Lock()
	defer m.upgrades.mu.Unlock()
	switch u := &m.upgrades; {
	case u.now != nil:
		return reply{Text: u.now.progress() + "\n"}
	case u.status != "":
		return reply{Text: u.status + "\n"}
	}
	return reply{Text: "No upgrade since the start of this system.\n"}
}

// versions tells what runs and what is in the other slot.
func (m *machine) versions() reply {
	s, err := openSlots()
	if err != nil {
		return reply{Error: err.Error()}
	}
	defer s.close()
	other, err := s.name(s.other())
	if err != nil {
		other = "damaged: " + err.Error()
	}
	if other == "" {
		other = "none"
	}
	return reply{Text: fmt.Sprintf("Active version (system %c): %s\nInactive version (system %c): %s\n", 'A'+s.running, m.release, 'A'+s.other(), other)}
}

// trial is what is noted when the other system is started for the first time.
type trial struct {
	From, To int
	Name     string
	Config   []byte // of the system that is left, for the way back
}

// switchVersion starts the other system once; it stays when it is healthy.
func (m *machine) switchVersion(who string) reply {
	s, err := openSlots()
	if err != nil {
		return reply{Error: err.Error()}
	}
	defer s.close()
	m.upgrades.mu.Lock()
	busy := m.upgrades.now != nil
	m.upgrades.mu.Unlock()
	if busy {
		return reply{Error: "an upgrade is being written: utils system upgrade status"}
	}
	name, err := s.name(s.other())
	if err != nil || name == "" {
		return reply{Error: "there is no other system that could be started"}
	}
	config, err := os.ReadFile(configFile)
	if err != nil {
		return reply{Error: err.Error()}
	}
	note, err := json.Marshal(trial{s.running, s.other(), name, config})
	if err == nil {
		err = place(switchFile, note)
	}
	if err == nil {
		err = s.startOnce(s.other())
	}
	if err != nil {
		return reply{Error: err.Error()}
	}
	m.historyOf(who, "Switch Version "+m.version()+" to "+bare(name), "Start")
	m.log.line("system", "the other system, "+name+", was asked for by "+who)
	m.asker.Store(who)
	ask(m.requests, "restart")
	return reply{Text: "The machine restarts with " + name + ". It comes back by itself when that is not healthy.\n"}
}

// judge ends a trial, whose result it tells: the new system becomes the default when it is healthy in time, and the machine restarts
// with the old one when not. When this is the old system again, the new one has failed.
func (m *machine) judge() {
	text, err := os.ReadFile(switchFile)
	if err != nil {
		return
	}
	var t trial
	s, err := openSlots()
	if err == nil {
		defer s.close()
		err = json.Unmarshal(text, &t)
	}
	if err != nil {
		m.say("the switch of versions: %v", err)
		_ = os.Remove(switchFile)
		return
	}
	if s.running != t.To {
		if now, err := os.ReadFile(configFile); err != nil || !bytes.Equal(now, t.Config) {
			_ = place(configFile, t.Config)
			m.service.again()
		}
		_ = os.Remove(switchFile)
		m.history("Switch Version to "+bare(t.Name), "Failure")
		m.say("%s was not healthy: this is the former system again, with its configuration", t.Name)
		return
	}
	cmdline, _ := os.ReadFile("/proc/cmdline")
	limit := healthyWithin(string(cmdline))
	if !m.healthy(limit) {
		m.say("this system is not healthy within %v: the machine goes back to the former one", limit)
		ask(m.requests, "restart")
		return
	}
	if err := disk.SetDefault(s.f, s.base, s.running); err != nil {
		m.say("this system cannot be made the one that starts: %v", err)
		return
	}
	_ = os.Remove(switchFile)
	m.history("Switch Version to "+bare(t.Name), "Success")
	m.say("this system is healthy and stays")
}

// healthy waits until the service has been ready for a while with the configuration that is stored.
func (m *machine) healthy(limit time.Duration) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); {
		if ready := m.service.readySince(); !ready.IsZero() && time.Since(ready) >= healthTime {
			return true
		}
		time.Sleep(100 * time.Millisecond)
	}
	return false
}
