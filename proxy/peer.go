package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"imeproxy/mapping"
	"imeproxy/proxy/config"
	"imeproxy/proxy/observe"
	"imeproxy/proxy/peerserver"
	"imeproxy/ucime/enroll"
	"imeproxy/ucime/learn"
	"imeproxy/ucime/ticket"
	"imeproxy/ucime/vap"
)

// peerSoftware is what the ring compares with the version that it requires (alert SWUpdateRequired).
const peerSoftware = 1

// peerNotRunning is the problem's code in `show health`.
const peerNotRunning = "peer_server_not_running"

// maxTrustFile bounds authority.pem.
const maxTrustFile = 64 << 10

// peers is the co-resident peer server. The node is guarded by Appliance.applying where it is changed.
type peers struct {
	node     *peerserver.Node
	of       *config.ResolvedPeerServer // what it was made from
	keys     map[vapUser]vap.UserKey    // made once, for that takes long on purpose
	webhooks *peerserver.Webhooks
}

type vapUser struct{ name, password string }

// peerPorts are those that others must reach. Call agents' ports are open on their own interface alone.
func (p *plan) peerPorts() []mapping.OpenPort {
	s := p.PeerServer
	if s == nil {
		return nil
	}
	var out []mapping.OpenPort
	open := func(on *config.Interface, port uint16) {
		out = append(out, mapping.OpenPort{Link: on.Name, Proto: "tcp", Addr: on.Address.Addr(), Port: port})
	}
	open(s.On, s.RingPort)
	open(s.On, s.ValidatorPort)
	for _, v := range s.VAPServers {
		open(v.On, v.Port)
	}
	return out
}

// applyPeer makes the peer server that of a plan. What changes for call agents alone leaves the rest as it is. With an error the former one runs on.
func (a *Appliance) applyPeer(p *plan) error {
	want, have := p.PeerServer, a.peers.of
	switch {
	case want == nil:
		return a.closePeer()
	case have != nil && samePeer(have, want):
		instances, err := a.vapInstances(want)
		if err != nil {
			return err
		}
		if err := a.peers.node.ApplyVAP(instances); err != nil {
			return err
		}
		a.peers.of = want
		return nil
	}
	set, err := a.peerSetup(want)
	if err != nil {
		return err
	}
	former := a.peers
	if err := a.closePeer(); err != nil {
		a.log.Warn("the former peer server did not end cleanly", "err", err)
	}
	node, err := peerserver.Open(set)
	if err != nil {
		if former.of != nil {
			if back, e := a.peerSetup(former.of); e == nil {
				if node, e := peerserver.Open(back); e == nil {
					a.setPeer(node, former.of)
				}
			}
		}
		return err
	}
	a.setPeer(node, want)
	if have != nil && have.Password != want.Password {
		a.alert(peerserver.PasswordChanged(a.now()))
	}
	return nil
}

func (a *Appliance) setPeer(node *peerserver.Node, of *config.ResolvedPeerServer) {
	a.peers.node, a.peers.of = node, of
	a.shownPeer.Store(node)
}

func (a *Appliance) closePeer() error {
	node := a.peers.node
	if node == nil {
		return nil
	}
	a.setPeer(nil, nil)
	return node.Close()
}

// startPeer is for a peer server that nobody changes at the moment. Calls must not fail because it cannot run: that is told and no more.
func (a *Appliance) startPeer(p *plan) {
	if err := a.applyPeer(p); err != nil {
		a.log.Error("the peer server does not run, calls do", "err", err)
		a.health.Raise(observe.Problem{
			Code: peerNotRunning, Severity: observe.Major, Since: a.now(), Impact: "no route is learned, and nobody learns routes to this enterprise",
			WhatToDo: err.Error() + "; then type peer-server and exit in configuration mode, or reload the configuration",
		})
		return
	}
	a.health.Clear(peerNotRunning, "")
}

// reloadPeer refuses a changed peer server that cannot run.
func (a *Appliance) reloadPeer(old, p *plan) error {
	if old.PeerServer != nil && p.PeerServer != nil && samePeer(old.PeerServer, p.PeerServer) {
		a.startPeer(p)
		return nil
	}
	err := a.applyPeer(p)
	if err == nil {
		a.health.Clear(peerNotRunning, "")
	}
	return err
}

// samePeer says whether two differ in nothing but ports and users of call agents.
func samePeer(a, b *config.ResolvedPeerServer) bool {
	like := func(s *config.ResolvedPeerServer) config.PeerServer {
		c := *s.PeerServer
		c.Pos, c.Where, c.VAPServers, c.VAPUsers, c.Webhook = config.Pos{}, nil, nil, nil, ""
		c.Bootstraps, c.Customer = nil, [7]string{}
		return c
	}
	return a.Domain == b.Domain && a.Epoch == b.Epoch && a.Password == b.Password && a.On.Address == b.On.Address &&
		reflect.DeepEqual(like(a), like(b)) && reflect.DeepEqual(bootstrapHosts(a), bootstrapHosts(b))
}

func bootstrapHosts(s *config.ResolvedPeerServer) []string {
	var out []string
	for _, b := range s.Bootstraps {
		out = append(out, fmt.Sprintf("%s:%d", b.Host, b.Port))
	}
	return out
}

func (a *Appliance) peerSetup(s *config.ResolvedPeerServer) (peerserver.Setup, error) {
	var set peerserver.Setup
	trust, err := a.peerTrust(s.TrustFile)
	if err != nil {
		return set, err
	}
	instances, err := a.vapInstances(s)
	if err != nil {
		return set, err
	}
	if err := ticket.CheckPassword(s.Password.Reveal()); err != nil {
		return set, fmt.Errorf("ticket password of the peer server: %w", err)
	}
	set = peerserver.Setup{
		Dir: filepath.Join(a.opt.StateDir, "peer-server"), Trust: trust, Authority: s.EnrollmentURL, Domain: s.Domain,
		Address: s.On.Address.Addr(), Public: s.PublicAddress, RingPort: s.RingPort, Validator: s.ValidatorPort,
		Bootstraps: bootstrapHosts(s), Bootstrap: s.BootstrapSelf, Software: peerSoftware,
		TicketKey: ticket.DeriveKey(s.Password.Reveal(), uint8(s.Epoch)),
		Learn:     learn.Config{Threshold: s.BucketEntropy, Interval: s.CallInterval, DelayMin: s.DelayMin, DelayMax: s.DelayMax},
		KeepVCRs:  s.RecordLifetime, VAP: instances, Alert: a.alert, Now: a.now, Log: a.log,
	}
	if !set.Public.IsValid() {
		set.Public = set.Address
	}
	return set, nil
}

// peerTrust reads the authority's file of the state directory.
func (a *Appliance) peerTrust(name string) (*enroll.Trust, error) {
	path := filepath.Join(a.opt.StateDir, filepath.Base(strings.TrimPrefix(name, "disk0:")))
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("enrollment trust-file: put the authority's authority.pem there: %w", err)
	}
	if info.Size() > maxTrustFile {
		return nil, fmt.Errorf("enrollment trust-file: %s has more than %d bytes", path, maxTrustFile)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("enrollment trust-file: %w", err)
	}
	trust, err := enroll.ParseTrust(text)
	if err != nil {
		return nil, fmt.Errorf("enrollment trust-file: %s: %w", path, err)
	}
	return trust, nil
}

// vapInstances are the call agents' ports, with all users at each.
func (a *Appliance) vapInstances(s *config.ResolvedPeerServer) ([]vap.Instance, error) {
	users, keys := vap.Users{}, map[vapUser]vap.UserKey{}
	for _, u := range s.VAPUsers {
		k := vapUser{u.Name, u.Password.Reveal()}
		key, known := a.peers.keys[k]
		if !known {
			var err error
			if key, err = vap.DeriveUserKey(k.name, k.password); err != nil {
				return nil, fmt.Errorf("vapuser %s: %w", u.Name, err)
			}
		}
		users[u.Name], keys[k] = key, key
	}
	a.peers.keys = keys
	var out []vap.Instance
	for _, v := range s.VAPServers {
		i := vap.Instance{
			Name: v.Name, Addr: netip.AddrPortFrom(v.On.Address.Addr(), v.Port).String(), Keepalive: v.Keepalive, MaxConnections: v.MaxConnections, Credentials: users,
		}
		if v.Encrypted {
			i.TLS = a.vapTLS(v.Trustpoint)
		}
		out = append(out, i)
	}
	return out, nil
}

// vapTLS presents the trustpoint's identity of the moment, so that a new certificate counts from the next connection on.
func (a *Appliance) vapTLS(trustpoint string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			id, err := a.store.Identity(trustpoint)
			if err != nil {
				return nil, fmt.Errorf("trustpoint %s: %w", trustpoint, err)
			}
			return &id.Certificate, nil
		},
	}
}

var alertLevels = map[peerserver.Severity]slog.Level{
	peerserver.SeverityAlert: slog.LevelError, peerserver.SeverityCritical: slog.LevelError, peerserver.SeverityError: slog.LevelError,
	peerserver.SeverityWarning: slog.LevelWarn, peerserver.SeverityNotice: slog.LevelInfo,
}

// alert tells the log and the webhook.
func (a *Appliance) alert(x peerserver.Alert) {
	a.log.Log(context.Background(), alertLevels[x.Severity], "alert "+x.Name, "severity", string(x.Severity), "text", observe.Clean(x.Text))
	url := ""
	if s := a.plan.Load().PeerServer; s != nil {
		url = s.Webhook
	}
	a.peers.webhooks.Send(url, x)
}

func (a *Appliance) peerNode() (*peerserver.Node, error) {
	if n := a.shownPeer.Load(); n != nil {
		return n, nil
	}
	return nil, observe.ErrNoPeerServer
}
