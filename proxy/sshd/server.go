package sshd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gliderlabs/ssh"
	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"imeproxy/proxy/config"
	"imeproxy/proxy/shell"
)

// Limits of the server.
const (
	MaxConnections = 32
	MaxHandshakes  = 8
	LoginTime      = 30 * time.Second
	MaxTries       = 3
	MaxSession     = 12 * time.Hour
)

// wrongPause is how long the answer to a wrong password takes. Tests shorten it.
var wrongPause = 2 * time.Second

// Server is the SSH access of one daemon. Its methods may be called from any goroutine.
type Server struct {
	exec    shell.Executor
	keyFile string
	dir     string // of disk0:
	log     *slog.Logger
	failed  func(netip.Addr)
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	users   users

	mu     sync.Mutex
	cfg    atomic.Pointer[config.Config]
	open   []*port
	signer ssh.Signer

	conns, logins, sessions atomic.Int32
}

// port is a listener on one address.
type port struct {
	net.Listener
	at netip.AddrPort
}

// New makes a server that listens nowhere yet. Close it. failed is told of each wrong password and of each connection that ends without a login, with
// where it came from; it may be called from several goroutines at once.
func New(exec shell.Executor, stateDir string, log *slog.Logger, failed func(from netip.Addr)) (*Server, error) {
	s := &Server{exec: exec, keyFile: filepath.Join(stateDir, "ssh_host_ed25519_key"), dir: stateDir, log: log, failed: failed}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// addresses are those that a configuration wants SSH on.
func addresses(c *config.Config) []netip.AddrPort {
	var out []netip.AddrPort
	for _, x := range c.SSH.Allowed {
		if i := c.InterfaceByNameif(x.Interface); i != nil && i.Address.IsValid() && !i.Shutdown {
			if at := netip.AddrPortFrom(i.Address.Addr(), c.SSH.ListenPort()); !slices.Contains(out, at) {
				out = append(out, at)
			}
		}
	}
	return out
}

// Apply puts a configuration into force together with what rest does: the sockets are opened first, so that nothing has changed when one cannot be.
// Sessions that stand go on, but for those whose user is gone, has another privilege, or could not log in any more as he did; that of who, who makes the
// change, outlives a new password and a new key of his own.
func (s *Server) Apply(who string, c *config.Config, rest func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil { // closed: a session that ends may still take its changes back
		return rest()
	}
	var fresh, keep []*port
	undo := func(err error) error {
		for _, p := range fresh {
			_ = p.Close()
		}
		return err
	}
	for _, at := range addresses(c) {
		if i := slices.IndexFunc(s.open, func(p *port) bool { return p.at == at }); i >= 0 {
			keep = append(keep, s.open[i])
			continue
		}
		if s.signer == nil {
			var err error
			if s.signer, err = hostKey(s.keyFile); err != nil {
				return undo(err)
			}
		}
		l, err := listen(s.ctx, at)
		if err != nil {
			return undo(fmt.Errorf("ssh on %s: %w: another program may use the port, choose another by ssh port", at, err))
		}
		fresh = append(fresh, &port{Listener: l, at: at})
	}
	if err := rest(); err != nil {
		return undo(err)
	}
	s.cfg.Store(c)
	s.endWithoutRights(who, c)
	for _, p := range s.open {
		if !slices.Contains(keep, p) {
			_ = p.Close()
		}
	}
	for _, p := range fresh {
		s.serve(p)
	}
	s.open = append(keep, fresh...)
	return nil
}

// listen opens a socket for an address that the interface may get only afterwards.
func listen(ctx context.Context, at netip.AddrPort) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var inner error
		err := c.Control(func(fd uintptr) { inner = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1) })
		return errors.Join(err, inner)
	}}
	return lc.Listen(ctx, "tcp4", at.String())
}

// Close ends listening and every session, and waits for them.
func (s *Server) Close() {
	s.mu.Lock()
	s.cancel()
	for _, p := range s.open {
		_ = p.Close()
	}
	s.open = nil
	s.mu.Unlock()
	s.wg.Wait()
}

// protocol makes the protocol's side of one connection, with the settings that hold when it begins.
func (s *Server) protocol(l *login) *ssh.Server {
	return &ssh.Server{
		Version: "imeproxy", HostSigners: []ssh.Signer{s.signer}, MaxTimeout: MaxSession, IdleTimeout: s.cfg.Load().SSH.IdleTime() + connSlack,
		Handler:          s.session,
		PasswordHandler:  l.password,
		PublicKeyHandler: l.publicKey,
		ConnCallback: func(ctx ssh.Context, c net.Conn) net.Conn {
			ctx.SetValue(loginKey{}, c)
			return c
		},
		// Nothing but sessions: no forwarding either way. Of the subsystems there is disk0:.
		ChannelHandlers:   map[string]ssh.ChannelHandler{"session": ssh.DefaultSessionHandler},
		RequestHandlers:   map[string]ssh.RequestHandler{},
		SubsystemHandlers: map[string]ssh.SubsystemHandler{"sftp": s.sftp},
		ServerConfigCallback: func(ssh.Context) *gossh.ServerConfig {
			return &gossh.ServerConfig{MaxAuthTries: MaxTries}
		},
		ConnectionFailedCallback: func(c net.Conn, err error) {
			s.log.Warn("ssh login failed", "event", "ssh_login_failed", "from", c.RemoteAddr().String(), "err", err)
			l.unused()
		},
	}
}

// serve begins to accept on a port.
func (s *Server) serve(p *port) {
	s.log.Info("ssh", "listening", p.at.String())
	s.wg.Go(func() {
		for {
			c, err := p.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				s.log.Warn("ssh: accept failed", "event", "ssh_accept_failed", "err", err)
				select {
				case <-s.ctx.Done():
					return
				case <-time.After(100 * time.Millisecond):
				}
				continue
			}
			if !s.admitted(p.at, c.RemoteAddr()) || s.conns.Load() >= MaxConnections || !s.room(c) {
				_ = c.Close()
				continue
			}
			s.conns.Add(1)
			l := s.login(c)
			s.wg.Go(func() {
				defer s.conns.Add(-1)
				defer l.ended()
				defer context.AfterFunc(s.ctx, func() { _ = c.Close() })()
				s.protocol(l).HandleConn(l)
			})
		}
	})
}

// admitted says whether an address may connect to a port.
func (s *Server) admitted(at netip.AddrPort, from net.Addr) bool {
	a, err := netip.ParseAddrPort(from.String())
	c := s.cfg.Load()
	if err != nil || c == nil {
		return false
	}
	return slices.ContainsFunc(c.SSH.Allowed, func(x config.SSHAccess) bool {
		i := c.InterfaceByNameif(x.Interface)
		return i != nil && i.Address.Addr() == at.Addr() && x.From.Contains(a.Addr().Unmap())
	})
}

// session is what a user gets who has logged in.
func (s *Server) session(c ssh.Session) {
	if sink, name, ok := scpCommand(c.Command()); ok {
		s.scp(c, sink, name)
		return
	}
	if l, ok := c.Context().Value(loginKey{}).(*login); ok {
		l.over()
	}
	if n := s.sessions.Add(1); n > MaxConnections { // one connection may open many
		s.sessions.Add(-1)
		_ = c.Exit(1)
		return
	}
	defer s.sessions.Add(-1)
	u := s.cfg.Load().User(c.User())
	if u == nil {
		_ = c.Exit(1)
		return
	}
	log := s.log.With("user", c.User(), "from", c.RemoteAddr().String())
	log.Info("ssh session begins")
	defer log.Info("ssh session ends")
	w, done := s.watch(c, log)
	defer done()
	c = w
	l := shell.NewLocal(s.exec, caller(u, c.RemoteAddr()), log)
	defer l.Close()
	if line := c.RawCommand(); line != "" {
		_ = c.Exit(s.command(c, l, line))
		return
	}
	con := shell.Console{In: c, Out: c, Err: c.Stderr(), Terminal: true}
	pty, windows, terminal := c.Pty()
	if !terminal {
		_, _ = io.WriteString(c.Stderr(), "a terminal or a command is expected: ssh -t, or ssh HOST 'show version'\n")
		_ = c.Exit(1)
		return
	}
	var size atomic.Pointer[ssh.Window]
	size.Store(&pty.Window)
	resized := make(chan struct{}, 1)
	con.Resized = resized
	go func() {
		for w := range windows {
			size.Store(&w)
			select {
			case resized <- struct{}{}:
			default:
			}
		}
	}()
	con.Size = func() (int, int) {
		if w := size.Load(); w.Width > 0 && w.Height > 0 {
			return w.Width, w.Height
		}
		return 80, 24
	}
	if err := con.Interact(s.ctx, l); err != nil && !errors.Is(err, io.EOF) {
		log.Info("ssh session lost", "err", err)
		_ = c.Exit(1)
		return
	}
	_ = c.Exit(0)
}

// command carries out the lines that came with the connection. One that goes on ends with the connection, or by a Ctrl-C where there is a terminal.
func (s *Server) command(c ssh.Session, l *shell.Local, lines string) int {
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	if _, _, terminal := c.Pty(); terminal {
		go func() { // ends with the session
			for b := make([]byte, 64); ; {
				n, err := c.Read(b)
				if err != nil || bytes.IndexByte(b[:n], 3) >= 0 {
					cancel()
					return
				}
			}
		}()
	}
	for line := range strings.Lines(lines) {
		r, err := l.Run(ctx, strings.TrimSuffix(line, "\n"), c)
		if err != nil {
			return 1
		}
		if ctx.Err() != nil {
			return 130
		}
		if r.Exit != 0 {
			_, _ = io.WriteString(c.Stderr(), r.Error+"\n")
			return 1
		}
	}
	return 0
}
