package routes

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"imeproxy/ucime/learn"
	"imeproxy/ucime/ticket"
)

var now = time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)

func route(t *testing.T, n learn.Number) learn.Route {
	t.Helper()
	text, err := ticket.Issue(ticket.DeriveKey("password-of-b", 1), ticket.IssueParams{
		GrantingDomain: "b.example", GrantedToDomain: "a.example", Numbers: []string{string(n)}, NotBefore: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	return learn.Route{Number: n, Domain: "B.example", Ticket: text, URIs: []string{"sip:192.0.2.1:5070;transport=tls"}}
}

func TestRoutesSurviveARestart(t *testing.T) {
	dir, at := t.TempDir(), now
	clock := func() time.Time { return at }
	open := func() *Table {
		tab, err := Open(dir, clock)
		if err != nil {
			t.Fatal(err)
		}
		return tab
	}
	tab := open()
	if err := tab.Learn(route(t, "+14085551212")); err != nil {
		t.Fatal(err)
	}
	tab = open()
	r, ok := tab.Lookup("+14085551212")
	if !ok || r.Domain != "b.example" || !r.Learned.Equal(now) || !r.Expires.Equal(now.Add(365*24*time.Hour)) {
		t.Errorf("%+v %v", r, ok)
	}
	if err := tab.Enable("+14085551212", false); err != nil {
		t.Fatal(err)
	}
	if err := tab.Learn(route(t, "+14085551212")); err != nil { // learned again it stays disabled
		t.Fatal(err)
	}
	tab = open()
	if _, ok := tab.Lookup("+14085551212"); ok {
		t.Error("a disabled route is used")
	}
	if err := tab.Enable("+14085551212", true); err != nil {
		t.Fatal(err)
	}
	at = now.Add(366 * 24 * time.Hour)
	if _, ok := tab.Lookup("+14085551212"); ok {
		t.Error("an expired route is used")
	}
	if err := tab.Forget("+14085551212"); err != nil || len(tab.List()) != 0 {
		t.Error(err, tab.List())
	}
	if err := tab.Forget("+14085551212"); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
}

func TestRoutesThatWillNotDo(t *testing.T) {
	tab, err := Open(t.TempDir(), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	good := route(t, "+14085551212")
	for name, change := range map[string]func(*learn.Route){
		"number": func(r *learn.Route) { r.Number = "14085551212" }, "other number": func(r *learn.Route) { r.Number = "+14085551213" },
		"domain": func(r *learn.Route) { r.Domain = "c.example" }, "no URI": func(r *learn.Route) { r.URIs = nil },
		"URI": func(r *learn.Route) { r.URIs = []string{"sips:x"} }, "port": func(r *learn.Route) { r.URIs = []string{"sip:x:99999"} },
		"header in URI": func(r *learn.Route) { r.URIs = []string{"sip:x\r\nA: b"} }, "ticket": func(r *learn.Route) { r.Ticket = "AAAA" },
		"many URIs": func(r *learn.Route) { r.URIs = make([]string, 9) },
	} {
		r := good
		change(&r)
		if err := tab.Learn(r); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if len(tab.List()) != 0 {
		t.Error("something was kept")
	}
}

func TestTheTableHasALimit(t *testing.T) {
	tab, err := Open(t.TempDir(), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	for i := range Maximum {
		n := learn.Number(fmt.Sprintf("+1%06d", i))
		tab.routes[n] = Route{Route: learn.Route{Number: n}}
	}
	if err := tab.Learn(route(t, "+14085551212")); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	if _, _, refused := tab.Counts(); refused != 1 {
		t.Errorf("%d refused", refused)
	}
}
