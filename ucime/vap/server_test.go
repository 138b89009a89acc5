package vap

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"imeproxy/ucime/learn"
)

func TestPublishRules(t *testing.T) {
	s := startServer(t, newMemory(), 5000)
	c := rawRegistered(t, s.addr(), "node1")
	page := "<numbers><pattern>+140890215XX</pattern></numbers>"
	for _, step := range []struct {
		what          string
		service, page int
		id            string
		version       uint32
		doc           string
		want          int
	}{
		{"numbers of no service", 100, 0, rawService, 1, page, 473},
		{"service 102", 102, 0, rawService, 1, rawVservice, 473},
		{"instance 0", 101, 0, strings.Repeat("\x00", 8), 1, rawVservice, 475},
		{"subservice of 101", 101, 1, rawService, 1, rawVservice, 475},
		{"not a vservice", 101, 0, rawService, 1, page, 400},
		{"the service", 101, 0, rawService, 1, rawVservice, 0},
		{"the same version", 101, 0, rawService, 1, rawVservice, 472},
		{"page 0", 100, 0, rawService, 5, page, 0},
		{"page 0, lower version", 100, 0, rawService, 4, page, 472},
		{"page 127", 100, 127, rawService, 1, "<numbers><pattern>+1408902155X</pattern><exclude>+14089021555</exclude></numbers>", 0},
		{"page 128", 100, 128, rawService, 1, page, 475},
		{"bad pattern", 100, 1, rawService, 1, "<numbers><pattern>+1X408</pattern></numbers>", 400},
		{"501 patterns", 100, 1, rawService, 1, "<numbers>" + strings.Repeat("<pattern>+1</pattern>", 501) + "</numbers>", 413},
		{"more than didcount", 100, 1, rawService, 1, "<numbers><pattern>+1408903XXX</pattern><pattern>+1408904XXX</pattern></numbers>", 481},
		{"didcount below the numbers", 101, 0, rawService, 2, strings.Replace(rawVservice, ">2000<", ">98<", 1), 481},
		{"didcount of the numbers", 101, 0, rawService, 3, strings.Replace(rawVservice, ">2000<", ">99<", 1), 0},
	} {
		m := c.publish(step.service, step.page, step.id, step.version, step.doc)
		if m.code() != step.want {
			t.Errorf("%s: %d %s, want %d", step.what, m.code(), m.attrs[9], step.want)
		}
		if step.want == 0 && (m.attrs[0x1015] == nil || m.u32(0x100b) != step.version || m.attrs[0x1007] == nil) {
			t.Errorf("%s: %x", step.what, m.bytes)
		}
	}
	p, _ := s.handler.publication(keyA)
	if p.Numbers.Count() != 99 || p.Numbers.Contains("+14089021555") || p.Service.MaxDIDs != 99 || p.Service.ID != serviceA {
		t.Errorf("%+v, %d numbers", p.Service, p.Numbers.Count())
	}
	// Taking the exclusion back would make 100 of them.
	if m := c.ask(5, rawIdentity(100, 127, rawService)); m.code() != 0 {
		t.Errorf("Unpublish of the page: %d", m.code())
	}
	if p, _ := s.handler.publication(keyA); p.Numbers.Count() != 100 {
		t.Errorf("%d numbers", p.Numbers.Count())
	}
	if m := c.ask(5, rawIdentity(100, 127, rawService)); m.code() != 473 {
		t.Errorf("Unpublish twice: %d", m.code())
	}
	if m := c.ask(5, rawIdentity(101, 0, rawService)); m.code() != 0 {
		t.Errorf("Unpublish: %d", m.code())
	}
	if _, there := s.handler.publication(keyA); there || s.Stats().Quota.Current != 0 {
		t.Error("still published")
	}
}

func TestQuotaCountsUniqueNumbersOfAllServices(t *testing.T) {
	var told []Quota
	h := newMemory()
	clock := newFakeClock()
	s := &testServer{NewServer(ServerConfig{Handler: h, Quota: 150, Clock: clock.clock(), Log: testLog(t), OnOverQuota: func(q Quota) { told = append(told, q) }}), clock, h}
	t.Cleanup(s.Close)
	if err := s.Apply([]Instance{instance()}); err != nil {
		t.Fatal(err)
	}
	one, two := rawPublished(t, s.addr(), "node1"), rawRegistered(t, s.addr(), "node2") // 100 numbers
	if m := two.publish(101, 0, "otherone", 1, rawVservice); m.code() != 0 || string(m.attrs[0x1015]) != "\x00\x00\x00\x64\x00\x00\x00\x96" {
		t.Errorf("service: %d %x", m.code(), m.attrs[0x1015])
	}
	numbers := func(list ...string) string {
		return "<numbers><pattern>" + strings.Join(list, "</pattern><pattern>") + "</pattern></numbers>"
	}
	m := two.publish(100, 0, "otherone", 1, numbers("+1408902150X", "+140890217XX")) // 10 that are known, 100 more
	if m.code() != 481 || string(m.attrs[0x1015]) != "\x00\x00\x00\xc8\x00\x00\x00\x96" || string(m.attrs[9][4:]) != "VAP over quota" {
		t.Errorf("200 of 150: %d %x %s", m.code(), m.attrs[0x1015], m.attrs[9])
	}
	if !slices.Equal(told, []Quota{{200, 150}}) || s.Stats().OverQuota != 1 {
		t.Errorf("alarm %v", told)
	}
	if m := two.publish(100, 0, "otherone", 2, numbers("+1408902150X", "+1408902170X")); m.code() != 0 || string(m.attrs[0x1015]) != "\x00\x00\x00\x6e\x00\x00\x00\x96" {
		t.Errorf("110 of 150: %d %x", m.code(), m.attrs[0x1015])
	}
	// Over a quota that was lowered, less is always allowed.
	s.SetQuota(50)
	if m := one.publish(100, 0, rawService, 2, numbers("+1408902150X")); m.code() != 0 {
		t.Errorf("less: %d", m.code())
	}
	if q := s.Stats().Quota; q != (Quota{20, 50}) {
		t.Errorf("%+v", q)
	}
}

func TestSixteenServicesAUser(t *testing.T) {
	s := startServer(t, newMemory(), 0)
	c := rawRegistered(t, s.addr(), "node1")
	for i := range MaxServices + 1 {
		want := 0
		if i == MaxServices {
			want = 481
		}
		if m := c.publish(101, 0, fmt.Sprintf("service%c", 'a'+i), 1, rawVservice); m.code() != want {
			t.Errorf("service %d: %d", i, m.code())
		}
		if m := c.ask(7, rawIdentity(100, 0, fmt.Sprintf("service%c", 'a'+i))); m.code() != want {
			t.Errorf("subscription %d: %d", i, m.code())
		}
	}
	a, b := c.ask(7, rawIdentity(100, 0, "servicea")), c.ask(7, rawIdentity(100, 0, "servicea"))
	if a.code() != 0 || a.u32(0x100e) != b.u32(0x100e) {
		t.Errorf("the same subscription again: %x %x", a.bytes, b.bytes)
	}
	if m := c.ask(8, rawU32(0x100e, a.u32(0x100e))); m.code() != 0 {
		t.Errorf("Unsubscribe: %d", m.code())
	}
	if m := c.ask(8, rawU32(0x100e, a.u32(0x100e))); m.code() != 476 {
		t.Errorf("Unsubscribe twice: %d", m.code())
	}
	if m := c.ask(7, rawIdentity(101, 0, "servicea")); m.code() != 473 {
		t.Errorf("Subscribe to 101: %d", m.code())
	}
}

func TestHandlerRefusesAPublication(t *testing.T) {
	s := startServer(t, newMemory(), 5000)
	c := rawPublished(t, s.addr(), "node1")
	s.handler.set(&Error{Code: CodeForbidden, Reason: "cisco.com is not ours"})
	if m := c.publish(101, 0, rawService, 2, strings.Replace(rawVservice, "cisco.com<", "other.example<", 1)); m.code() != 479 || string(m.attrs[9][4:]) != "cisco.com is not ours" {
		t.Errorf("%d %s", m.code(), m.attrs[9])
	}
	s.handler.set(errors.New("open /var/lib/secret: no space left"))
	if m := c.publish(100, 1, rawService, 2, "<numbers><pattern>+1</pattern></numbers>"); m.code() != 500 || string(m.attrs[9][4:]) != "Responder Error" {
		t.Errorf("%d %s", m.code(), m.attrs[9])
	}
	if st := s.Services(); len(st) != 1 || st[0].Service.Domain != "cisco.com" || st[0].Numbers != 100 || st[0].Version != 1 || !slices.Equal(st[0].Clients, []uint32{1}) {
		t.Errorf("%+v", st)
	}
}

func TestUploadIsAnsweredWhenItIsStored(t *testing.T) {
	s := startServer(t, newMemory(), 5000)
	c := rawPublished(t, s.addr(), "node1")
	doc := string(vcrDocument([]learn.VCR{theVCR}))
	upload := func(id, doc string) rawMessage { return c.ask(12, rawIdentity(100, 0, id), rawBytes(0x100c, doc)) }
	if m := upload("otherone", doc); m.code() != 473 {
		t.Errorf("of a service that is not published: %d", m.code())
	}
	if m := upload(rawService, strings.Replace(doc, "+1408", "1408", 1)); m.code() != 400 {
		t.Errorf("bad number: %d", m.code())
	}
	s.handler.set(errors.New("disk full"))
	if m := upload(rawService, doc); m.code() != 500 {
		t.Errorf("disk full: %d", m.code())
	}
	s.handler.set(nil)
	gate := make(chan struct{})
	s.handler.mu.Lock()
	s.handler.gate = gate
	s.handler.mu.Unlock()
	id := rawID()
	c.write(c.sealed(12, id, c.handle, rawIdentity(100, 0, rawService), rawBytes(0x100c, doc)))
	answers := make(chan rawMessage, 1)
	go func() { answers <- c.must() }()
	eventually(t, "it arrived", func() bool { return s.Clients()[0].Received == 8 })
	select {
	case m := <-answers:
		t.Fatalf("answered before it was stored: %x", m.bytes)
	default:
	}
	close(gate)
	if m := <-answers; m.code() != 0 || m.id != id {
		t.Errorf("%x", m.bytes)
	}
	if m := upload(rawService, doc); m.code() != 0 || len(s.handler.stored(keyA)) != 1 {
		t.Errorf("again: %d, %d stored", m.code(), len(s.handler.stored(keyA)))
	}
	if st := s.Stats(); st.VCRs != 2 || st.FailedUploads != 2 {
		t.Errorf("%+v", st)
	}
}

// subscribed is a client with a subscription.
func subscribed(t *testing.T, s *testServer, name string) *rawConn {
	t.Helper()
	c := rawRegistered(t, s.addr(), name)
	if m := c.ask(7, rawIdentity(100, 0, rawService)); m.code() != 0 {
		t.Fatalf("Subscribe: %d", m.code())
	}
	return c
}

func notification(id uint64) Notification {
	return Notification{ID: id, Routes: []learn.Route{theRoute}}
}

// expect takes notifications in their order.
func (c *rawConn) expect(ids ...uint64) (list []rawMessage) {
	c.t.Helper()
	for _, id := range ids {
		m := c.request()
		if m.typ != 10 || string(m.attrs[0x1014]) != string(rawU64(0, id).value) || string(m.attrs[0x1007]) != string(rawIdentity(100, 0, rawService).value) {
			c.t.Fatalf("%x is not notification %d", m.bytes, id)
		}
		list = append(list, m)
	}
	return list
}

// A notification stays until it is acknowledged: on the next connection, and after a restart of the server.
func TestNotificationsOutliveConnectionsAndServers(t *testing.T) {
	h := newMemory()
	s := startServer(t, h, 0)
	h.add(keyA, notification(1))
	h.add(keyA, notification(2))
	c := subscribed(t, s, "node1")
	c.confirm(c.expect(1, 2)[0], 0)
	eventually(t, "the first is done with", func() bool { return h.waiting(keyA) == 1 })
	_ = c.rw.Close()
	c = subscribed(t, s, "node1")
	c.expect(2)
	_ = c.rw.Close()
	s.Close()
	s = startServer(t, h, 0)
	c = subscribed(t, s, "node1")
	c.confirm(c.expect(2)[0], 0)
	eventually(t, "the second is done with", func() bool { return h.waiting(keyA) == 0 })
}

func TestAtMostSixteenNotificationsAreUnanswered(t *testing.T) {
	s := startServer(t, newMemory(), 0)
	var first, second []uint64
	for i := range uint64(window + 3) {
		s.handler.add(keyA, notification(i+1))
		if i < window {
			first = append(first, i+1)
		} else {
			second = append(second, i+1)
		}
	}
	c := subscribed(t, s, "node1")
	list := c.expect(first...)
	c.ask(11) // nothing else came before this answer
	if len(c.requests) > 0 {
		t.Errorf("%d more", len(c.requests))
	}
	for _, m := range list {
		c.confirm(m, 0)
	}
	c.expect(second...)
	s.pass(t, answerTime)
	c.closed() // for want of an answer
}

func TestNewestSubscriberGetsTheRoutes(t *testing.T) {
	s := startServer(t, newMemory(), 0)
	one, two := subscribed(t, s, "node1"), subscribed(t, s, "node2")
	s.handler.add(keyA, notification(1))
	s.Wake(keyA)
	two.expect(1)
	_ = two.rw.Close()
	one.confirm(one.expect(1)[0], 0) // the heir
	eventually(t, "done", func() bool { return s.handler.waiting(keyA) == 0 })
	// Another user's service of the same ID is another service.
	s.handler.add(Key{"another", serviceA}, notification(2))
	s.Wake(Key{"another", serviceA})
	one.ask(11)
	if len(one.requests) > 0 {
		t.Error("got another user's route")
	}
}

func TestFailedNotificationsWaitLongerEachTime(t *testing.T) {
	s := startServer(t, newMemory(), 0)
	s.handler.add(keyA, notification(1))
	c := subscribed(t, s, "node1")
	wait := retryFirst
	for range 8 {
		c.confirm(c.expect(1)[0], 500)
		eventually(t, "waiting", func() bool { return s.clock.armed(wait) > 0 })
		for left := wait; left > 0; left -= 30 * time.Second {
			c.ask(11)
			if len(c.requests) > 0 {
				t.Fatalf("came back before %v", wait)
			}
			s.pass(t, 30*time.Second)
		}
		wait = min(2*wait, retryLast)
	}
	c.confirm(c.expect(1)[0], 479)
	eventually(t, "rejected", func() bool { return s.handler.refused() == 1 })
}

func TestPublicationsOutliveTheirConnectionByTheHoldTime(t *testing.T) {
	s := startServer(t, newMemory(), 5000)
	c := rawPublished(t, s.addr(), "node1")
	if m := c.publish(100, 1, rawService, 1, "<numbers><pattern>+1408903XXX</pattern></numbers>"); m.code() != 0 {
		t.Fatal(m.code())
	}
	lose := func(c *rawConn) {
		t.Helper()
		_ = c.rw.Close()
		eventually(t, "held", func() bool { st := s.Services(); return len(st) == 1 && len(st[0].Clients) == 0 })
	}
	lose(c)
	s.pass(t, DefaultHoldTime-time.Second)
	events := len(s.handler.events)
	c = rawPublished(t, s.addr(), "node1") // the service and page 0 again, page 1 not
	if len(s.handler.events) != events {
		t.Errorf("what is the same is told again: %v", s.handler.events[events:])
	}
	s.pass(t, time.Second)
	if p, _ := s.handler.publication(keyA); p.Numbers.Count() != 100 {
		t.Errorf("%d numbers after the hold time", p.Numbers.Count())
	}
	lose(c)
	s.pass(t, DefaultHoldTime)
	if _, there := s.handler.publication(keyA); there || s.Stats().Expired != 1 || s.Stats().Quota.Current != 0 {
		t.Errorf("still published: %+v", s.Services())
	}
	// Two nodes of a cluster publish the same; the service stays for as long as one of them does.
	one, two := rawPublished(t, s.addr(), "node1"), rawPublished(t, s.addr(), "node2")
	if m := one.ask(2); m.code() != 0 {
		t.Errorf("Unregister: %d", m.code())
	}
	one.closed()
	if _, there := s.handler.publication(keyA); !there {
		t.Error("withdrawn under a living client")
	}
	if m := two.ask(2); m.code() != 0 {
		t.Errorf("Unregister: %d", m.code())
	}
	two.closed()
	if _, there := s.handler.publication(keyA); there {
		t.Error("still published after Unregister")
	}
}

func TestServiceIsTakenBack(t *testing.T) {
	s := startServer(t, newMemory(), 5000)
	raw := rawPublished(t, s.addr(), "node1")
	if !s.RevokeService(keyA, RemovedByOperator) || s.RevokeService(keyA, RemovedByOperator) {
		t.Error("not published, or twice")
	}
	m := raw.request()
	if m.typ != 6 || m.u32(0x100f) != 3 || string(m.attrs[0x1007]) != string(rawIdentity(101, 0, rawService).value) {
		t.Errorf("%x", m.bytes)
	}
	raw.confirm(m, 0)
	raw.ask(2)
	raw.closed()
	if _, there := s.handler.publication(keyA); there {
		t.Error("still published")
	}
	revoked := make(chan RemovedReason, 1)
	c, _ := startClient(t, ClientConfig{Addr: s.addr(), OnRevoke: func(_ ServiceID, r RemovedReason) { revoked <- r }})
	if err := c.SetServices([]Offer{offerA("+14089523513")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "published", complete(c, serviceA))
	s.RevokeService(keyA, RemovedOverQuota)
	if r := <-revoked; r != RemovedOverQuota {
		t.Errorf("reason %d", r)
	}
	if st := c.Registration().Services[serviceA]; st.Published || st.Err == "" {
		t.Errorf("%+v", st)
	}
	if err := c.SetServices([]Offer{offerA("+14089523513")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "published again", complete(c, serviceA))
}
