package service

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// stateVersion of the file; one of another version is not read.
const stateVersion = 1

type stateFile struct {
	Version  int            `json:"version"`
	Address  netip.Addr     `json:"address"` // of the mapped ports
	Mappings []savedMapping `json:"mappings"`
	Resting  []savedResting `json:"resting"`
}

type savedMapping struct {
	Client   netip.Addr     `json:"client"`
	Target   netip.AddrPort `json:"target"`
	Port     uint16         `json:"port"`
	Lifetime int            `json:"lifetime"` // seconds
	Used     time.Time      `json:"used"`
	Legs     bool           `json:"legs"` // stood when it was saved
}

type savedResting struct {
	Client netip.Addr     `json:"client"`
	Target netip.AddrPort `json:"target"`
	Port   uint16         `json:"port"`
	Until  time.Time      `json:"until"`
}

// snapshotLocked takes what is to be saved.
func (s *Service) snapshotLocked(now time.Time) stateFile {
	s.changed, s.saved = false, now
	f := stateFile{Version: stateVersion, Address: s.set.Listen.Addr(), Mappings: []savedMapping{}, Resting: []savedResting{}}
	for _, m := range s.table.byPort {
		f.Mappings = append(f.Mappings, savedMapping{m.client, m.target, m.port, int(m.lifetime / time.Second), m.used, m.legs > 0})
		m.saved = m.used
	}
	for _, r := range s.table.rest {
		if r.client.IsValid() {
			f.Resting = append(f.Resting, savedResting{r.client, r.target, r.port, r.until})
		}
	}
	return f
}

// save writes the mappings: the whole file or, with an error, the old one stays. It is called without the mutex, as a slow disk must not
// hold up answers, by one goroutine at a time.
func (s *Service) save(f stateFile) error {
	if s.opt.StateFile == "" {
		return nil
	}
	data, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("mappings: %w", err)
	}
	return replaceFile(s.opt.StateFile, append(data, '\n'))
}

func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("mappings: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("mappings: %w", err)
	}
	return nil
}

// restore makes the mappings of the state file anew. What cannot be read is told and costs the mappings, not the service.
func (s *Service) restore(now time.Time) {
	if s.opt.StateFile == "" {
		return
	}
	data, err := os.ReadFile(s.opt.StateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var f stateFile
	if err == nil {
		err = json.Unmarshal(data, &f)
	}
	if err == nil && f.Version != stateVersion {
		err = fmt.Errorf("version %d", f.Version)
	}
	if err != nil {
		s.opt.Log.Warn("saved mappings cannot be read: addresses that call agents remember lead nowhere until they ask again", "file", s.opt.StateFile, "err", err)
		return
	}
	if f.Address != s.set.Listen.Addr() {
		s.opt.Log.Info("saved mappings belong to another address and are forgotten", "address", f.Address.String())
		return
	}
	kept := 0
	for _, m := range f.Mappings {
		if s.restoreMapping(m, now) {
			kept++
		}
	}
	for _, r := range f.Resting {
		if until := r.Until; now.Before(until) && until.Sub(now) <= maxRest && s.table.byPort[r.Port] == nil {
			s.table.take(r.Port)
			s.table.rests(resting{pair: pair{r.Client, r.Target}, port: r.Port, until: until})
		}
	}
	s.opt.Log.Info("mappings of the former run restored", "mappings", kept, "of", len(f.Mappings))
	s.changed = true
}

// restoreMapping makes one mapping anew, unless its time is over or it is not allowed any more.
func (s *Service) restoreMapping(m savedMapping, now time.Time) bool {
	p, lifetime, used := pair{m.Client, m.Target}, time.Duration(m.Lifetime)*time.Second, m.Used
	if m.Legs || used.After(now) {
		used = now // its last leg ended with the former run
	}
	if !m.Client.Is4() || !m.Target.Addr().Is4() || m.Port == 0 || lifetime <= 0 || now.Sub(used) >= lifetime || !s.set.isClient(m.Client) || !s.set.Allowed(m.Target) ||
		s.table.byPort[m.Port] != nil || s.table.byPair[p] != nil {
		return false
	}
	l, err := s.table.open(m.Port)
	if err != nil {
		s.warnLocked("restore", "a saved mapping cannot be restored", "port", m.Port, "err", err)
		return false
	}
	s.table.take(m.Port)
	s.table.put(&mapping{pair: p, port: m.Port, lifetime: lifetime, used: used, listener: l})
	return true
}
