package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// rooms says which of our packages each may import; a trailing "/..." includes the packages below.
var rooms = map[string][]string{
	"imeproxy/sipalg":               {},
	"imeproxy/sipalg/sdp":           {},
	"imeproxy/sipalg/dialog":        {"imeproxy/sipalg"},
	"imeproxy/mediaterm":            {"imeproxy/mediaterm/prefetch"},
	"imeproxy/mediaterm/prefetch":   {},
	"imeproxy/fallback":             {"imeproxy/mediaterm/prefetch"},
	"imeproxy/tlsproxy":             {},
	"imeproxy/mapping":              {},
	"imeproxy/mapping/service":      {},
	"imeproxy/ucime/ticket":         {},
	"imeproxy/ucime/learn":          {"imeproxy/ucime/ticket"},
	"imeproxy/ucime/store":          {"imeproxy/ucime/learn"},
	"imeproxy/ucime/vap":            {"imeproxy/ucime/learn", "imeproxy/ucime/source"},
	"imeproxy/ucime/source":         {},
	"imeproxy/ucime/pvp":            {"imeproxy/ucime/learn", "imeproxy/ucime/source", "imeproxy/ucime/ticket"},
	"imeproxy/ucime/ring":           {"imeproxy/ucime/learn", "imeproxy/ucime/source"},
	"imeproxy/ucime/enroll":         {"imeproxy/ucime/learn", "imeproxy/ucime/source"},
	"imeproxy/ucime/callagent":      {"imeproxy/ucime/learn", "imeproxy/ucime/vap", "imeproxy/ucime/ticket", "imeproxy/ucime/callagent/..."},
	"imeproxy/ucime/callagent/...":  {"imeproxy/ucime/learn", "imeproxy/ucime/vap", "imeproxy/ucime/ticket", "imeproxy/ucime/callagent/..."},
	"imeproxy/proxy/config":         {"imeproxy/proxy/config/..."},
	"imeproxy/proxy/config/keyword": {},
	"imeproxy/proxy/backlog":        {},
	"imeproxy/proxy/observe":        {"imeproxy/proxy/backlog"},
	"imeproxy/proxy/shell":          {"imeproxy/proxy", "imeproxy/proxy/..."},
	"imeproxy/proxy/capture":        {"imeproxy/proxy/observe", "imeproxy/proxy/trace"},
	"imeproxy/proxy/disk":           {},
	"imeproxy/proxy/answerfile":     {"imeproxy/proxy/config", "imeproxy/proxy/netcheck"},
	"imeproxy/proxy/machine":        {},
	"imeproxy/proxy/netcheck":       {"imeproxy/proxy/probe"},
	"imeproxy/proxy/probe":          {},
	"imeproxy/proxy/recovery":       {"imeproxy/proxy/answerfile", "imeproxy/proxy/config"},
	"imeproxy/proxy/remote":         {},
	"imeproxy/proxy/trace":          {"imeproxy/proxy/observe"},
	"imeproxy/proxy/vqreport":       {"imeproxy/sipalg"},
	"imeproxy/proxy/revision":       {"imeproxy/proxy/config"},
	"imeproxy/proxy/sshd":           {"imeproxy/proxy/config", "imeproxy/proxy/disk", "imeproxy/proxy/revision", "imeproxy/proxy/shell", "imeproxy/ucime/source"},
	"imeproxy/proxy/trust":          {"imeproxy/tlsproxy"},
	"imeproxy/proxy":                {"imeproxy/sipalg/...", "imeproxy/sipalg", "imeproxy/mediaterm", "imeproxy/mediaterm/prefetch", "imeproxy/tlsproxy", "imeproxy/mapping", "imeproxy/mapping/service", "imeproxy/fallback", "imeproxy/ucime/...", "imeproxy/proxy/peerserver", "imeproxy/proxy/capture", "imeproxy/proxy/config", "imeproxy/proxy/disk", "imeproxy/proxy/remote", "imeproxy/proxy/observe", "imeproxy/proxy/trace", "imeproxy/proxy/vqreport"},
	"imeproxy/proxy/peerserver":     {"imeproxy/ucime/..."},
	"imeproxy/cmd/imeproxy":         {"imeproxy/proxy", "imeproxy/proxy/...", "imeproxy/ucime/..."},
	"imeproxy/image":                {},
	"imeproxy/image/boot":           {},
	"imeproxy/image/build":          {"imeproxy/image/boot", "imeproxy/image/disk", "imeproxy/image/upgrade"},
	"imeproxy/image/disk":           {},
	"imeproxy/image/init":           {"imeproxy/image/disk", "imeproxy/image/upgrade"},
	"imeproxy/image/upgrade":        {},
	"imeproxy/testbed":              {},
	"imeproxy/testbed/...":          {"imeproxy/testbed", "imeproxy/testbed/..."},
}

// libraries names the rooms that may use a library for what they are for; a library that is not listed may be used by all.
var libraries = map[string][]string{
	"github.com/emiago/sipgo":             {"imeproxy/sipalg", "imeproxy/testbed", "imeproxy/ucime/callagent", "imeproxy/ucime/callagent/..."},
	"github.com/pion/srtp/v3":             {"imeproxy/mediaterm", "imeproxy/testbed"},
	"github.com/google/nftables":          {"imeproxy/mapping"},
	"github.com/vishvananda/netlink":      {"imeproxy/mapping", "imeproxy/proxy/netcheck"},
	"software.sslmate.com/src/go-pkcs12":  {"imeproxy/tlsproxy"},
	"github.com/gliderlabs/ssh":           {"imeproxy/proxy/sshd"},
	"github.com/pkg/sftp":                 {"imeproxy/proxy/sshd", "imeproxy/proxy/remote"},
	"github.com/cloudflare/circl":         {"imeproxy/ucime/pvp"},
	"github.com/bwesterb/go-ristretto":    {"imeproxy/ucime/pvp"},
	"github.com/prometheus/client_golang": {"imeproxy/proxy/observe"},
	"github.com/prometheus/common":        {"imeproxy/proxy/observe"},
	"go.etcd.io/bbolt":                    {"imeproxy/ucime/store"},
	"github.com/hashicorp/memberlist":     {"imeproxy/ucime/ring"},
	"github.com/beevik/ntp":               {"imeproxy/image/init", "imeproxy/proxy/netcheck"},
	"github.com/coreos/go-systemd/v22":    {"imeproxy/cmd/imeproxy"},
	"github.com/cilium/ebpf":              {"imeproxy/testbed"},
	"github.com/spf13/cobra":              {"imeproxy/cmd/imeproxy", "imeproxy/proxy/trust"},
}

type goPackage struct {
	ImportPath, Dir, Name string
	Imports               []string
	GoFiles               []string
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,Name,Imports,GoFiles", "imeproxy/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func matches(patterns []string, path string) bool {
	for _, p := range patterns {
		if below, ok := strings.CutSuffix(p, "/..."); ok && strings.HasPrefix(path, below+"/") || p == path {
			return true
		}
	}
	return false
}

func room(path string) ([]string, bool) {
	if r, ok := rooms[path]; ok {
		return r, true
	}
	for p, r := range rooms {
		if below, ok := strings.CutSuffix(p, "/..."); ok && strings.HasPrefix(path, below+"/") {
			return r, true
		}
	}
	return nil, false
}

func TestImportsKeepToTheRooms(t *testing.T) {
	for _, p := range packages(t) {
		allowed, known := room(p.ImportPath)
		if !known {
			t.Errorf("%s is no room of the house: give it a place in the table", p.ImportPath)
		}
		for _, im := range p.Imports {
			if strings.HasPrefix(im, "imeproxy/") && !matches(allowed, im) {
				t.Errorf("%s must not import %s", p.ImportPath, im)
			}
			for lib, users := range libraries {
				if (im == lib || strings.HasPrefix(im, lib+"/")) && !matches(users, p.ImportPath) {
					t.Errorf("%s must not import %s", p.ImportPath, im)
				}
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range packages(t) {
		if strings.HasPrefix(p.ImportPath, "imeproxy/cmd/") || strings.Contains(p.ImportPath, "/demo") {
			continue
		}
		kind := "// Package "
		if p.Name == "main" {
			kind = "// Command "
		}
		text, err := os.ReadFile(filepath.Join(p.Dir, "doc.go"))
		if err != nil || !strings.Contains(string(text), kind) {
			t.Errorf("%s has no doc.go with its purpose", p.ImportPath)
		}
	}
}

func TestFilesStayReadable(t *testing.T) {
	for _, p := range packages(t) {
		for _, f := range p.GoFiles {
			text, err := os.ReadFile(filepath.Join(p.Dir, f))
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(text), "\n"); n > 600 {
				t.Errorf("%s/%s has %d lines: one concern a file, 600 lines at most", p.ImportPath, f, n)
			}
		}
	}
}
