package pvp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"imeproxy/ucime/learn"
	"imeproxy/ucime/source"
)

// ServerConfig is what a Server works with. Identity, Records, Trust and Issuer are mandatory.
type ServerConfig struct {
	Identity Identity
	Records  Records
	Trust    Trust
	Issuer   Issuer
	// Guesses keep what peers have spent against VCRs beyond the life of the process; nil: a restart gives it back.
	Guesses Guesses
	Limits  Limits
	// Counters may be shared with a Client; made where nil.
	Counters *Counters
	// Now is the clock, time.Now where nil. Deadlines of connections are the kernel's.
	Now func() time.Time
	// Log takes what the operator can act on; numbers, times and domains of unproven calls are never in it.
	Log *slog.Logger
}

// Guesses are durable. They are called by several goroutines.
type Guesses interface {
	// Spend adds one run of peer against each VCR and returns once that is durable. It takes as long for none as for one.
	Spend(vcrs []uint64, peer learn.PeerID) error
	// GiveBack takes one run of peer off each VCR.
	GiveBack(vcrs []uint64, peer learn.PeerID) error
	// EachSpent gives all that is spent, the oldest VCR's first. What is spent against a VCR goes with it.
	EachSpent(f func(vcr uint64, peer learn.PeerID, runs int) error) error
}

// Server is the terminating side: it lets originators prove calls that came to this enterprise.
type Server struct {
	ServerConfig
	tls     *tls.Config
	sources *rates[netip.Addr]
	peers   *rates[learn.PeerID]
	running counted[learn.PeerID]
	pending *pending
	budget  *budget
	places  places
	workers chan struct{} // runs being computed
}

// NewServer checks the configuration.
func NewServer(c ServerConfig) (*Server, error) {
	if c.Identity == nil || c.Records == nil || c.Trust == nil || c.Issuer == nil {
		return nil, errors.New("validation server: identity, records, trust and issuer are mandatory")
	}
	var err error
	if c.Limits, err = c.Limits.withDefaults(); err != nil {
		return nil, fmt.Errorf("validation server: %w", err)
	}
	if c.Counters == nil {
		c.Counters = &Counters{}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	l := c.Limits
	s := &Server{
		ServerConfig: c, tls: tlsConfig(c.Identity, c.Now),
		sources: newRates[netip.Addr](l.SourceBurst, float64(l.SourcePerMinute)/60, l.TableEntries),
		peers:   newRates[learn.PeerID](l.PeerBurst, float64(l.PeerPerHour)/3600, l.TableEntries),
		pending: newPending(l.Pending, l.TableEntries), budget: newBudget(l.GuessesPerPeer, l.Guesses, l.BudgetEntries),
		places: places{most: l.Terminating}, workers: make(chan struct{}, l.Workers),
	}
	if c.Guesses != nil {
		if err := c.Guesses.EachSpent(func(vcr uint64, peer learn.PeerID, runs int) error {
			s.budget.restore(vcr, peer, runs)
			return nil
		}); err != nil {
			return nil, fmt.Errorf("validation server: %w", err)
		}
	}
	return s, nil
}

// Serve answers connections of ln until ctx ends or ln fails, then closes ln and all connections and waits for their
// goroutines. It returns nil where ctx has ended.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	defer func() { _ = ln.Close() }()
	var wait time.Duration
	for {
		conn, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("validation server: %w", err)
		case err != nil: // too many open files, for one: the next may go well
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			s.Log.Warn("validation server cannot accept a connection", "error", err, "next try in", wait)
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
			continue
		}
		wait = 0
		s.accept(ctx, conn, &all)
	}
}

// accept applies the limits that hold before any cryptography.
func (s *Server) accept(ctx context.Context, conn net.Conn, all *sync.WaitGroup) {
	from := source.OfConn(conn)
	if !s.sources.take(from, s.Now()) {
		s.Counters.SourceLimited.Add(1)
		_ = conn.Close()
		return
	}
	entry, victim, ok := s.pending.add(conn, from)
	if victim != nil || !ok {
		s.Counters.BlockedValidationTermTLSLimit.Add(1)
	}
	if victim != nil {
		s.Counters.PendingEvicted.Add(1)
		_ = victim.Close()
	}
	if !ok {
		_ = conn.Close()
		return
	}
	s.Counters.Pending.Add(1)
	all.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, s.Limits.Connection)
		defer cancel()
		defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
		defer func() { _ = conn.Close() }()
		var finished bool
		decided := sync.OnceFunc(func() {
			s.pending.remove(entry, from, finished)
			s.Counters.Pending.Add(-1)
		})
		defer decided()
		t, ids, err := s.handshake(ctx, conn)
		if err != nil {
			s.Counters.HandshakeFailed.Add(1)
			s.note(err)
			s.Log.Debug("validation: no TLS handshake", "source", from, "error", err)
			return
		}
		finished = true
		s.admit(ctx, t, ids, decided)
	})
}

// note counts the errors that are a limit of time.
func (s *Server) note(err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		s.Counters.TimedOut.Add(1)
	}
}

func (s *Server) handshake(ctx context.Context, conn net.Conn) (*tls.Conn, []learn.PeerID, error) {
	ctx, cancel := context.WithTimeout(ctx, s.Limits.Handshake)
	defer cancel()
	t := tls.Server(conn, s.tls)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, nil, err
	}
	ids, err := peerIDs(s.Identity, t.ConnectionState())
	if err != nil {
		return nil, nil, err
	}
	return t, ids, nil
}

// admit applies the limits that hold for the peer; the connection counts as pending until it has been decided upon.
func (s *Server) admit(ctx context.Context, t *tls.Conn, ids []learn.PeerID, decided func()) {
	own, err := ownIDs(s.Identity)
	if err != nil {
		s.Log.Error("validation: own certificate", "error", err)
		return
	}
	peer := ids[0]
	if !s.running.enter(peer, s.Limits.PerPeer) {
		s.Counters.PeerLimited.Add(1)
		s.turnAway(t)
		return
	}
	defer s.running.leave(peer)
	mine, victim := s.places.enter(place{
		peer: peer, network: source.NetworkOfConn(t.NetConn()), cut: func() { _ = t.NetConn().Close() },
	}, s.Now())
	if victim != nil || mine == nil {
		s.Counters.BlockedValidationTermTLSLimit.Add(1)
	}
	if mine == nil {
		s.turnAway(t)
		return
	}
	defer s.places.leave(mine)
	if victim != nil {
		victim.cut()
	}
	decided()
	s.Counters.Terminating.Add(1)
	defer s.Counters.Terminating.Add(-1)
	v := &session{server: s, conn: t, peer: peer, ids: ids, own: own}
	if err := v.serve(ctx); err != nil {
		s.note(err)
		s.Log.Debug("validation ended", "peer", peer, "runs", v.runs, "error", err)
	}
	if !v.proven {
		s.Counters.WrongGuesses.Add(uint64(v.runs))
	}
	_ = t.SetWriteDeadline(time.Now().Add(s.Limits.Frame))
	_ = t.CloseWrite()
}

// turnAway reads the START first: closing a connection with unread data would reset it, and BUSY with it.
func (s *Server) turnAway(t *tls.Conn) {
	_ = t.SetReadDeadline(time.Now().Add(s.Limits.Frame))
	if _, _, err := readFrame(t, frameStart); err == nil {
		s.busy(t)
	}
}

func (s *Server) busy(t *tls.Conn) {
	_ = t.SetWriteDeadline(time.Now().Add(s.Limits.Frame))
	_ = writeFrame(t, frameBusy, nil)
	_ = t.CloseWrite()
}

func ownIDs(id Identity) ([]learn.PeerID, error) {
	c, err := id.Certificate()
	if err != nil {
		return nil, err
	}
	leaf := c.Leaf
	if leaf == nil {
		if len(c.Certificate) == 0 {
			return nil, errors.New("there is no certificate")
		}
		if leaf, err = x509.ParseCertificate(c.Certificate[0]); err != nil {
			return nil, err
		}
	}
	return id.PeerIDs(leaf)
}
