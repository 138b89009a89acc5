package testbed

import (
	"testing"
	"time"
)

// A hundred calls a second for a minute: none fails, and afterwards the
// proxies hold nothing of them.
func TestLoadLeavesNothing(t *testing.T) {
	lab := Start(t, Options{NoCallAgents: true})
	// A first call opens what stays open by design: the TLS connection.
	if r := lab.Load(t, LoadOptions{Rate: 10, Calls: 10, Hold: 100 * time.Millisecond}); r.Succeeded != 10 {
		t.Fatalf("first calls: %+v", r)
	}
	fds, routines := make(map[*Enterprise]int), make(map[*Enterprise]int)
	for _, e := range lab.Enterprises() {
		fds[e], routines[e] = openFiles(t, e.Proxy), goroutines(t, e.Proxy)
	}
	r := lab.Load(t, LoadOptions{Rate: 100, Calls: 6000, Hold: 2 * time.Second})
	t.Logf("%d calls, %.1f/s, at most %d at a time; %+v", r.Succeeded, r.Rate, r.MostCalls, r.Edges)
	if r.Succeeded != 6000 || r.Failed != 0 || r.MostCalls < 150 {
		t.Errorf("%d of 6000 calls succeeded, %d failed, at most %d at a time", r.Succeeded, r.Failed, r.MostCalls)
	}
	for _, e := range lab.Enterprises() {
		Until(t, 10*time.Second, "proxy "+e.Letter+" frees all media", func() bool { return mediaInUse(t, e.Proxy) == 0 })
		Until(t, 10*time.Second, "proxy "+e.Letter+" frees its dialogs", func() bool { return dialogs(t, e.Proxy) == 0 })
		Until(t, 10*time.Second, "proxy "+e.Letter+" closes its files", func() bool { return openFiles(t, e.Proxy) <= fds[e]+4 })
		Until(t, 10*time.Second, "proxy "+e.Letter+" ends its goroutines", func() bool { return goroutines(t, e.Proxy) <= routines[e]+8 })
	}
}

// goroutines counts those of a proxy's daemon.
func goroutines(t T, p *Proxy) int {
	t.Helper()
	var v struct {
		Goroutines int `json:"goroutines"`
	}
	p.Show(t, "version", &v)
	if v.Goroutines == 0 {
		t.Fatalf("show version tells no goroutines")
	}
	return v.Goroutines
}

// openFiles counts a proxy's file descriptors.
func openFiles(t T, p *Proxy) int {
	t.Helper()
	n, err := p.FDs()
	if err != nil {
		t.Fatalf("%v", err)
	}
	return n
}

// dialogs counts what a proxy still knows of calls.
func dialogs(t T, p *Proxy) int {
	t.Helper()
	var v struct {
		Sessions []struct {
			Dialogs []any `json:"dialogs"`
		} `json:"sessions"`
	}
	p.Show(t, "uc-ime signaling-sessions", &v)
	n := 0
	for _, s := range v.Sessions {
		n += len(s.Dialogs)
	}
	return n
}
