package sshd

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/gliderlabs/ssh"
	gossh "golang.org/x/crypto/ssh"

	"imeproxy/proxy/config"
	"imeproxy/proxy/shell"
	"imeproxy/ucime/source"
)

// login is a connection that must come to a session within LoginTime.
type login struct {
	net.Conn
	server *Server
	timer  *time.Timer
	once   sync.Once
	wrong  bool          // a password was; of the connection's own goroutine
	gone   chan struct{} // closed with the connection
	close  sync.Once

	user *config.User  // as he was when he logged in; nil: nobody has. Guarded by server.users
	key  ssh.PublicKey // that he logged in with; nil: with his password. Guarded by server.users
}

type loginKey struct{}

// users are the connections on which somebody has logged in.
type users struct {
	mu      sync.Mutex
	all     map[*login]struct{} // guarded by mu
	waiting []*login            // on which nobody has yet, the oldest first; guarded by mu
}

func (s *Server) login(c net.Conn) *login {
	s.logins.Add(1)
	l := &login{Conn: c, server: s, gone: make(chan struct{})}
	l.timer = time.AfterFunc(LoginTime, func() { _ = l.Close() })
	s.users.mu.Lock()
	defer s.users.mu.Unlock()
	s.users.waiting = append(s.users.waiting, l)
	return l
}

// Close ends the connection, and the wait after a wrong password with it.
func (l *login) Close() error {
	l.close.Do(func() { close(l.gone) })
	return l.Conn.Close()
}

// room says whether one more connection may wait for a login. When MaxHandshakes wait, the oldest of the source that has most of them gives way to a source that has
// fewer, even with its next one: whoever only holds connections open must not keep the operator out. A source that has most waits until one of its own is over,
// or it could leave each wrong password's wait behind. Of IPv6 a /64 is one source: a single host may have all its addresses.
func (s *Server) room(c net.Conn) bool {
	s.users.mu.Lock()
	defer s.users.mu.Unlock()
	if len(s.users.waiting) < MaxHandshakes {
		return true
	}
	have := map[netip.Addr]int{}
	for _, l := range s.users.waiting {
		have[source.OfConn(l)]++
	}
	i := 0
	for k, l := range s.users.waiting {
		if have[source.OfConn(l)] > have[source.OfConn(s.users.waiting[i])] {
			i = k
		}
	}
	victim := s.users.waiting[i]
	if have[source.OfConn(c)]+1 >= have[source.OfConn(victim)] {
		return false
	}
	_ = victim.Close()
	s.users.waiting = slices.Delete(s.users.waiting, i, i+1)
	return true
}

// over ends the time for the login, whether it succeeded or not.
func (l *login) over() {
	l.once.Do(func() {
		l.timer.Stop()
		l.server.logins.Add(-1)
		l.server.users.mu.Lock()
		defer l.server.users.mu.Unlock()
		if i := slices.Index(l.server.users.waiting, l); i >= 0 {
			l.server.users.waiting = slices.Delete(l.server.users.waiting, i, i+1)
		}
	})
}

// ended forgets the connection.
func (l *login) ended() {
	l.over()
	l.server.users.mu.Lock()
	defer l.server.users.mu.Unlock()
	delete(l.server.users.all, l)
}

func (l *login) password(ctx ssh.Context, given string) bool {
	u := l.server.cfg.Load().LogIn(ctx.User(), given)
	if u == nil {
		l.wrong = true
		l.fails()
		l.wait()
		return false
	}
	return l.in(u, nil)
}

// wait delays the answer to a wrong password, by which all guessing at once is as slow as MaxHandshakes a wrongPause.
func (l *login) wait() {
	t := time.NewTimer(wrongPause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.gone:
	case <-l.server.ctx.Done():
	}
}

// publicKey judges a key, which a client may only ask about; the one that it proves to have is asked about last.
func (l *login) publicKey(ctx ssh.Context, key ssh.PublicKey) bool {
	u := l.server.cfg.Load().User(ctx.User())
	return u != nil && has(u, key) && l.in(u, key)
}

func has(u *config.User, key ssh.PublicKey) bool {
	return slices.ContainsFunc(u.PublicKeys, func(text string) bool {
		known, _, _, _, err := gossh.ParseAuthorizedKey([]byte(text))
		return err == nil && ssh.KeysEqual(known, key)
	})
}

// in notes who has logged in and by what, unless a configuration that came meanwhile does not let him.
func (l *login) in(u *config.User, key ssh.PublicKey) bool {
	s := l.server
	s.users.mu.Lock()
	defer s.users.mu.Unlock()
	if l.user, l.key = u, key; !l.stands(s.cfg.Load()) {
		l.user, l.key = nil, nil
		return false
	}
	if s.users.all == nil {
		s.users.all = map[*login]struct{}{}
	}
	s.users.all[l] = struct{}{}
	return true
}

// unused counts a connection that has ended without a login. One with wrong passwords has been counted for each of them.
func (l *login) unused() {
	if !l.wrong && l.server.ctx.Err() == nil {
		l.fails()
	}
}

func (l *login) fails() {
	if at, err := netip.ParseAddrPort(l.RemoteAddr().String()); err == nil && l.server.failed != nil {
		l.server.failed(at.Addr().Unmap())
	}
}

// stands says whether the user could log in with the same rights and by the same password or key. The caller holds users.mu.
func (l *login) stands(c *config.Config) bool {
	u := c.User(l.user.Name)
	if u == nil || u.Privilege != l.user.Privilege {
		return false
	}
	if l.key != nil {
		return has(u, l.key)
	}
	return u.Password == l.user.Password
}

// endWithoutRights ends the connections of users that a configuration does not let in as they are.
func (s *Server) endWithoutRights(who string, c *config.Config) {
	s.users.mu.Lock()
	defer s.users.mu.Unlock()
	for l := range s.users.all {
		if l.stands(c) {
			continue
		}
		if u := c.User(l.user.Name); u != nil && u.Privilege == l.user.Privilege && caller(u, l.RemoteAddr()).String() == who {
			l.user, l.key = u, nil // from now on his password is what must stand, also of one who came with a key
			continue
		}
		s.log.Warn("ssh session ended: the user was removed or changed", "user", l.user.Name, "from", l.RemoteAddr().String(), "by", who)
		_ = l.Close()
	}
}

// caller is a user at the other end of a connection.
func caller(u *config.User, from net.Addr) shell.Caller {
	return shell.Caller{Name: u.Name, From: from.String(), ViewOnly: u.Privilege < config.PrivilegeAll}
}
