package boot

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Module is a kernel module.
type Module struct {
	Name    string   // "virtio_net", with underscores
	File    string   // where it was found
	Depends []string // names of the modules that must be there before
	Aliases []string // patterns of devices: "virtio:d00000001v*"
}

// Modules are those of a kernel, by name.
type Modules map[string]Module

// FindModules looks into all modules below a folder. Those built into the kernel are not among them.
func FindModules(dir string) (Modules, error) {
	all := Modules{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, ".ko") {
			return err
		}
		m := Module{Name: strings.ReplaceAll(strings.TrimSuffix(filepath.Base(p), ".ko"), "-", "_"), File: p}
		all[m.Name] = m
		return nil
	})
	return all, err
}

// info reads a module's own description.
func (m *Module) info() error {
	data, err := os.ReadFile(m.File)
	if err != nil {
		return err
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("module %s: %w", m.File, err)
	}
	s := f.Section(".modinfo")
	if s == nil {
		return fmt.Errorf("module %s: no .modinfo", m.File)
	}
	text, err := s.Data()
	if err != nil {
		return fmt.Errorf("module %s: %w", m.File, err)
	}
	for _, line := range strings.Split(string(text), "\x00") {
		key, value, _ := strings.Cut(line, "=")
		switch key {
		case "depends":
			for _, d := range strings.Split(value, ",") {
				if d != "" {
					m.Depends = append(m.Depends, strings.ReplaceAll(d, "-", "_"))
				}
			}
		case "alias":
			m.Aliases = append(m.Aliases, value)
		}
	}
	return nil
}

// Order gives the modules of these names and all that they depend on, each after what it depends on.
func (all Modules) Order(names ...string) ([]Module, error) {
	var out []Module
	done := map[string]bool{}
	var visit func(name, wanted string, depth int) error
	visit = func(name, wanted string, depth int) error {
		if done[name] {
			return nil
		}
		m, ok := all[name]
		if !ok || depth > 50 {
			return fmt.Errorf("the kernel has no module %s, which %s needs", name, wanted)
		}
		done[name] = true
		if err := m.info(); err != nil {
			return err
		}
		for _, d := range m.Depends {
			if err := visit(d, name, depth+1); err != nil {
				return err
			}
		}
		out = append(out, m)
		return nil
	}
	for _, n := range names {
		if err := visit(n, "the appliance", 0); err != nil {
			return nil, err
		}
	}
	return out, nil
}
