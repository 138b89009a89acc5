package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// module is a driver or another part of the kernel that is loaded when it is needed.
type module struct {
	Name    string   `json:"name"`
	Depends []string `json:"depends,omitempty"`
	Aliases []string `json:"aliases,omitempty"`
	Always  bool     `json:"always,omitempty"`
}

type modules struct {
	byName map[string]module
	order  []module
	loaded map[string]bool
}

func readModules(file string) (*modules, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	m := &modules{byName: map[string]module{}, loaded: map[string]bool{}}
	if err := json.Unmarshal(text, &m.order); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for _, x := range m.order {
		m.byName[x.Name] = x
	}
	return m, nil
}

// load loads a module after what it depends on. One for which this machine has nothing is no error.
func (m *modules) load(name string) error {
	if m.loaded[name] {
		return nil
	}
	m.loaded[name] = true
	for _, d := range m.byName[name].Depends {
		if err := m.load(d); err != nil {
			return err
		}
	}
	f, err := os.Open("/lib/modules/" + name + ".ko")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("module %s: %w", name, err)
	}
	return nil
}

// loadAlways loads what every appliance needs.
func (m *modules) loadAlways() error {
	var errs []error
	for _, x := range m.order {
		if x.Always {
			errs = append(errs, m.load(x.Name))
		}
	}
	return errors.Join(errs...)
}

// loadForDevices loads the drivers of the devices that there are, in the order of their addresses, so that interfaces get their
// names in the order of the cards; what appears by that (a bus behind a card) is looked at too. A driver that does not fit its
// device is no reason to stop.
func (m *modules) loadForDevices() (errs []error) {
	for again := true; again; {
		again = false
		files, _ := filepath.Glob("/sys/bus/*/devices/*/modalias")
		sort.Strings(files)
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				continue
			}
			for _, name := range m.forAlias(strings.TrimSpace(string(text))) {
				if m.loaded[name] {
					continue
				}
				again = true
				if err := m.load(name); err != nil {
					errs = append(errs, err)
				}
			}
		}
	}
	return errs
}

// forAlias names the modules for a device.
func (m *modules) forAlias(device string) (names []string) {
	for _, x := range m.order {
		for _, a := range x.Aliases {
			if ok, err := path.Match(a, device); ok && err == nil {
				names = append(names, x.Name)
				break
			}
		}
	}
	return names
}

// seal lets nobody load a module any more, not even root.
func seal() { _ = os.WriteFile("/proc/sys/kernel/modules_disabled", []byte("1"), 0) }
