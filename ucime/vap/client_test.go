package vap

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"imeproxy/ucime/learn"
)

// inbox stores notifications as a call agent would.
type inbox struct {
	mu  sync.Mutex
	got []Notification
	err error
}

func (b *inbox) take(_ context.Context, n Notification) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got = append(b.got, n)
	return b.err
}

func (b *inbox) set(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

func (b *inbox) ids() (ids []uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range b.got {
		ids = append(ids, n.ID)
	}
	return ids
}

func offerA(patterns ...Pattern) Offer {
	return Offer{Service: serviceOf(serviceA), Patterns: patterns}
}

func complete(c *Client, id ServiceID) func() bool {
	return func() bool { return c.Registration().Services[id].Complete }
}

// What is said to be complete is what is offered now, not what was offered before.
func TestCompleteIsOfTheOfferInForce(t *testing.T) {
	s := startServer(t, newMemory(), 5000)
	c, _ := startClient(t, ClientConfig{Addr: s.addr()})
	for i := range 30 {
		o := offerA("+14089021XXX")
		if i%2 == 1 {
			o = offerA("+14089022XXX")
		}
		if err := c.SetServices([]Offer{o}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "published", complete(c, serviceA))
		p, _ := s.handler.publication(keyA)
		if want := NewNumbers(o.Patterns, o.Exclude); !p.Numbers.Equal(want) {
			t.Fatalf("offer %d is complete, and the one before it is published", i)
		}
	}
}

// A call agent's day: it registers, publishes, uploads a call and learns a route.
func TestCallAgentRegistersPublishesUploadsAndLearns(t *testing.T) {
	s := startServer(t, newMemory(), 5000)
	s.handler.add(keyA, Notification{ID: 7, Routes: []learn.Route{theRoute}})
	var box inbox
	c, _ := startClient(t, ClientConfig{Addr: s.addr(), OnNotify: box.take})
	if err := c.SetServices([]Offer{offerA("+14089021xxx", "+14089523513")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "published", complete(c, serviceA))
	p, _ := s.handler.publication(keyA)
	if p.Service.Domain != "cisco.com" || p.Numbers.Count() != 1001 || !p.Numbers.Contains("+14089021555") || p.Numbers.Contains("+14089022000") {
		t.Errorf("publication %+v with %d numbers", p.Service, p.Numbers.Count())
	}
	if err := c.Upload(within(t), serviceA, []learn.VCR{theVCR}); err != nil {
		t.Fatal(err)
	}
	if got := s.handler.stored(keyA); !slices.Equal(got, []learn.VCR{theVCR}) {
		t.Errorf("stored %+v, want %+v", got, theVCR)
	}
	eventually(t, "route acknowledged", func() bool { return s.handler.waiting(keyA) == 0 })
	if len(box.got) != 1 || box.got[0].ID != 7 || box.got[0].Service != serviceA || box.got[0].Routes[0].Ticket != theRoute.Ticket || !box.got[0].Routes[0].Expires.Equal(theRoute.Expires) {
		t.Errorf("learned %+v", box.got)
	}
	st := s.Clients()
	if len(st) != 1 || !st[0].Registered || st[0].Handle != 1 || st[0].Server != "vapserver1" || st[0].Client.Addr().String() != "127.0.0.1" || st[0].Sent == 0 || st[0].PublishedServices != 1 {
		t.Errorf("status %+v", st)
	}
	// New while connected.
	s.handler.add(keyA, Notification{ID: 9, Withdrawn: []learn.Number{"+14085551212"}, Reason: "peer banned"})
	s.Wake(keyA)
	eventually(t, "withdrawal acknowledged", func() bool { return s.handler.waiting(keyA) == 0 })
	if n := box.got[1]; n.ID != 9 || n.Reason != "peer banned" || n.Withdrawn[0] != "+14085551212" {
		t.Errorf("withdrawn %+v", n)
	}
}

func TestWrongPasswordIsRetriedAtTheInterval(t *testing.T) {
	s := startServer(t, newMemory(), 5000)
	c, clock := startClient(t, ClientConfig{Addr: s.addr(), Username: "vapuser", Password: "not-the-password"})
	eventually(t, "refused", func() bool { return clock.armed(DefaultRetry) == 1 })
	if n := s.Stats().FailedAuthentication; n != 1 || c.Registration().Registered {
		t.Errorf("%d failures, %+v", n, c.Registration())
	}
	if e := c.Registration().LastError; e != "not registered: 431 Integrity Check Failure" {
		t.Errorf("last error %q", e)
	}
	clock.advance(DefaultRetry)
	eventually(t, "tried again", func() bool { return s.Stats().FailedAuthentication == 2 })
}

func TestServerThatDoesNotKnowThePasswordGetsNothing(t *testing.T) {
	other, err := DeriveUserKey("vapuser", "another-password")
	if err != nil {
		t.Fatal(err)
	}
	inst := instance()
	inst.Credentials = Users{"vapuser": other}
	s := startServer(t, newMemory(), 5000, inst)
	c, clock := startClient(t, ClientConfig{Addr: s.addr()})
	if err := c.SetServices([]Offer{offerA("+14089523513")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "given up", func() bool { return clock.armed(DefaultRetry) == 1 })
	if _, there := s.handler.publication(keyA); there {
		t.Error("published to a stranger")
	}
}

func TestClientComesBackAndPublishesAgain(t *testing.T) {
	s := startServer(t, newMemory(), 5000)
	c, clock := startClient(t, ClientConfig{Addr: s.addr(), OnNotify: new(inbox).take})
	if err := c.SetServices([]Offer{offerA("+14089523513")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "published", complete(c, serviceA))
	addr := s.addr()
	h := s.handler
	s.Close()
	eventually(t, "waiting", func() bool { return clock.armed(DefaultRetry) == 1 })
	if e := c.Registration().LastError; e != "registration taken back: 500 Responder Error: the server stops" {
		t.Errorf("last error %q", e)
	}
	h.mu.Lock()
	clear(h.pubs)
	h.mu.Unlock()
	inst := instance()
	inst.Addr = addr
	s2 := startServer(t, h, 5000, inst)
	clock.advance(DefaultRetry)
	eventually(t, "published again", func() bool { _, ok := h.publication(keyA); return ok && complete(c, serviceA)() })
	if st := s2.Clients(); len(st) != 1 || !st[0].Registered {
		t.Errorf("%+v", st)
	}
}

func TestNotificationsComeAgainUntilAcknowledged(t *testing.T) {
	s := startServer(t, newMemory(), 5000)
	for id := range uint64(3) {
		s.handler.add(keyA, Notification{ID: id + 1, Routes: []learn.Route{theRoute}})
	}
	box := inbox{err: errors.New("disk full")}
	c, _ := startClient(t, ClientConfig{Addr: s.addr(), OnNotify: box.take})
	if err := c.SetServices([]Offer{offerA("+14089523513")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "waiting to bring them again", func() bool { return s.clock.armed(retryFirst) == 1 })
	if got := box.ids(); !slices.Equal(got, []uint64{1, 2, 3}) || s.handler.waiting(keyA) != 3 {
		t.Errorf("brought %v", got)
	}
	box.set(ErrForbidden)
	s.pass(t, retryFirst)
	eventually(t, "rejected", func() bool { return s.handler.waiting(keyA) == 0 })
	if got := box.ids(); !slices.Equal(got, []uint64{1, 2, 3, 1, 2, 3}) || s.handler.refused() != 3 {
		t.Errorf("brought %v, rejected %v", got, s.handler.refused())
	}
	if st := s.Stats(); st.Rejected != 3 || st.FailedNotifications != 3 || st.Notified != 6 || c.Registration().Counters.RoutesRejected != 3 {
		t.Errorf("%+v", st)
	}
}
