package vap

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"imeproxy/ucime/learn"
)

// The answers before registration, in the order of the document's checks.
func TestRegisterIsCheckedInOrder(t *testing.T) {
	s := startServer(t, newMemory(), 0)
	c := rawDial(t, s.addr())
	who := c.who("vapuser", "node1")
	if m := c.askPlain(4); m.code() != 474 {
		t.Errorf("Publish before Register: %d", m.code())
	}
	if m := c.askPlain(0x20); m.code() != 474 {
		t.Errorf("a method that does not exist: %d", m.code())
	}
	if m := c.askPlain(1, who[0], who[2]); m.code() != 400 {
		t.Errorf("no Client-Name: %d", m.code())
	}
	if m := c.askPlain(1, who[0], who[0], who[1], who[2]); m.code() != 400 {
		t.Errorf("Username twice: %d", m.code())
	}
	if m := c.askPlain(1, append(who, rawBytes(0x7001, "x"), rawBytes(0x9001, "y"), rawBytes(0x1fff, "z"))...); m.code() != 420 || !bytes.Equal(m.attrs[10], []byte{0x70, 1, 0x1f, 0xff}) {
		t.Errorf("unknown attributes: %d %x", m.code(), m.attrs[10])
	}
	if m := c.askPlain(1, who[0], who[1], rawAttr{0x1003, []byte{0, 2, 0, 0}}); m.code() != 478 || !bytes.Equal(m.attrs[0x1003], rawVersion.value) {
		t.Errorf("version 2: %d", m.code())
	}
	c.write(rawEncode(1, rawID(), []byte("key"), who...))
	if m := c.must(); m.code() != 435 {
		t.Errorf("no nonce: %d", m.code())
	}
	wrong := bytes.Repeat([]byte{1}, 32)
	if m := c.prove("vapuser", "node1", password, wrong); m.code() != 438 || len(m.attrs[0x15]) != 32 {
		t.Errorf("a nonce that was not given: %d", m.code())
	}
	nonce := c.challenge("vapuser", "node1")
	s.pass(t, nonceTime/2+31*time.Second)
	if st := s.Stats(); st.NotRegistered != 1 {
		t.Errorf("%d connections closed for want of a registration", st.NotRegistered)
	}
	c.closed()
	c = rawDial(t, s.addr())
	if m := c.prove("vapuser", "node1", password, nonce); m.code() != 438 {
		t.Errorf("the nonce of another connection: %d", m.code())
	}
	nonce = c.challenge("vapuser", "node1")
	if m := c.prove("vapuser", "node1", password+"x", nonce); m.code() != 431 || m.attrs[8] != nil {
		t.Errorf("wrong password: %d", m.code())
	}
	if m := c.prove("vapuser", "node1", password, nonce); m.code() != 438 {
		t.Errorf("a nonce for the second time: %d", m.code())
	}
	c.register("vapuser", "node1", password)
	if m := c.ask(1); m.code() != 477 {
		t.Errorf("Register twice: %d", m.code())
	}
	if m := c.ask(11); m.code() != 0 || m.typ != 0x10b {
		t.Errorf("Keepalive: %d", m.code())
	}
	if m := c.askPlain(11); m.code() != 400 {
		t.Errorf("no handle: %d", m.code())
	}
	if m := c.askPlain(11, rawU32(0x1002, 99)); m.code() != 471 {
		t.Errorf("another's handle: %d", m.code())
	}
	for _, method := range []int{3, 6, 9, 10, 13, 0xeef &^ 0x110} {
		if m := c.ask(method); m.code() != 501 {
			t.Errorf("method %d: %d", method, m.code())
		}
	}
	if m := c.ask(11, rawBytes(0x7fff, "")); m.code() != 420 {
		t.Errorf("unknown attribute: %d", m.code())
	}
	if m := c.ask(11, rawAttr{0x1014, []byte{1}}); m.code() != 400 {
		t.Errorf("attribute of a wrong length: %d", m.code())
	}
}

func TestUnknownUserLooksLikeAWrongPassword(t *testing.T) {
	s := startServer(t, newMemory(), 0)
	for _, user := range []string{"vapuser", "nobody"} {
		c := rawDial(t, s.addr())
		for range 3 {
			if m := c.prove(user, "n", "wrong-password", c.challenge(user, "n")); m.code() != 431 || string(m.attrs[9][4:]) != "Integrity Check Failure" || len(m.order) != 1 {
				t.Errorf("%s: %x", user, m.bytes)
			}
		}
		c.closed() // three are enough
	}
}

func TestSourceThatGuessesIsRefusedForAMinute(t *testing.T) {
	s := startServer(t, newMemory(), 0)
	guess := func(n int) {
		c := rawDial(t, s.addr())
		for range n {
			c.prove("vapuser", "n", "wrong-password", c.challenge("vapuser", "n"))
		}
		_ = c.rw.Close()
	}
	guess(2)
	s.pass(t, sourceTime+time.Second) // these are forgotten
	for range 4 {
		guess(2)
	}
	rawRegistered(t, s.addr(), "node1")
	guess(2)
	rawDial(t, s.addr()).closed()
	if n := s.Stats().RefusedSources; n != 1 {
		t.Errorf("%d refused", n)
	}
	s.pass(t, sourceTime)
	rawRegistered(t, s.addr(), "node2")
}

func TestSourcesAreBounded(t *testing.T) {
	list, now := sources{}, time.Unix(0, 0)
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }
	for i := range maxSources + 10 {
		list.failed(addr(i), now.Add(time.Duration(i)*time.Millisecond))
	}
	if len(list) != maxSources || list[addr(9)] != nil || list[addr(10)] == nil {
		t.Errorf("%d sources", len(list))
	}
}

// Whoever meddles with an established connection ends it and achieves nothing else.
func TestMeddledMessagesEndTheConnection(t *testing.T) {
	for name, meddle := range map[string]func(*rawConn) []byte{
		"a bit": func(c *rawConn) []byte {
			b := c.sealed(2, rawID(), c.handle)
			b[len(b)-60] ^= 1
			return b
		},
		"replay": func(c *rawConn) []byte {
			b := c.sealed(11, rawID(), c.handle)
			c.write(b)
			c.must()
			return b
		},
		"one left out": func(c *rawConn) []byte { c.out++; return c.sealed(2, rawID(), c.handle) },
		"plain":        func(c *rawConn) []byte { return rawEncode(2, rawID(), nil, c.handle) },
		"no sequence":  func(c *rawConn) []byte { return rawEncode(2, rawID(), c.keys.client, c.handle) },
		"turned round": func(c *rawConn) []byte { return rawEncode(2, rawID(), c.keys.server, c.handle, rawU64(0x1013, 2)) },
		"not at the end": func(c *rawConn) []byte {
			b := append(c.sealed(2, rawID(), c.handle), 0x90, 0, 0, 0)
			binary.BigEndian.PutUint16(b[2:], uint16(len(b)-20))
			return b
		},
		"sha-1": func(c *rawConn) []byte {
			b := rawEncode(2, rawID(), nil, c.handle, rawU64(0x1013, 2), rawAttr{8, make([]byte, 20)})
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t, newMemory(), 5000)
			c := rawPublished(t, s.addr(), "node1")
			c.write(meddle(c))
			if m := c.must(); m.code() != 431 {
				t.Errorf("answer %d", m.code())
			}
			c.closed()
			if n := s.Stats().FailedIntegrity; n != 1 {
				t.Errorf("%d counted", n)
			}
			if _, there := s.handler.publication(keyA); !there {
				t.Error("Unregister was obeyed")
			}
		})
	}
}

// Broken framing is not answered.
func TestBrokenFramingClosesTheConnection(t *testing.T) {
	head := func(typ, length uint16, magic uint32) []byte {
		b := binary.BigEndian.AppendUint16(nil, typ)
		b = binary.BigEndian.AppendUint16(b, length)
		return append(binary.BigEndian.AppendUint32(b, magic), make([]byte, 12)...)
	}
	for name, b := range map[string][]byte{
		"cookie": head(1, 0, 0x2112a442), "top bits": head(0x8001, 0, cookie), "indication": head(0x0011, 0, cookie),
		"length 6": head(1, 6, cookie), "1028 bytes before registration": head(1, 1028, cookie), "an answer": head(0x0101, 0, cookie),
		"http": []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
	} {
		s := startServer(t, newMemory(), 0)
		c := rawDial(t, s.addr())
		c.write(b)
		c.closed()
		if n := s.Stats().BrokenFraming; n != 1 {
			t.Errorf("%s: %d counted", name, n)
		}
	}
	s := startServer(t, newMemory(), 5000)
	c := rawRegistered(t, s.addr(), "node1")
	c.write(c.sealed(0x10a, rawID(), rawU64(0x1014, 1)))
	c.closed()
	c = rawRegistered(t, s.addr(), "node1")
	eventually(t, "the first is gone", func() bool { return s.Stats().Connections == 1 && s.clock.armed(messageTime) == 1 })
	c.write(head(1, 65532, cookie))                                                           // allowed now
	eventually(t, "it is being read", func() bool { return s.clock.armed(messageTime) == 2 }) // beside registerTime's
	s.pass(t, messageTime-1)
	if st := s.Clients(); len(st) != 1 {
		t.Fatalf("%+v", st)
	}
	s.pass(t, 1)
	c.closed()
}

func TestSilentClientIsClosedAfterThreeMissedKeepAlives(t *testing.T) {
	s := startServer(t, newMemory(), 0)
	c := rawRegistered(t, s.addr(), "node1")
	missed := func(want int) {
		t.Helper()
		if st := s.Clients(); len(st) != 1 || st[0].MissedKeepAlives != want {
			t.Fatalf("%+v, want %d missed", st, want)
		}
	}
	s.pass(t, 45*time.Second-1)
	missed(0)
	s.pass(t, 1)
	missed(1)
	s.pass(t, 45*time.Second)
	missed(2)
	c.ask(11)
	s.pass(t, 45*time.Second)
	missed(0)
	s.pass(t, 134*time.Second)
	missed(2)
	s.pass(t, time.Second)
	c.closed()
	if st := s.Stats(); st.Silent != 1 || st.MissedKeepAlives != 5 {
		t.Errorf("%+v", st)
	}
}

// A host that opens connections without end keeps no other host out, not even one that takes its time.
func TestIdleStrangersKeepNobodyOut(t *testing.T) {
	s := startServer(t, newMemory(), 0)
	nc, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).Dial("tcp", s.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience))
	slow := &rawConn{t: t, rw: nc}
	there := func(n int) func() bool { return func() bool { return s.Stats().Connections == n } }
	eventually(t, "the slow one is there", there(1))
	s.clock.advance(time.Second) // it is the oldest by the clock
	first := rawDial(t, s.addr())
	eventually(t, "the first is there", there(2))
	s.clock.advance(time.Second)
	for range maxUnregistered - 2 {
		rawDial(t, s.addr())
	}
	eventually(t, "all are there", there(maxUnregistered))
	for i := range uint64(20) {
		rawDial(t, s.addr())
		eventually(t, "one gave way", func() bool { return s.Stats().Evicted == i+1 })
	}
	first.closed()
	slow.register("vapuser", "node1", password)
	rawRegistered(t, s.addr(), "node2")
	if st := s.Stats(); st.Registered != 2 {
		t.Errorf("%+v", st)
	}
}

// A client that reads nothing is closed, and holds nobody up.
func TestClientThatReadsNothingIsClosed(t *testing.T) {
	s := startServer(t, newMemory(), 0)
	c := rawRegistered(t, s.addr(), "node1")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for { // until the server reads no more, and then until it closes
			if _, err := c.rw.Write(c.sealed(11, rawID(), c.handle)); err != nil {
				return
			}
		}
	}()
	var seen, looks uint64
	eventually(t, "the server is stuck in a write", func() bool { // at each of 50 looks it is where it was
		if now := s.Clients()[0].Sent; now != seen || s.clock.armed(writeTime) != 1 {
			seen, looks = now, 0
		}
		looks++
		return looks > 50
	})
	rawRegistered(t, s.addr(), "node2").ask(11)
	eventually(t, "the other's answer is written", func() bool { return s.clock.armed(writeTime) == 1 })
	s.clock.advance(writeTime)
	<-done
	eventually(t, "it is gone", func() bool { return len(s.Clients()) == 1 })
}

func TestConnectionLimitAndReplacement(t *testing.T) {
	inst := instance()
	inst.MaxConnections = 2
	s := startServer(t, newMemory(), 0, inst)
	one := rawRegistered(t, s.addr(), "node1")
	rawRegistered(t, s.addr(), "node2")
	third := rawDial(t, s.addr())
	if m := third.prove("vapuser", "node3", password, third.challenge("vapuser", "node3")); m.code() != 482 || third.keys.client == nil {
		t.Errorf("a third: %d", m.code())
	}
	third.closed()
	again := rawRegistered(t, s.addr(), "node1") // its network was lost, say
	m := one.request()
	if m.typ != 3 || m.attrs[9][2] != 4 || m.attrs[9][3] != 77 || m.u32(0x1002) != 1 {
		t.Errorf("not told of its end: %x", m.bytes)
	}
	one.confirm(m, 0)
	one.closed()
	if m := again.ask(11); m.code() != 0 {
		t.Errorf("the new one: %d", m.code())
	}
	eventually(t, "two are left", func() bool { return s.Stats().Registered == 2 })
	if st := s.Stats(); st.Replaced != 1 || st.TooManyConnections != 1 {
		t.Errorf("%+v", st)
	}
	// One that does not answer is closed after 5 s.
	third = rawRegistered(t, s.addr(), "node1")
	again.request()
	s.pass(t, revokeTime)
	again.closed()
	third.ask(11)
}

// What a client sent before it came back by another connection is read late, and must not undo what it has published since.
func TestReplacedRegistrationChangesNothing(t *testing.T) {
	s := startServer(t, newMemory(), 5000)
	one := rawPublished(t, s.addr(), "node1")
	again := rawRegistered(t, s.addr(), "node1")
	one.request() // RegisterRevoke, which it does not answer yet
	if m := again.publish(101, 0, rawService, 2, rawVservice); m.code() != 0 {
		t.Fatalf("service refused: %s", m.attrs[9])
	}
	if m := again.publish(100, 0, rawService, 2, "<numbers><pattern>+140890216XX</pattern></numbers>"); m.code() != 0 {
		t.Fatalf("numbers refused: %s", m.attrs[9])
	}
	for what, m := range map[string]rawMessage{
		"Publish of the numbers": one.publish(100, 0, rawService, 3, "<numbers><pattern>+140890217XX</pattern></numbers>"),
		"Publish of the service": one.publish(101, 0, rawService, 3, rawVservice),
		"Unpublish":              one.ask(5, rawIdentity(101, 0, rawService)),
	} {
		if m.code() != 474 {
			t.Errorf("%s: %d", what, m.code())
		}
	}
	if p, there := s.handler.publication(keyA); !there || p.Numbers.Count() != 100 || !p.Numbers.Contains("+14089021600") {
		t.Errorf("%v, %+v", there, p)
	}
}

func TestApplyKeepsWhatStaysAndEndsWhatGoes(t *testing.T) {
	s := startServer(t, newMemory(), 0)
	c := rawRegistered(t, s.addr(), "node1")
	addr := s.addr()
	// A port that cannot be had changes nothing.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	second := Instance{Name: "second", Addr: taken.Addr().String(), Credentials: users()}
	if err := s.Apply([]Instance{second}); err == nil || !strings.Contains(err.Error(), "vap server second: ") {
		t.Errorf("a taken port: %v", err)
	}
	for _, bad := range [][]Instance{
		{instance(), instance()},
		{{Name: "", Addr: "127.0.0.1:0", Credentials: users()}},
		{{Name: "a", Addr: "127.0.0.1:0"}},
		{{Name: "a", Addr: "127.0.0.1:0", Credentials: users(), Keepalive: time.Second}},
		{{Name: "a", Addr: "127.0.0.1:0", Credentials: users(), MaxConnections: -1}},
	} {
		if err := s.Apply(bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	if m := c.ask(11); m.code() != 0 || s.addr() != addr {
		t.Errorf("the old instance is gone: %d", m.code())
	}
	// Another setting keeps the connection.
	inst := instance()
	inst.Keepalive = 10 * time.Second
	second.Addr = "127.0.0.1:0"
	if err := s.Apply([]Instance{inst, second}); err != nil {
		t.Fatal(err)
	}
	if m := c.ask(11); m.code() != 0 || s.addr() != addr {
		t.Errorf("after another keepalive: %d", m.code())
	}
	other := rawDial(t, s.Addr("second").String())
	other.register("vapuser", "node9", password)
	// Another password ends it.
	key, err := DeriveUserKey("vapuser", "a-new-password")
	if err != nil {
		t.Fatal(err)
	}
	inst.Credentials = Users{"vapuser": key}
	if err := s.Apply([]Instance{inst}); err != nil {
		t.Fatal(err)
	}
	for code, c := range map[byte]*rawConn{1: c, 0: other} {
		m := c.request()
		if m.typ != 3 || m.attrs[9][3] != code {
			t.Errorf("%x, want %d", m.bytes, code)
		}
		c.confirm(m, 0)
		c.closed()
	}
	if s.Addr("second") != nil {
		t.Error("second still listens")
	}
	c = rawDial(t, s.addr())
	c.register("vapuser", "node1", "a-new-password")
}

// safeBuffer takes logs of several goroutines.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// What server and client log of good and bad days holds no password, key or ticket.
func TestNoSecretIsLogged(t *testing.T) {
	var logs safeBuffer
	log := slog.New(slog.NewTextHandler(&logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	h := newMemory()
	h.add(keyA, Notification{ID: 1, Routes: []learn.Route{theRoute}})
	s := NewServer(ServerConfig{Handler: h, Quota: 10, Log: log})
	defer s.Close()
	if err := s.Apply([]Instance{instance()}); err != nil {
		t.Fatal(err)
	}
	box := inbox{err: errors.New("disk full")}
	for _, secret := range []string{"wrong-password", password} {
		c, err := NewClient(ClientConfig{Addr: s.Addr("vapserver1").String(), Username: "vapuser", Password: secret, Name: "n", Log: log, OnNotify: box.take})
		if err != nil {
			t.Fatal(err)
		}
		log.Info("made", "client", c.Registration(), "instance", instance(), "users", users(), "key", users()["vapuser"])
		ctx, cancel := context.WithCancel(within(t))
		done := make(chan struct{})
		go func() { defer close(done); log.Info("ran", "error", c.Run(ctx)) }()
		if err := c.SetServices([]Offer{offerA("+1408902XXX")}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "done", func() bool {
			return secret != password && s.Stats().FailedAuthentication > 0 || s.Stats().FailedNotifications > 0 && s.Stats().OverQuota > 0
		})
		cancel()
		<-done
	}
	key := users()["vapuser"]
	text := logs.String()
	for _, secret := range []string{password, "wrong-password", theRoute.Ticket, string(key.b[:]), fmt.Sprintf("%x", key.b[:4]), fmt.Sprintf("%X", key.b[:4]), fmt.Sprint(key.b[:3])[1:9]} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is in the log:\n%s", secret, text)
		}
	}
	if !strings.Contains(text, "authentication failed") || !strings.Contains(text, "VAP over quota") {
		t.Errorf("the log tells too little:\n%s", text)
	}
}

func TestEncryptedInstanceAnswersNothingOutsideOfTLS(t *testing.T) {
	inst := instance()
	inst.TLS = &tls.Config{Certificates: []tls.Certificate{certificate(t)}}
	s := startServer(t, newMemory(), 0, inst)
	c := rawDial(t, s.addr())
	c.write(rawEncode(1, rawID(), nil, c.who("vapuser", "node1")...))
	buf := make([]byte, 64)
	n, _ := c.rw.Read(buf)
	if n > 0 && buf[0] != 21 { // a TLS alert is no answer
		t.Errorf("got %x", buf[:n])
	}
	eventually(t, "counted", func() bool { return s.Stats().FailedHandshakes == 1 })
}
