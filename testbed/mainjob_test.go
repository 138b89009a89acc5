package testbed

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The appliance's main job, between two proxies and with an edge of other
// make on either side: two ends of our own making would hide shared errors.
func TestMainJob(t *testing.T) {
	for name, o := range map[string]Options{
		"two proxies":            {A: Side{Confined: true}, B: Side{Confined: true}},
		"foreign edge called":    {B: Side{Edge: EdgeForeign}},
		"foreign edge is caller": {A: Side{Edge: EdgeForeign}},
	} {
		t.Run(name, func(t *testing.T) {
			lab := Start(t, o)
			for _, e := range lab.Enterprises() {
				if e.side.Confined {
					isConfined(t, e.Proxy)
				}
			}
			r := MainJob(t, lab, MainJobOptions{Say: t.Logf})
			for _, p := range r.Problems {
				t.Error(p)
			}
			if len(r.Calls) != 4 {
				t.Errorf("%d directions in the report, want 4", len(r.Calls))
			}
		})
	}
}

// isConfined demands that the daemon has the two capabilities of the systemd unit and no other, and cannot get one.
func isConfined(t T, p *Proxy) {
	t.Helper()
	status := strings.Fields(readAll(fmt.Sprintf("/proc/%d/status", p.Process().Pid())))
	const netAdminAndRaw = "0000000000003000" // bits 12 and 13, capabilities(7)
	for _, set := range []string{"CapPrm:", "CapEff:", "CapBnd:"} {
		if i := slices.Index(status, set); i < 0 || status[i+1] != netAdminAndRaw {
			t.Errorf("proxy %s: %s is not %s in %q", p.e.Letter, set, netAdminAndRaw, status)
		}
	}
	if i := slices.Index(status, "Uid:"); !Entered() && status[i+1] == "0" {
		t.Errorf("proxy %s runs as root", p.e.Letter)
	}
	var media struct{ Workers int }
	p.Show(t, "media-termination", &media)
	want := 0
	if mayComeForward() {
		want = media.Workers
	}
	if n := threadsWithNice(t, p, -15); n != want || media.Workers == 0 {
		t.Errorf("proxy %s: %d threads before other programs, want %d of %d media workers", p.e.Letter, n, want, media.Workers)
	}
	if stays := strings.Contains(p.Process().Log(), "media has no place before other programs"); stays != (want == 0) {
		t.Errorf("proxy %s: the log tells that media has no place before others: %v, %d threads have", p.e.Letter, stays, want)
	}
}

// threadsWithNice counts the threads of a daemon that have a place among programs (proc(5), stat).
func threadsWithNice(t T, p *Proxy, nice int) (n int) {
	t.Helper()
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.Process().Pid()))
	for _, f := range files {
		_, rest, _ := strings.Cut(readAll(f), ") ")
		if fields := strings.Fields(rest); len(fields) > 16 && fields[16] == fmt.Sprint(nice) {
			n++
		}
	}
	return n
}

// The service gives the daemon what the confined labs give it.
func TestServiceUnit(t *testing.T) {
	unit := readAll(filepath.Join(Root(), "image", "imeproxy.service"))
	for _, line := range []string{
		"AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW", "CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW", "User=imeproxy", "NoNewPrivileges=yes", "LimitNICE=-15",
	} {
		if !slices.Contains(strings.Split(unit, "\n"), line) {
			t.Errorf("the unit has no line %q", line)
		}
	}
	// systemd must understand every line; it looks for the binary too.
	file := filepath.Join(t.TempDir(), "imeproxy.service")
	text := strings.ReplaceAll(unit, "/usr/local/bin/imeproxy", Binary())
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := run(exec.CommandContext, "systemd-analyze", "verify", file); err != nil || out != "" {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
