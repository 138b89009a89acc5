package main

import (
	"debug/buildinfo"
	"encoding/json"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// component is an entry of a CycloneDX 1.5 document.
type component struct {
	Type    string `json:"type"`
	Name    string `json:"name"`
	Version string `json:"version"`
	PURL    string `json:"purl,omitempty"`
	Hashes  []hash `json:"hashes,omitempty"`
}

type hash struct {
	Alg     string `json:"alg"`
	Content string `json:"content"`
}

// sbom lists everything that the image is made of: the packages of Debian and the Go modules in both programs. It holds no date and
// no serial number, which would differ in each build.
func (j *job) sbom(packages map[string]debian) error {
	var all []component
	for _, p := range packages {
		all = append(all, component{"operating-system", p.Name, p.Version, "pkg:deb/debian/" + p.Name + "@" + p.Version + "?arch=amd64", []hash{{"SHA-256", p.SHA256}}})
	}
	seen := map[string]bool{}
	for _, program := range []string{"init", "imeproxy"} {
		file := filepath.Join(j.out, "work", program)
		info, err := buildinfo.ReadFile(file)
		if err != nil {
			return err
		}
		all = append(all, component{Type: "application", Name: program, Version: j.version, Hashes: []hash{{"SHA-256", sum(file)}}})
		add := func(name, version string) {
			if !seen[name] {
				seen[name] = true
				all = append(all, component{Type: "library", Name: name, Version: version, PURL: "pkg:golang/" + name + "@" + version})
			}
		}
		add("std", strings.TrimPrefix(info.GoVersion, "go"))
		for _, d := range info.Deps {
			add(d.Path, d.Version)
		}
	}
	sort.SliceStable(all, func(a, b int) bool { return all[a].Type+all[a].Name < all[b].Type+all[b].Name })
	text, err := json.MarshalIndent(map[string]any{
		"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
		"metadata":   map[string]any{"component": component{Type: "firmware", Name: "imeproxy", Version: j.version, Hashes: []hash{{"SHA-256", sum(j.name("raw"))}}}},
		"components": all,
	}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(j.out, "sbom.json"), append(text, '\n'), 0o644)
}
