package peerserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"imeproxy/ucime/enroll"
	"imeproxy/ucime/learn"
	"imeproxy/ucime/ring"
	"imeproxy/ucime/store"
	"imeproxy/ucime/ticket"
	"imeproxy/ucime/vap"
)

// Setup says which peer server a Node is. All but the last three fields are mandatory.
type Setup struct {
	Dir        string        // for what the node keeps: license, certificate, what was learned, settings of the ring
	Trust      *enroll.Trust // of the authority
	Authority  string        // URL of its server
	Domain     string
	Address    netip.Addr // where the ring and the validator listen
	Public     netip.Addr // what others are told
	RingPort   uint16     // 0: a free one, which others learn
	Validator  uint16     // the same
	Bootstraps []string   // host:port
	Bootstrap  bool       // it is a bootstrap server
	Software   uint32
	TicketKey  ticket.Key
	Learn      learn.Config
	KeepVCRs   time.Duration
	VAP        []vap.Instance

	Alert func(Alert) // may be told from several goroutines, must not block; nil: nobody
	Now   func() time.Time
	Log   *slog.Logger
}

// Node is a peer server with its enrolment, its store and its place in the ring. It serves call agents and other peer servers as
// long as it has a certificate; before, it tries to get one. Its methods may be called by several goroutines.
type Node struct {
	set    Setup
	member *enroll.Member
	store  *store.Store
	cancel context.CancelFunc
	wg     sync.WaitGroup
	kick   chan struct{}
	alerts *alerter
	rates  rates

	mu      sync.Mutex // guards what follows
	vap     []vap.Instance
	running *running
	failed  error // of the last start of it
}

// running is what runs with a certificate.
type running struct {
	own    []learn.PeerID
	server *Server
	ring   *ring.Ring
	cancel context.CancelFunc
	done   chan struct{}

	mu        sync.Mutex // guards what follows
	published []learn.Number
	overQuota error
}

// Files of a node's directory, beside those of enroll.
const (
	learnedFile  = "learned.db"
	settingsFile = "ring-settings.json"
)

// retryStart is the time between two starts when a port was taken, say.
const retryStart = 30 * time.Second

// Open opens what the node keeps and starts it.
func Open(set Setup) (*Node, error) {
	if set.Now == nil {
		set.Now = time.Now
	}
	if set.Log == nil {
		set.Log = slog.New(slog.DiscardHandler)
	}
	n := &Node{set: set, kick: make(chan struct{}, 1), vap: set.VAP}
	n.alerts = newAlerter(set.Alert)
	if err := os.MkdirAll(set.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("peer server: %w", err)
	}
	var err error
	if n.member, err = enroll.OpenMember(enroll.MemberConfig{
		Dir: set.Dir, Trust: set.Trust, URL: set.Authority, Log: set.Log, Clock: enroll.Clock{Now: set.Now},
		OnEnrolled: func(until time.Time) { n.alerts.enrolled(set.Now(), until); n.wake() },
		OnFailure:  func(err error) { n.alerts.enrollFailed(set.Now(), err) },
		OnList:     n.recheck,
	}); err != nil {
		return nil, fmt.Errorf("peer server: %w", err)
	}
	if n.store, err = store.Open(filepath.Join(set.Dir, learnedFile), store.Limits{}); err != nil {
		return nil, fmt.Errorf("peer server: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	n.wg.Go(func() { _ = n.member.Run(ctx) })
	n.wg.Go(func() { n.supervise(ctx) })
	return n, nil
}

// recheck ends the ring's connections to those that a new list revokes. The validator's last 30 s at most and are checked when they begin.
func (n *Node) recheck() {
	if r, err := n.on(); err == nil {
		r.ring.Recheck()
	}
}

// Close ends all of it and waits.
func (n *Node) Close() error {
	n.cancel()
	n.wg.Wait()
	return n.store.Close()
}

func (n *Node) wake() {
	select {
	case n.kick <- struct{}{}:
	default:
	}
}

// supervise starts what needs a certificate when there is one, and looks each second after what is to be told.
func (n *Node) supervise(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var next time.Time
	for {
		if now := n.set.Now(); !now.Before(next) {
			if err := n.ensure(ctx); err != nil {
				next = now.Add(retryStart)
				n.set.Log.Error("the peer server cannot start", "err", err)
			}
		}
		n.look()
		select {
		case <-ctx.Done():
			n.stop()
			return
		case <-n.kick:
			next = time.Time{}
		case <-tick.C:
		}
	}
}

// ensure starts the server for the certificate that there is; one with other peer IDs ends what runs for the former.
func (n *Node) ensure(ctx context.Context) error {
	own := n.member.OwnPeerIDs()
	n.mu.Lock()
	r := n.running
	n.mu.Unlock()
	if r != nil {
		select {
		case <-r.done: // it has ended by itself: the validator's port was lost
		default:
			if slices.Equal(r.own, own) {
				return nil
			}
		}
		n.stop()
	}
	if _, err := n.member.Certificate(); err != nil || len(own) == 0 {
		return nil // told by look, as long as it lasts
	}
	r, err := n.begin(ctx, own)
	n.mu.Lock()
	n.running, n.failed = r, err
	n.mu.Unlock()
	return err
}

func (n *Node) begin(ctx context.Context, own []learn.PeerID) (_ *running, err error) {
	var undo []func() error
	defer func() {
		if err != nil {
			for _, f := range slices.Backward(undo) {
				_ = f()
			}
		}
	}()
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", netip.AddrPortFrom(n.set.Address, n.set.Validator).String())
	if err != nil {
		return nil, fmt.Errorf("validator: %w", err)
	}
	undo = append(undo, ln.Close)
	settings, err := n.settings()
	if err != nil {
		return nil, err
	}
	r := &running{own: own, done: make(chan struct{})}
	validator := netip.AddrPortFrom(n.set.Public, ln.Addr().(*net.TCPAddr).AddrPort().Port())
	var advertise netip.AddrPort // of a free port: what the ring gets
	if n.set.RingPort != 0 {
		advertise = netip.AddrPortFrom(n.set.Public, n.set.RingPort)
	}
	r.ring, err = ring.New(ring.Config{
		Identity: n.member, Listen: netip.AddrPortFrom(n.set.Address, n.set.RingPort).String(), Advertise: advertise,
		Validator: validator.String(), Bootstraps: n.set.Bootstraps, Software: n.set.Software,
		Bootstrap: n.set.Bootstrap, Settings: settings, OnSettings: n.keepSettings, Now: n.set.Now, Log: n.set.Log,
	})
	if err != nil {
		return nil, err
	}
	undo = append(undo, r.ring.Close)
	tickets := &issuer{key: n.set.TicketKey, domain: n.set.Domain}
	if r.server, err = New(Config{
		Store: n.store, Identity: ringIdentity{n.member, r.ring}, Own: own[0], Domain: n.set.Domain, Issuer: tickets, Directory: Ring{r.ring}, Publish: r.publish,
		Learn: n.set.Learn, KeepVCRs: n.set.KeepVCRs, Quota: uint32(r.ring.Status().Quota), Now: n.set.Now, Log: n.set.Log,
	}); err != nil {
		return nil, err
	}
	tickets.server = r.server
	n.mu.Lock()
	instances := n.vap
	n.mu.Unlock()
	if err = r.server.VAP().Apply(instances); err != nil {
		r.server.VAP().Close()
		return nil, err
	}
	ctx, r.cancel = context.WithCancel(ctx)
	go func() {
		defer close(r.done)
		if err := r.server.Run(ctx, ln); err != nil {
			n.set.Log.Error("the peer server has ended", "err", err)
		}
	}()
	n.set.Log.Info("the peer server runs", "peer", own[0].String(), "ring", r.ring.Addr().String(), "validator", ln.Addr().String())
	return r, nil
}

// stop ends what runs.
func (n *Node) stop() {
	n.mu.Lock()
	r := n.running
	n.running = nil
	n.mu.Unlock()
	if r == nil {
		return
	}
	r.cancel()
	<-r.done
	if err := r.ring.Close(); err != nil {
		n.set.Log.Warn("the ring was not left cleanly", "err", err)
	}
}

// publish makes the numbers of all services ours in the ring.
func (r *running) publish(all []vap.Publication) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var quota *ring.QuotaError
	var err error
	r.published, err = Ring{r.ring}.Publish(r.published, all)
	if r.overQuota = nil; errors.As(err, &quota) {
		r.overQuota = err
	}
}

// settings are those that a bootstrap server has kept, or of a new ring.
func (n *Node) settings() (*ring.Settings, error) {
	if !n.set.Bootstrap {
		return nil, nil
	}
	text, err := os.ReadFile(filepath.Join(n.set.Dir, settingsFile))
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(n.set.Bootstraps) > 0:
		return nil, nil // another one tells them
	case errors.Is(err, fs.ErrNotExist):
		s := ring.DefaultSettings()
		return &s, nil
	case err != nil:
		return nil, fmt.Errorf("settings of the ring: %w", err)
	}
	var s ring.Settings
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("settings of the ring: %s: %w", settingsFile, err)
	}
	return &s, nil
}

// keepSettings stores them: a ring whose key is lost has to be published anew.
func (n *Node) keepSettings(s *ring.Settings) {
	if !n.set.Bootstrap {
		return
	}
	text, err := json.Marshal(s)
	if err == nil {
		err = writeFile(filepath.Join(n.set.Dir, settingsFile), text)
	}
	if err != nil {
		n.set.Log.Error("the ring's settings are not kept", "err", err)
	}
}

// writeFile replaces a file so that a power cut leaves the old or the new one.
func writeFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// ApplyVAP sets the call agents' ports and users.
func (n *Node) ApplyVAP(instances []vap.Instance) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.running != nil {
		if err := n.running.server.VAP().Apply(instances); err != nil {
			return fmt.Errorf("peer server: %w", err)
		}
	}
	n.vap = instances
	return nil
}

// InstallLicense checks a license file and makes it the node's; a certificate for it is asked for at once.
func (n *Node) InstallLicense(file string, text []byte) (*enroll.License, error) {
	return n.member.InstallLicense(file, text)
}

// Enroll gets a certificate, the first or the next.
func (n *Node) Enroll(ctx context.Context) error { return n.member.Enroll(ctx) }

// ErrNotRunning says that the peer server has no certificate yet, or could not start.
var ErrNotRunning = errors.New("the peer server does not run")

// on gives what runs, or says why nothing does.
func (n *Node) on() (*running, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.running != nil {
		return n.running, nil
	}
	if n.failed != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotRunning, n.failed)
	}
	_, err := n.member.Certificate()
	return nil, fmt.Errorf("%w: %w", ErrNotRunning, err)
}

// Lookup asks the ring who claims a number.
func (n *Node) Lookup(ctx context.Context, number learn.Number) ([]ring.Claim, error) {
	r, err := n.on()
	if err != nil {
		return nil, err
	}
	return r.ring.Lookup(ctx, number)
}

// ChangeSettings edits the ring's global settings, on a bootstrap server alone.
func (n *Node) ChangeSettings(edit func(*ring.Settings)) error {
	r, err := n.on()
	if err != nil {
		return err
	}
	return r.ring.Change(edit)
}
