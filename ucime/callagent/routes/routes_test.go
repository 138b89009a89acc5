package routes

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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

// A change that a crash cut was told to nobody; what comes after it must not be joined to it.
func TestACutChangeIsLeftOut(t *testing.T) {
	dir := t.TempDir()
	open := func() *Table {
		tab, err := Open(dir, func() time.Time { return now })
		if err != nil {
			t.Fatal(err)
		}
		return tab
	}
	tab := open()
	learnt := func(tab *Table, n learn.Number) {
		if err := tab.Learn(route(t, n)); err != nil {
			t.Fatal(err)
		}
	}
	learnt(tab, "+14085551212")
	tab.Close()
	f, err := os.OpenFile(filepath.Join(dir, "routes.journal"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString(`{"number":"+14085551212","route":nu`)
	f.Close()
	tab = open()
	learnt(tab, "+14085551213")
	tab.Close()
	tab = open()
	defer tab.Close()
	if all := tab.List(); len(all) != 2 || all[0].Number != "+14085551212" || all[1].Number != "+14085551213" {
		t.Errorf("%+v", all)
	}
}

// A disk that takes nothing: what was asked for does not count, and what was there goes on.
func TestAChangeThatIsNotSavedDoesNotCount(t *testing.T) {
	tab, err := Open(t.TempDir(), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	if err := tab.Learn(route(t, "+14085551212")); err != nil {
		t.Fatal(err)
	}
	tab.Close() // from here on every write fails
	if err := tab.Learn(route(t, "+14085551213")); err == nil {
		t.Error("saved")
	}
	if err := tab.Forget("+14085551212"); err == nil {
		t.Error("saved")
	}
	if _, ok := tab.Lookup("+14085551212"); !ok || len(tab.List()) != 1 {
		t.Errorf("%+v", tab.List())
	}
}

func TestTheJournalStaysShort(t *testing.T) {
	dir := t.TempDir()
	tab, err := Open(dir, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	defer tab.Close()
	if err := tab.Learn(route(t, "+14085551212")); err != nil {
		t.Fatal(err)
	}
	for i := range 2*slack + 10 {
		if err := tab.Enable("+14085551212", i%2 == 0); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "routes.journal"))
	if n := bytes.Count(text, []byte("\n")); err != nil || n > slack+2 {
		t.Errorf("%d lines, %v", n, err)
	}
}

// What a peer server withdraws is what it has told of.
func TestWhoMayWithdraw(t *testing.T) {
	tab, err := Open(t.TempDir(), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	defer tab.Close()
	for _, x := range []struct {
		source string
		gone   bool
	}{{"primary", true}, {"secondary", false}, {"", false}, {"retired", true}} {
		if err := tab.Apply(x.source, []learn.Route{route(t, "+14085551212")}, nil); err != nil {
			t.Fatal(err)
		}
		if err := tab.Apply("primary", nil, []learn.Number{"+14085551212", "+14085559999"}, "primary", "secondary"); err != nil {
			t.Fatal(err)
		}
		if _, there := tab.Lookup("+14085551212"); there == x.gone {
			t.Errorf("of %q: there %v", x.source, there)
		}
	}
}

func TestTargetsOfURIs(t *testing.T) {
	for uri, want := range map[string]string{
		"sip:192.0.2.1": "192.0.2.1:5060", "sip:b.example:5061;transport=tls": "b.example:5061", "sip:u@b.example:5082;maddr=192.0.2.9;transport=tcp": "192.0.2.9:5082",
		"sip:u@b.example;MADDR=edge.b.example": "edge.b.example:5060", "sip:u@b.example;maddr=": "", "sip:u@b.example;maddr=a b": "", "sip:b.example:0": "",
	} {
		host, port, err := Target(uri)
		if got := fmt.Sprintf("%s:%d", host, port); (err != nil) != (want == "") || err == nil && got != want {
			t.Errorf("%s: %s, %v", uri, got, err)
		}
	}
}

func BenchmarkLearnBesideManyRoutes(b *testing.B) {
	tab, err := Open(b.TempDir(), func() time.Time { return now })
	if err != nil {
		b.Fatal(err)
	}
	defer tab.Close()
	text, err := ticket.Issue(ticket.DeriveKey("password-of-b", 1), ticket.IssueParams{GrantingDomain: "b.example", GrantedToDomain: "a.example", Numbers: []string{"+14085551212"}, NotBefore: now})
	if err != nil {
		b.Fatal(err)
	}
	r := learn.Route{Number: "+14085551212", Domain: "b.example", Ticket: text, URIs: []string{"sip:192.0.2.1:5070"}}
	for i := range Maximum - 1 {
		n := learn.Number(fmt.Sprintf("+1%06d", i))
		x := r
		x.Number = n
		tab.routes[n] = Route{Route: x}
	}
	for b.Loop() {
		if err := tab.Learn(r); err != nil {
			b.Fatal(err)
		}
	}
}
