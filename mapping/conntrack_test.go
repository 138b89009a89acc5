package mapping

import (
	"bufio"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
)

// hold dials and keeps the connection; the server's greeting shows that it stands.
func (l *lab) hold(c net.Conn, err error) net.Conn {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
	if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		l.t.Fatal(err)
	}
	return c
}

// echo listens in the namespace, greets, and repeats what it gets.
func (l *lab) echo(listen func() (net.Listener, error)) {
	l.t.Helper()
	ln, err := listen()
	if err != nil {
		l.t.Fatal(err)
	}
	done, accepted := make(chan struct{}), make(chan net.Conn, 1)
	go func() {
		defer close(done)
		defer close(accepted)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		accepted <- c
		_, _ = c.Write([]byte("hello\n"))
		buf := make([]byte, 100)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			_, _ = c.Write(buf[:n])
		}
	}()
	l.t.Cleanup(func() {
		_ = ln.Close()
		// The other end may be cut off without a word: nothing would end the read.
		if c, ok := <-accepted; ok {
			_ = c.Close()
		}
		<-done
	})
}

// alive tells whether the connection still carries bytes both ways.
func alive(c net.Conn) bool {
	if _, err := c.Write([]byte("ping")); err != nil {
		return false
	}
	_ = c.SetReadDeadline(time.Now().Add(1500 * time.Millisecond))
	_, err := c.Read(make([]byte, 10))
	return err == nil
}

// When a class appears, its standing connections must not go on beside the proxy; others live through the change.
func TestStandingConnectionsOfAClassEnd(t *testing.T) {
	l := newLab(t)
	with := labSpec()
	with.Intercepts[0].Src = netip.Prefix{}
	with.Groups[0].Rules = append(with.Groups[0].Rules, Rule{Permit: true, Proto: "tcp", Dst: hostPrefix(addr(dmzHost))})
	without := clone(with)
	without.Intercepts = nil
	k := l.apply(without)
	conns := map[string]net.Conn{}
	for _, port := range []string{"5061", "80"} {
		l.echo(func() (ln net.Listener, err error) {
			l.in(l.outside, func() error { ln, err = net.Listen("tcp4", remoteAddr+":"+port); return nil })
			return ln, err
		})
		conns[port] = l.hold(open(l.ca, "", remoteAddr+":"+port))
	}
	l.echo(func() (ln net.Listener, err error) {
		l.in(l.ca, func() error { ln, err = net.Listen("tcp4", caReal+":5070"); return nil })
		return ln, err
	})
	inbound := l.hold(open(l.outside, "", caMapped+":5070"))

	l.echo(func() (ln net.Listener, err error) {
		l.in(l.dmz, func() error { ln, err = net.Listen("tcp4", dmzHost+":5500"); return nil })
		return ln, err
	})
	past := l.hold(open(l.outside, "", dmzHost+":5500"))

	l.update(k, with)
	if !alive(past) {
		t.Error("a connection with a port of the class was cut that comes in elsewhere")
	}
	if alive(conns["5061"]) {
		t.Error("outbound SIP goes on beside the proxy")
	}
	if alive(inbound) {
		t.Error("inbound SIP goes on beside the proxy")
	}
	if !alive(conns["80"]) {
		t.Error("another connection was cut")
	}
	if flows := l.run(l.box, "conntrack", "-L", "-p", "tcp"); strings.Contains(flows, "dport=5061") && !strings.Contains(flows, "mark=30") {
		t.Errorf("conntrack entry of the class:\n%s", flows)
	}
	// An update that leaves the class alone cuts nothing.
	l.update(k, with)
	if !alive(conns["80"]) || !alive(past) {
		t.Error("an update without change cuts a connection")
	}
}

// The proxy's own connections live through an update.
func TestProxiedConnectionsSurviveAnUpdate(t *testing.T) {
	l := newLab(t)
	k := l.apply(labSpec())
	l.echo(func() (ln net.Listener, err error) {
		l.in(l.box, func() error {
			ln, err = (&net.ListenConfig{Control: transparent}).Listen(t.Context(), "tcp4", "127.0.0.1:15060")
			return nil
		})
		return ln, err
	})
	c := l.hold(open(l.ca, "", remoteAddr+":5061"))
	spec := labSpec()
	spec.Statics = spec.Statics[:1]
	l.update(k, spec)
	if !alive(c) {
		t.Error("the intercepted connection ended")
	}
}

// A flow that began before its translation must not keep the inside address while it lasts.
func TestNewTranslationTakesStandingFlows(t *testing.T) {
	l := newLab(t)
	k := l.apply(plainSpec())
	ca, remote := l.packetConn(l.ca, caReal+":9000"), l.packetConn(l.outside, remoteAddr+":9000")
	from := func() string {
		src, ok := sends(t, ca, remote, remoteAddr+":9000")
		if !ok {
			return "nothing"
		}
		return src.Addr().String()
	}
	if got := from(); got != caReal {
		t.Fatalf("without translation from %s", got)
	}
	l.update(k, labSpec())
	if got := from(); got != caMapped {
		t.Errorf("with the translation from %s, want %s", got, caMapped)
	}
	moved := labSpec()
	moved.Statics[0].Mapped = addr("209.165.200.240")
	l.update(k, moved)
	if got := from(); got != "209.165.200.240" {
		t.Errorf("with the changed translation from %s", got)
	}
	l.update(k, labSpec())
	l.in(l.box, k.Remove)
	if flows := l.run(l.box, "conntrack", "-L"); strings.Contains(flows, "mark=30") {
		t.Errorf("entries of the proxy after Remove:\n%s", flows)
	}
}

// What a changed list refuses ends, on the spot; what it permits, or does not speak of, goes on, whoever began it.
func TestChangedListsEndWhatTheyRefuse(t *testing.T) {
	l := newLab(t)
	list := func(rules ...Rule) Spec {
		s := labSpec()
		s.Groups = []AccessGroup{{Link: linkOut, Direction: "in", Rules: rules}}
		return s
	}
	ssh := Rule{Permit: true, Proto: "tcp", Dst: hostPrefix(addr(caReal)), DstLo: 8001, DstHi: 8001}
	web := Rule{Permit: true, Proto: "tcp", Dst: hostPrefix(addr(caReal)), DstLo: 8002, DstHi: 8002}
	k := l.apply(list(ssh, web))
	server := func(ns netns.NsHandle, at string) {
		l.echo(func() (ln net.Listener, err error) {
			l.in(ns, func() error { ln, err = net.Listen("tcp4", at); return nil })
			return ln, err
		})
	}
	server(l.ca, caReal+":8001")
	server(l.ca, caReal+":8002")
	server(l.outside, remoteAddr+":80")
	refused, kept := l.hold(open(l.outside, "", caMapped+":8001")), l.hold(open(l.outside, "", caMapped+":8002"))
	outbound := l.hold(open(l.phone, "", remoteAddr+":80"))
	l.update(k, list(web, ssh))
	for name, c := range map[string]net.Conn{"first": refused, "second": kept, "outbound": outbound} {
		if !alive(c) {
			t.Errorf("another order of the list cuts the %s connection", name)
		}
	}
	l.update(k, list(web))
	if alive(refused) {
		t.Error("a connection goes on that the list refuses now")
	}
	if !alive(kept) || !alive(outbound) {
		t.Error("a connection was cut that is permitted still")
	}
	without := list(web)
	without.Dynamics = nil
	l.update(k, without)
	if alive(outbound) {
		t.Error("a connection keeps the address of a translation that is gone")
	}
	if !alive(kept) {
		t.Error("a connection of another translation was cut")
	}
}
