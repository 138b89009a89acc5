package uplink

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"imeproxy/ucime/learn"
	"imeproxy/ucime/vap"
)

func TestTheServiceIsPublishedAsConfigured(t *testing.T) {
	p := newPeerServer(t, "127.0.0.1").start()
	a := newAgent(t, t.TempDir())
	cfg := parse(t, activated+" external-address 209.165.200.227 port 5082\n external-address sip.a.example\n", p.block("one", ""))
	a.apply(cfg)
	until(t, "the service is published", func() bool { s := a.l.Status(); return s[0].Complete })
	got, _ := p.service(IDOf(cfg.Service))
	if got.Service.Name != "main" || got.Service.Domain != "a.example" || got.Service.MaxDIDs != 1000 || got.Numbers.Count() != 1000 ||
		!got.Numbers.Contains("+14085551000") || got.Numbers.Contains("+14085551999") || !got.Numbers.Contains("+14085552000") {
		t.Errorf("%+v, %d numbers", got.Service, got.Numbers.Count())
	}
	if tr := got.Service.Trust; !tr.Trusted || !slices.Equal(tr.Domains, []string{"b.example"}) || !slices.Equal(tr.Prefixes, []string{"+4930"}) {
		t.Errorf("trust %+v", tr)
	}
	u := got.Service.URIs
	if len(u) != 2 || !strings.HasSuffix(u[0], "@a.example:5082;maddr=209.165.200.227;transport=tcp") || !strings.HasSuffix(u[1], "@a.example:5060;maddr=sip.a.example;transport=tcp") {
		t.Errorf("URIs %q", u)
	}
	s := a.l.Status()[0]
	if s.Role != "primary" || !s.Registered || s.Handle == 0 || s.Numbers != 1000 || *s.Quota != (vap.Quota{Current: 1000, Target: 5000}) || a.l.Health() != Healthy || a.l.Counts().Published != 1000 {
		t.Errorf("%+v", s)
	}
	// A reload changes the numbers over the same connection.
	next := parse(t, activated+" external-address 209.165.200.227 port 5082\n", p.block("one", ""), "")
	next.EnrolledGroups["g"].Patterns = []string{"+14085553000"}
	a.apply(next)
	until(t, "the numbers have changed", func() bool { got, _ := p.service(IDOf(cfg.Service)); return got.Numbers.Count() == 1 })
	if s := a.l.Status()[0]; s.Handle != 1 {
		t.Errorf("another connection: %+v", s)
	}
	// A service that is deactivated is withdrawn at once.
	a.apply(parse(t, " primary-server one\n", p.block("one", "")))
	until(t, "it is withdrawn", func() bool { _, there := p.service(IDOf(cfg.Service)); return !there })
	if a.l.Health() != Unknown || len(a.l.Status()) != 0 {
		t.Errorf("%v", a.l.Status())
	}
}

func TestRecordsLeaveTheQueueWhenTheyAreStored(t *testing.T) {
	p := newPeerServer(t, "127.0.0.1").start()
	p.do(func() { p.full = errors.New("disk full") })
	a := newAgent(t, t.TempDir())
	one, two := vcr(learn.Originating, "+12125552222"), vcr(learn.Terminating, "+14085551000")
	a.put(one, two)
	a.apply(parse(t, activated, p.block("one", "")))
	until(t, "an upload was refused", func() bool { return a.l.Counts().Requests > 0 })
	if a.waiting() != 2 || a.l.Counts().Uploaded != 0 {
		t.Errorf("%d wait", a.waiting())
	}
	p.do(func() { p.full = nil })
	until(t, "the queue is empty", func() bool { return a.waiting() == 0 })
	if !p.has(one, two) || a.l.Counts().Uploaded != 2 {
		t.Errorf("stored %v", p.stored)
	}
	three := vcr(learn.Originating, "+12125553333")
	a.put(three)
	until(t, "the next one is uploaded", func() bool { return p.has(three) && a.waiting() == 0 })
}

// Whoever dies first, and whenever: no record is lost, and none is stored twice.
func TestARecordOutlivesBothSides(t *testing.T) {
	p := newPeerServer(t, "127.0.0.1").start()
	dir := t.TempDir()
	gate := make(chan struct{})
	p.do(func() { p.gate = gate })
	a := newAgent(t, dir)
	one := vcr(learn.Originating, "+12125552222")
	a.put(one)
	cfg := parse(t, activated, p.block("one", ""))
	a.apply(cfg)
	until(t, "the server has stored it and not yet said so", func() bool { return p.has(one) })
	a.close()
	p.do(func() { p.gate = nil })
	close(gate)
	a = newAgent(t, dir)
	if a.waiting() != 1 {
		t.Fatalf("%d wait", a.waiting())
	}
	p.srv.Close()
	a.apply(cfg)
	until(t, "the server is found away", func() bool { return a.standing(AlertTCP) != "" })
	two := vcr(learn.Terminating, "+14085551000")
	a.put(two)
	p.start()
	until(t, "all is acknowledged", func() bool { return a.waiting() == 0 })
	if !p.has(one, two) || len(p.stored) != 2 {
		t.Errorf("stored %v", p.stored)
	}
}

func TestARecordThatIsNeverTakenHoldsUpNoOther(t *testing.T) {
	p := newPeerServer(t, "127.0.0.1").start()
	p.do(func() { p.wrong = "+12125550003" })
	a := newAgent(t, t.TempDir())
	for i := range 7 {
		a.put(vcr(learn.Originating, learn.Number(fmt.Sprintf("+1212555000%d", i))))
	}
	a.apply(parse(t, activated, p.block("one", "")))
	until(t, "the queue is empty", func() bool { return a.waiting() == 0 })
	if c := a.l.Counts(); len(p.stored) != 6 || c.Uploaded != 6 || c.Refused != 1 {
		t.Errorf("%+v, stored %d", c, len(p.stored))
	}
}

func theRoute() learn.Route {
	at := time.Date(2026, 11, 27, 10, 0, 0, 0, time.UTC)
	return learn.Route{Number: "+12125552222", Domain: "b.example", URIs: []string{"sip:x@b.example:5061;maddr=192.0.2.1;transport=tcp"}, Ticket: "AAEAAQEA", Learned: at, Expires: at.AddDate(1, 0, 0)}
}

func TestARouteIsAcknowledgedWhenItIsStored(t *testing.T) {
	p := newPeerServer(t, "127.0.0.1").start()
	p.pending = []vap.Notification{{ID: 1, Routes: []learn.Route{theRoute()}}, {ID: 2, Withdrawn: []learn.Number{"+12125553333"}}}
	a := newAgent(t, t.TempDir())
	a.fail = errors.New("disk full")
	cfg := parse(t, activated, p.block("one", ""))
	a.apply(cfg)
	until(t, "both were told", func() bool { s := p.srv.Stats(); return s.FailedNotifications == 2 })
	p.do(func() {
		if len(p.pending) != 2 {
			t.Errorf("%v", p.pending)
		}
	})
	// The disk is well again, and the next registration brings them again.
	a.mu.Lock()
	a.fail = nil
	a.mu.Unlock()
	p.srv.Close()
	p.start()
	left := func() (n int) { p.do(func() { n = len(p.pending) }); return n }
	until(t, "they are acknowledged", func() bool { return left() == 0 })
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.known) != 1 || a.known[0].Ticket != "AAEAAQEA" || len(a.gone) != 1 || len(p.rejected) != 0 {
		t.Errorf("%v %v %v", a.known, a.gone, p.rejected)
	}
}

func TestARouteThatIsNotTrustedIsRejected(t *testing.T) {
	p := newPeerServer(t, "127.0.0.1").start()
	p.pending = []vap.Notification{{ID: 1, Routes: []learn.Route{theRoute()}}}
	a := newAgent(t, t.TempDir())
	a.left = 1
	a.apply(parse(t, activated, p.block("one", "")))
	until(t, "it is rejected", func() (ok bool) { p.do(func() { ok = slices.Equal(p.rejected, []uint64{1}) }); return ok })
}

func TestTheSecondaryServerTakesOver(t *testing.T) {
	one, two := newPeerServer(t, "127.0.0.1").start(), newPeerServer(t, "127.0.0.2").start()
	a := newAgent(t, t.TempDir())
	a.apply(parse(t, activated+" secondary-server two\n", one.block("one", ""), two.block("two", "")))
	until(t, "both have the service", func() bool { s := a.l.Status(); return s[0].Complete && s[1].Complete })
	first := vcr(learn.Originating, "+12125552222")
	a.put(first)
	until(t, "it is uploaded", func() bool { return a.waiting() == 0 })
	if !one.has(first) || two.has(first) || a.l.Health() != Healthy {
		t.Error("not on the primary server")
	}
	one.srv.Close()
	until(t, "the loss is told", func() bool { return a.standing(AlertStatus) != "" })
	second := vcr(learn.Originating, "+12125553333")
	a.put(second)
	until(t, "it is uploaded", func() bool { return a.waiting() == 0 })
	if one.has(second) || !two.has(second) || a.l.Health() != Unhealthy {
		t.Error("not on the secondary server")
	}
	one.start()
	until(t, "the primary is back", func() bool {
		return a.l.Health() == Healthy && a.standing(AlertStatus) == "" && a.standing(AlertTCP) == ""
	})
}

func TestAlerts(t *testing.T) {
	p := newPeerServer(t, "127.0.0.1")
	p.Quota = 10
	a := newAgent(t, t.TempDir())
	a.apply(parse(t, activated, p.block("one", "")))
	until(t, "TCP fails", func() bool { return strings.Contains(a.standing(AlertTCP), p.at) && a.standing(AlertStatus) != "" })
	if a.l.Health() != Unhealthy {
		t.Error(a.l.Health())
	}
	p.start()
	until(t, "the quota is exceeded", func() bool {
		return strings.Contains(a.standing(AlertOverQuota), "1000 numbers, at most 10 are allowed") && a.standing(AlertTCP) == "" && a.standing(AlertStatus) == ""
	})
	p.srv.SetQuota(2000)
	until(t, "the quota is enough", func() bool { return a.standing(AlertOverQuota) == "" && a.l.Status()[0].Complete })
	wrong := strings.Replace(p.block("one", ""), password, "wrong-password", 1)
	a.apply(parse(t, activated, wrong))
	until(t, "the credentials are wrong", func() bool { return strings.Contains(a.standing(AlertCredentials), user) })
	if strings.Contains(a.standing(AlertCredentials)+a.standing(AlertStatus), "wrong-password") {
		t.Error("an alert tells a password")
	}
	p.do(func() { p.busy = &vap.Error{Code: vap.CodeResponder, Reason: "the ring is not active"} })
	a.apply(parse(t, activated+" external-address 209.165.200.227\n", p.block("one", ""))) // what the server holds unchanged needs no ring
	until(t, "the ring is inactive", func() bool {
		return strings.Contains(a.standing(AlertCacheInactive), "the ring is not active") && a.standing(AlertCredentials) == ""
	})
	p.do(func() { p.busy = nil })
	until(t, "the ring is active", func() bool { return a.standing(AlertCacheInactive) == "" && a.l.Status()[0].Complete })
}
