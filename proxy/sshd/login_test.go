package sshd

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"imeproxy/proxy/config"
)

// Each wrong password counts, and a connection without a login; a login does not, whatever keys were offered before.
func TestFailedLoginsAreTold(t *testing.T) {
	c := allow(t, "127.0.0.0/8", freePort(t))
	told := make(chan netip.Addr, 100)
	startTelling(t, c, func(from netip.Addr) { told <- from })
	wrongKey := signer(t)
	attempt := func(auth ...gossh.AuthMethod) {
		client, err := gossh.Dial("tcp", at(c), &gossh.ClientConfig{User: "admin", Auth: auth, HostKeyCallback: gossh.InsecureIgnoreHostKey(), Timeout: 10 * time.Second})
		if err == nil {
			client.Close()
		}
	}
	for _, x := range []struct {
		what string
		do   func()
		want int
	}{
		{"the right password", func() { attempt(gossh.Password(secret)) }, 0},
		{"a key that is not known, then the password", func() { attempt(gossh.PublicKeys(wrongKey), gossh.Password(secret)) }, 0},
		{"one wrong password", func() { attempt(gossh.Password("wrong-password")) }, 1},
		{"three wrong passwords on one connection", func() {
			attempt(gossh.RetryableAuthMethod(gossh.PasswordCallback(func() (string, error) { return "wrong-password", nil }), MaxTries))
		}, MaxTries},
		{"a key that is not known", func() { attempt(gossh.PublicKeys(wrongKey)) }, 1},
		{"no SSH at all", func() {
			if conn, err := net.Dial("tcp", at(c)); err == nil {
				_, _ = conn.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
				conn.Close()
			}
		}, 1},
	} {
		x.do()
		for range x.want {
			select {
			case from := <-told:
				if from != netip.MustParseAddr("127.0.0.1") {
					t.Errorf("%s: told of %s", x.what, from)
				}
			case <-time.After(10 * time.Second):
				t.Errorf("%s: not told %d times", x.what, x.want)
			}
		}
	}
	if n := len(told); n > 0 {
		t.Errorf("told %d times more", n)
	}
}

func signer(t *testing.T) gossh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := gossh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A configuration ends the connections of those whom it does not let in as they are, and no others.
func TestRightsEndSessions(t *testing.T) {
	key, other := signer(t), signer(t)
	line := func(s gossh.Signer, comment string) string {
		return strings.TrimSpace(string(gossh.MarshalAuthorizedKey(s.PublicKey()))) + comment
	}
	for name, x := range map[string]struct {
		change func(c *config.Config, admin *config.User)
		own    bool // the session with the password makes the change itself
		// Which sessions stand afterwards: that of admin's password, that of his key, that of another user.
		password, key, viewer bool
	}{
		"something else":             {func(c *config.Config, _ *config.User) { c.Hostname = "other" }, false, true, true, true},
		"the user is removed":        {func(c *config.Config, _ *config.User) { c.Users = c.Users[1:] }, false, false, false, true},
		"he has less privilege":      {func(_ *config.Config, u *config.User) { u.Privilege = 5 }, false, false, false, true},
		"he has another password":    {func(_ *config.Config, u *config.User) { u.Password = "another" }, false, false, true, true},
		"he has no password":         {func(_ *config.Config, u *config.User) { u.Password = "" }, false, false, true, true},
		"his key is gone":            {func(_ *config.Config, u *config.User) { u.PublicKeys = []string{line(other, "")} }, false, true, false, true},
		"one more key":               {func(_ *config.Config, u *config.User) { u.PublicKeys = append(u.PublicKeys, line(other, "")) }, false, true, true, true},
		"another comment of his key": {func(_ *config.Config, u *config.User) { u.PublicKeys = []string{line(key, " desk")} }, false, true, true, true},
		"he changes his password":    {func(_ *config.Config, u *config.User) { u.Password = "another" }, true, true, true, true},
		"he removes himself":         {func(c *config.Config, _ *config.User) { c.Users = c.Users[1:] }, true, false, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			c := allow(t, "127.0.0.0/8", freePort(t), line(key, ""))
			s, log := start(t, c)
			in := func(user string, auth gossh.AuthMethod) *gossh.Client {
				client, err := gossh.Dial("tcp", at(c), &gossh.ClientConfig{User: user, Auth: []gossh.AuthMethod{auth}, HostKeyCallback: gossh.InsecureIgnoreHostKey(), Timeout: 10 * time.Second})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { client.Close() })
				return client
			}
			byPassword, byKey, viewer := in("admin", gossh.Password(secret)), in("admin", gossh.PublicKeys(key)), in("viewer", gossh.Password(secret))
			next, admin := *c, *c.Users[0]
			next.Users = append([]*config.User{&admin}, c.Users[1:]...)
			x.change(&next, &admin)
			who := "uid 0 pid 1"
			if x.own {
				who = "admin from " + byPassword.LocalAddr().String()
			}
			if err := s.Apply(who, &next, func() error { return nil }); err != nil {
				t.Fatal(err)
			}
			ended := 0
			for _, e := range []struct {
				what   string
				client *gossh.Client
				stands bool
			}{{"by password", byPassword, x.password}, {"by key", byKey, x.key}, {"of the other user", viewer, x.viewer}} {
				_, _, err := e.client.SendRequest("are you there", true, nil) // answered as unknown, where somebody is
				if (err == nil) != e.stands {
					t.Errorf("the session %s: %v", e.what, err)
				}
				if !e.stands {
					ended++
				}
			}
			if got := strings.Count(log.String(), "ssh session ended: the user was removed or changed"); got != ended {
				t.Errorf("%d ended, the log says\n%s", ended, log)
			}
		})
	}
}

// Who changed his own password in a session has the new one as his right: when that is changed in turn by another, the session ends.
func TestOwnChangeIsJudgedByTheNextOne(t *testing.T) {
	c := allow(t, "127.0.0.0/8", freePort(t))
	s, _ := start(t, c)
	client, err := dial(c, "admin", secret)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for i, who := range []string{"admin from " + client.LocalAddr().String(), "admin from 127.0.0.1:1", "admin from 127.0.0.1:1"} {
		next, admin := *c, *c.Users[0]
		admin.Password = config.Secret([]string{"mine", "mine", "not mine"}[i])
		next.Users = []*config.User{&admin}
		if err := s.Apply(who, &next, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
		if _, _, err := client.SendRequest("are you there", true, nil); (err == nil) != (i < 2) {
			t.Errorf("change %d: %v", i, err)
		}
	}
}

// Who guesses waits for each answer, and the wait ends with the server.
func TestWrongPasswordsWait(t *testing.T) {
	defer func(d time.Duration) { wrongPause = d }(wrongPause)
	wrongPause = time.Hour
	c := allow(t, "127.0.0.0/8", freePort(t))
	told := make(chan netip.Addr, 1)
	s, _ := startTelling(t, c, func(from netip.Addr) { told <- from })
	answer := make(chan error, 1)
	go func() {
		_, err := gossh.Dial("tcp", at(c), &gossh.ClientConfig{User: "admin", Auth: []gossh.AuthMethod{gossh.Password("wrong-password")}, HostKeyCallback: gossh.InsecureIgnoreHostKey()})
		answer <- err
	}()
	<-told
	if client, err := dial(c, "admin", secret); err != nil {
		t.Errorf("the right password waits too: %v", err)
	} else {
		client.Close()
	}
	select {
	case err := <-answer:
		t.Errorf("an answer at once: %v", err)
	default:
	}
	s.Close()
	if err := <-answer; err == nil {
		t.Error("a wrong password logs in")
	}
}

// An address that takes all places of those that have not logged in keeps no other address out, and cannot take its own places over.
func TestSilentAddressGivesWay(t *testing.T) {
	c := allow(t, "127.0.0.0/8", freePort(t))
	start(t, c)
	var held []net.Conn
	for range MaxHandshakes {
		conn, err := net.Dial("tcp", at(c))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		held = append(held, conn)
		if _, err := conn.Read(make([]byte, 1)); err != nil { // the version: it is being served
			t.Fatal(err)
		}
	}
	if !closed(t, c) {
		t.Error("the address that has all places was given another")
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	conn, err := d.Dial("tcp", at(c))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cc := &gossh.ClientConfig{User: "admin", Auth: []gossh.AuthMethod{gossh.Password(secret)}, HostKeyCallback: gossh.InsecureIgnoreHostKey()}
	operator, _, _, err := gossh.NewClientConn(conn, at(c), cc)
	if err != nil {
		t.Fatalf("another address is kept out: %v", err)
	}
	operator.Close()
	if err := held[0].SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, held[0]); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the oldest connection stands")
	}
}

// silentConn is a connection from an address that says nothing.
type silentConn struct {
	net.Conn
	from   string
	closed bool
}

func (c *silentConn) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(c.from), 4022))
}

func (c *silentConn) Close() error { c.closed = true; return nil }

// A host has a whole /64 of IPv6 to itself: all its addresses together are one that gives way.
func TestSilentNetworkGivesWay(t *testing.T) {
	for _, c := range []struct {
		name, silent, next string
		room               bool
	}{
		{"another network", "2001:db8:0:1::%x", "2001:db8:0:2::1", true},
		{"IPv4", "2001:db8:0:1:%x::", "192.0.2.7", true},
		{"the same network", "2001:db8:0:1::%x", "2001:db8:0:1:ffff::", false},
		{"networks that have one each", "2001:db8:0:%x::1", "2001:db8:1::1", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &Server{}
			var first *silentConn
			for i := range MaxHandshakes {
				conn := &silentConn{from: fmt.Sprintf(c.silent, i+1)}
				if !s.room(conn) {
					t.Fatalf("connection %d finds no room", i+1)
				}
				if first == nil {
					first = conn
				}
				l := s.login(conn)
				defer l.timer.Stop()
			}
			if room := s.room(&silentConn{from: c.next}); room != c.room || first.closed != c.room {
				t.Errorf("%s finds room: %v, the oldest connection was closed: %v, want %v", c.next, room, first.closed, c.room)
			}
		})
	}
}
