package vap

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"imeproxy/ucime/learn"
)

// rawServer is a server without a mind of its own: it takes one connection at a time.
type rawServer struct {
	t *testing.T
	l net.Listener
}

func newRawServer(t *testing.T) *rawServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &rawServer{t, l}
}

// rawPeer is the server's end. In a rawConn "client" is the direction in which it writes, so keys and numbers are swapped here.
func (s *rawServer) accept() *rawConn {
	s.t.Helper()
	_ = s.l.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	nc, err := s.l.Accept()
	if err != nil {
		s.t.Fatal(err)
	}
	_ = nc.SetDeadline(time.Now().Add(patience))
	s.t.Cleanup(func() { nc.Close() })
	return &rawConn{t: s.t, rw: nc}
}

// Times that no timer of the package has, and a retry that is shorter than all of them: a test can let it pass and nothing else.
const (
	rawKeepalive = 40
	shortRetry   = 5 * time.Second
)

var rawNonce = []byte(strings.Repeat("n", 32))

// challenged takes the first Register and challenges it; the second is returned, with the keys that it makes.
func (s *rawServer) challenged() (*rawConn, rawMessage, rawKeys) {
	s.t.Helper()
	c := s.accept()
	m := c.must()
	c.write(rawEncode(0x111, m.id, nil, rawAttr{9, []byte{0, 0, 4, 1}}, rawBytes(0x14, `"VAP"`), rawAttr{0x15, rawNonce}))
	m = c.must()
	return c, m, rawDerive("vapuser", password, rawNonce, m.attrs[0x1012])
}

// registered registers whoever comes.
func (s *rawServer) registered() *rawConn {
	s.t.Helper()
	c, m, keys := s.challenged()
	if !m.signed(keys.client, 1) {
		s.t.Fatalf("no proof of the password: %x", m.bytes)
	}
	c.keys, c.out, c.in = rawKeys{client: keys.server, server: keys.client}, 0, 1
	c.write(c.sealed(0x101, m.id, rawU32(0x1002, 77), rawU32(0x1006, rawKeepalive), rawU32(0x1004, 2), rawVersion))
	return c
}

// serve answers the client's requests with success until one of the method comes, which is returned.
func (c *rawConn) serve(method int) rawMessage {
	c.t.Helper()
	for {
		m := c.must()
		if m.typ == method {
			return m
		}
		c.succeed(m)
	}
}

func (c *rawConn) succeed(m rawMessage) {
	c.t.Helper()
	var attrs []rawAttr
	if m.typ == 7 {
		attrs = append(attrs, rawU32(0x100e, 5))
	}
	c.write(c.sealed(m.typ|0x100, m.id, attrs...))
}

// notify sends a notification and returns the client's answer.
func (c *rawConn) notify(service string, id uint64, doc string) rawMessage {
	c.t.Helper()
	tid := rawID()
	c.write(c.sealed(10, tid, rawU32(0x100e, 5), rawIdentity(100, 0, service), rawU64(0x1014, id), rawBytes(0x100c, doc)))
	for {
		if m := c.must(); m.id == tid {
			return m
		} else if m.typ&0x110 == 0 {
			c.succeed(m)
		}
	}
}

// A server that cannot prove the password gets nothing from a client but the proof it asked for.
func TestClientLeavesServersThatProveNothing(t *testing.T) {
	for name, answer := range map[string]func(*rawConn, rawMessage, rawKeys) []byte{
		"no integrity": func(_ *rawConn, m rawMessage, _ rawKeys) []byte {
			return rawEncode(0x101, m.id, nil, rawU32(0x1002, 1), rawU32(0x1006, 30), rawU32(0x1004, 500), rawVersion)
		},
		"the client's own key": func(_ *rawConn, m rawMessage, k rawKeys) []byte {
			return rawEncode(0x101, m.id, k.client, rawU32(0x1002, 1), rawU32(0x1006, 30), rawU32(0x1004, 500), rawU64(0x1013, 1))
		},
		"sequence 2": func(_ *rawConn, m rawMessage, k rawKeys) []byte {
			return rawEncode(0x101, m.id, k.server, rawU32(0x1002, 1), rawU32(0x1006, 30), rawU32(0x1004, 500), rawU64(0x1013, 2))
		},
		"no handle": func(_ *rawConn, m rawMessage, k rawKeys) []byte {
			return rawEncode(0x101, m.id, k.server, rawU32(0x1006, 30), rawU32(0x1004, 500), rawU64(0x1013, 1))
		},
		"another transaction": func(_ *rawConn, _ rawMessage, k rawKeys) []byte {
			return rawEncode(0x101, rawID(), k.server, rawU32(0x1002, 1), rawU32(0x1006, 30), rawU32(0x1004, 500), rawU64(0x1013, 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newRawServer(t)
			c, clock := startClient(t, ClientConfig{Addr: s.l.Addr().String()})
			conn, m, keys := s.challenged()
			conn.write(answer(conn, m, keys))
			conn.closed()
			eventually(t, "it waits to try again", func() bool { return clock.armed(DefaultRetry) == 1 })
			if r := c.Registration(); r.Registered || r.Counters.Registrations != 0 || r.LastError == "" {
				t.Errorf("%+v", r)
			}
		})
	}
	// Nor does it take a success without a challenge.
	s := newRawServer(t)
	startClient(t, ClientConfig{Addr: s.l.Addr().String()})
	conn := s.accept()
	m := conn.must()
	if m.attrs[8] != nil || m.attrs[0x1012] != nil {
		t.Errorf("a proof before the challenge: %x", m.bytes)
	}
	conn.write(rawEncode(0x101, m.id, nil, rawU32(0x1002, 1), rawU32(0x1006, 30), rawU32(0x1004, 500)))
	conn.closed()
}

// On an established connection the client obeys nothing that is not the server's next message.
func TestClientEndsMeddledConnections(t *testing.T) {
	revoke := func(c *rawConn) []rawAttr { return []rawAttr{rawIdentity(101, 0, rawService), rawU32(0x100f, 3)} }
	for name, meddle := range map[string]func(*rawConn) []byte{
		"plain": func(c *rawConn) []byte { return rawEncode(6, rawID(), nil, revoke(c)...) },
		"turned": func(c *rawConn) []byte {
			return rawEncode(6, rawID(), c.keys.server, append(revoke(c), rawU64(0x1013, 5))...)
		},
		"skipped":     func(c *rawConn) []byte { c.out++; return c.sealed(6, rawID(), revoke(c)...) },
		"a bit":       func(c *rawConn) []byte { b := c.sealed(6, rawID(), revoke(c)...); b[30] ^= 1; return b },
		"no question": func(c *rawConn) []byte { return c.sealed(0x104, rawID()) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newRawServer(t)
			revoked := make(chan struct{}, 1)
			c, clock := startClient(t, ClientConfig{Addr: s.l.Addr().String(), OnRevoke: func(ServiceID, RemovedReason) { revoked <- struct{}{} }})
			if err := c.SetServices([]Offer{offerA("+14089523513")}); err != nil {
				t.Fatal(err)
			}
			conn := s.registered()
			conn.succeed(conn.serve(7))
			eventually(t, "all is published", complete(c, serviceA))
			conn.write(meddle(conn))
			conn.closed()
			eventually(t, "it waits to try again", func() bool { return clock.armed(DefaultRetry) == 1 })
			if len(revoked) > 0 {
				t.Error("obeyed")
			}
		})
	}
}

func TestClientAnswersNotifications(t *testing.T) {
	s := newRawServer(t)
	var box inbox
	c, _ := startClient(t, ClientConfig{Addr: s.l.Addr().String(), OnNotify: box.take})
	if err := c.SetServices([]Offer{offerA("+14089523513")}); err != nil {
		t.Fatal(err)
	}
	conn := s.registered()
	m := conn.serve(7)
	doc := string((&Notification{ID: 1, Routes: []learn.Route{theRoute}}).document())
	conn.succeed(m)
	if a := conn.notify(rawService, 1, doc); a.typ != 0x10a || string(a.attrs[0x1014]) != string(rawU64(0, 1).value) {
		t.Errorf("%x", a.bytes)
	}
	if a := conn.notify("otherone", 2, doc); a.code() != 476 {
		t.Errorf("of a service it does not have: %d", a.code())
	}
	for what, doc := range map[string]string{
		"no ticket": strings.Replace(doc, "<ticket>AAEAAQEA</ticket>", "", 1), "9 routes": "<routes>" + strings.Repeat(doc[8:len(doc)-9], 9) + "</routes>",
		"peer": strings.Replace(doc, "<peer>0102", "<peer>", 1), "no route": "<routes/>",
	} {
		if a := conn.notify(rawService, 3, doc); a.code() != 400 && a.code() != 413 {
			t.Errorf("%s: %d", what, a.code())
		}
	}
	box.set(ErrForbidden)
	if a := conn.notify(rawService, 4, doc); a.code() != 479 {
		t.Errorf("forbidden: %d", a.code())
	}
	box.set(errors.New("open /var/secret: disk full"))
	if a := conn.notify(rawService, 5, doc); a.code() != 500 || strings.Contains(string(a.attrs[9]), "secret") {
		t.Errorf("disk full: %x", a.bytes)
	}
	if got := box.ids(); !slices.Equal(got, []uint64{1, 4, 5}) {
		t.Errorf("stored %v", got)
	}
	r := c.Registration()
	if r.Handle != 77 || r.Counters.RoutesReceived != 1 || r.Counters.RoutesRejected != 1 || r.Counters.Notifications != 8 {
		t.Errorf("%+v", r)
	}
}

// The client publishes in pages of the server's size, changes only what changed, and takes back what is gone.
func TestClientPublishesChangesOnly(t *testing.T) {
	s := newRawServer(t) // two patterns a page
	c, _ := startClient(t, ClientConfig{Addr: s.l.Addr().String()})
	offer := func(didcount uint32, patterns ...Pattern) []Offer {
		o := offerA(patterns...)
		o.Service.MaxDIDs = didcount
		return []Offer{o}
	}
	if err := c.SetServices(offer(9, "+13", "+11", "+12")); err != nil {
		t.Fatal(err)
	}
	conn := s.registered()
	step := func(method int, what rawAttr, doc string) {
		t.Helper()
		m := conn.must()
		if m.typ != method || string(m.attrs[0x1007]) != string(what.value) || doc != "" && string(m.attrs[0x100c]) != doc || m.u32(0x1002) != 77 {
			t.Fatalf("want method %d, got %x %s", method, m.bytes, m.attrs[0x100c])
		}
		conn.succeed(m)
	}
	itself, page := rawIdentity(101, 0, rawService), func(n int) rawAttr { return rawIdentity(100, n, rawService) }
	step(4, itself, "")
	step(4, page(0), "<numbers><pattern>+11</pattern><pattern>+12</pattern></numbers>")
	step(4, page(1), "<numbers><pattern>+13</pattern></numbers>")
	step(7, page(0), "")
	eventually(t, "all is published", complete(c, serviceA))
	if n := c.Registration().Services[serviceA].Numbers; n != 3 {
		t.Errorf("%d numbers", n)
	}
	if err := c.SetServices(offer(9, "+11", "+12", "+14", "+15")); err != nil {
		t.Fatal(err)
	}
	step(4, page(1), "<numbers><pattern>+14</pattern><pattern>+15</pattern></numbers>")
	eventually(t, "4 numbers", func() bool { return c.Registration().Services[serviceA].Numbers == 4 })
	if err := c.SetServices(offer(2, "+11")); err != nil { // less first, then the lower didcount
		t.Fatal(err)
	}
	step(5, page(1), "")
	step(4, page(0), "<numbers><pattern>+11</pattern></numbers>")
	step(4, itself, "")
	eventually(t, "1 number", func() bool { return c.Registration().Services[serviceA].Numbers == 1 })
	if err := c.SetServices(nil); err != nil {
		t.Fatal(err)
	}
	step(5, itself, "")
	m := conn.must()
	if m.typ != 8 || m.u32(0x100e) != 5 {
		t.Errorf("%x", m.bytes)
	}
	conn.succeed(m)
}

// What the server refuses for good is not sent again; what it refuses for now is, after the retry interval.
func TestClientRepeatsWhatMayHelp(t *testing.T) {
	s := newRawServer(t)
	c, clock := startClient(t, ClientConfig{Addr: s.l.Addr().String(), RetryInterval: shortRetry})
	if err := c.SetServices([]Offer{offerA("+11")}); err != nil {
		t.Fatal(err)
	}
	conn := s.registered()
	conn.succeed(conn.must()) // the service
	m := conn.must()
	conn.write(conn.sealed(0x114, m.id, rawAttr{9, append([]byte{0, 0, 4, 81}, "VAP over quota"...)}, rawAttr{0x1015, []byte{0, 0, 0, 9, 0, 0, 0, 8}}))
	conn.succeed(conn.must()) // Subscribe
	eventually(t, "it waits", func() bool { return clock.armed(shortRetry) == 1 })
	if st := c.Registration().Services[serviceA]; !st.Published || st.Complete || st.Numbers != 0 || st.Err != "481 Quota Exceeded: VAP over quota" {
		t.Errorf("%+v", st)
	}
	clock.advance(shortRetry)
	if m = conn.must(); m.typ != 4 {
		t.Fatalf("%x", m.bytes)
	}
	conn.write(conn.sealed(0x114, m.id, rawAttr{9, []byte{0, 0, 4, 0}}))
	eventually(t, "refused for good", func() bool { return strings.HasPrefix(c.Registration().Services[serviceA].Err, "400") })
	if n := clock.armed(shortRetry); n != 0 {
		t.Error("it waits to send it again")
	}
}

// An upload is not lost with its connection: it goes again over the next one.
func TestUploadOutlivesItsConnection(t *testing.T) {
	s := newRawServer(t)
	c, clock := startClient(t, ClientConfig{Addr: s.l.Addr().String(), RetryInterval: shortRetry})
	if err := c.SetServices([]Offer{offerA()}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(within(t))
	results := make(chan error, 3)
	upload := func(v learn.VCR) { results <- c.Upload(ctx, serviceA, []learn.VCR{v}) }
	var wg sync.WaitGroup
	wg.Go(func() { upload(theVCR) })
	conn := s.registered()
	first := conn.serve(12)
	_ = conn.rw.Close() // and no answer
	eventually(t, "it waits to try again", func() bool { return clock.armed(shortRetry) == 1 })
	clock.advance(shortRetry)
	conn = s.registered()
	again := conn.serve(12)
	if string(first.attrs[0x100c]) != string(again.attrs[0x100c]) {
		t.Errorf("another record: %s", again.attrs[0x100c])
	}
	conn.write(conn.sealed(0x11c, again.id, rawAttr{9, []byte{0, 0, 5, 0}})) // cannot now
	eventually(t, "it waits to try again", func() bool { return clock.armed(shortRetry) == 1 })
	clock.advance(shortRetry)
	conn.succeed(conn.serve(12))
	if err := <-results; err != nil {
		t.Error(err)
	}
	if n := c.Registration().Counters.VCRUploadRequests; n != 3 {
		t.Errorf("%d requests", n)
	}
	wg.Go(func() { upload(theVCR) })
	m := conn.serve(12)
	conn.write(conn.sealed(0x11c, m.id, rawAttr{9, []byte{0, 0, 4, 0}})) // never
	if err := <-results; codeOf(err) != CodeBadRequest {
		t.Errorf("%v", err)
	}
	wg.Go(func() { upload(learn.VCR{}) })
	if err := <-results; codeOf(err) != CodeBadRequest {
		t.Errorf("%v", err)
	}
	wg.Go(func() { upload(theVCR) })
	conn.serve(12)
	cancel()
	_ = conn.rw.Close()
	if err := <-results; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	wg.Wait()
}

func TestClientGivesUpASilentServer(t *testing.T) {
	s := newRawServer(t)
	_, clock := startClient(t, ClientConfig{Addr: s.l.Addr().String()})
	conn := s.registered()
	eventually(t, "registered", func() bool { return clock.armed(rawKeepalive*time.Second) == 1 })
	clock.advance(rawKeepalive * time.Second)
	if m := conn.must(); m.typ != 11 || m.u32(0x1002) != 77 {
		t.Errorf("%x", m.bytes)
	}
	eventually(t, "it waits for the answer", func() bool { return clock.armed(writeTime) == 0 && clock.armed(answerTime) == 1 })
	clock.advance(answerTime)
	conn.closed()
	eventually(t, "it waits to try again", func() bool { return clock.armed(DefaultRetry) == 1 })
}

func TestUnregisterEndsTheClient(t *testing.T) {
	s := startServer(t, newMemory(), 5000)
	c, err := NewClient(ClientConfig{Addr: s.addr(), Username: "vapuser", Password: password, Name: "node1"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Run(within(t)) }()
	if err := c.SetServices([]Offer{offerA("+14089523513")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "published", complete(c, serviceA))
	if err := c.Unregister(within(t)); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, ErrUnregistered) {
		t.Errorf("Run: %v", err)
	}
	if _, there := s.handler.publication(keyA); there {
		t.Error("still published")
	}
}

func TestClientConfigurationIsChecked(t *testing.T) {
	good := ClientConfig{Addr: "192.0.2.1:5620", Username: "u", Password: password, Name: "n"}
	for name, edit := range map[string]func(*ClientConfig){
		"address": func(c *ClientConfig) { c.Addr = "192.0.2.1" }, "user": func(c *ClientConfig) { c.Username = "a b" }, "password": func(c *ClientConfig) { c.Password = "short" },
		"name": func(c *ClientConfig) { c.Name = "" }, "retry": func(c *ClientConfig) { c.RetryInterval = 601 * time.Second }, "retry 0.5 s": func(c *ClientConfig) { c.RetryInterval = time.Second / 2 },
	} {
		cfg := good
		edit(&cfg)
		if _, err := NewClient(cfg); err == nil || strings.Contains(err.Error(), password) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c, err := NewClient(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, offers := range map[string][]Offer{
		"twice": {offerA(), offerA()}, "no domain": {{Service: Service{ID: serviceA, Name: "n"}}}, "pattern": {offerA("1408")}, "too many": slices.Repeat([]Offer{offerA()}, 17),
	} {
		if err := c.SetServices(offers); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
