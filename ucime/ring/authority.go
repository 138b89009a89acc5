package ring

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"imeproxy/ucime/learn"
)

// ErrNotBootstrap refuses a change of the global settings anywhere but on a bootstrap server.
var ErrNotBootstrap = errors.New("only a bootstrap server changes the ring's settings")

var errStale = errors.New("not newer than what is known")

// learnSettings takes settings over if they are newer and a bootstrap server vouches for them: one that we know has signed them, or `from`, whose
// certificate says that it is one, has handed them out: whoever signed them may be away, or have another key by now. It says whether they were news.
func (n *node) learnSettings(raw []byte, from *party) error {
	s, err := decodeSettings(raw)
	if err != nil {
		return n.refuseSettings(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !s.newer(n.settings) {
		return errStale
	}
	boot, ok := n.trusted[s.Bootstrap]
	vouched := from != nil && from.bootstrap
	if !vouched && (!ok || !verify(boot.key, "settings", s.signed(), s.signature)) {
		n.count.SettingsRefused++
		return fmt.Errorf("settings: not signed by a bootstrap server that we know")
	}
	known := map[learn.PeerID]trusted{}
	if ok {
		known[s.Bootstrap] = boot
	}
	for _, b := range s.Bootstraps {
		t, err := trust(b.SPKI)
		if err != nil {
			n.count.SettingsRefused++
			return fmt.Errorf("settings: %w", err)
		}
		known[b.Name] = t
	}
	n.adopt(s, slices.Clone(raw), known)
	return nil
}

func (n *node) refuseSettings(err error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.count.SettingsRefused++
	return err
}

// adopt puts settings into force. The lock is held.
func (n *node) adopt(s *Settings, raw []byte, known map[learn.PeerID]trusted) {
	old := n.settings
	n.settings, n.raw, n.trusted, n.settledAt = s, raw, known, n.now()
	for name := range n.tokens {
		if _, ok := known[name]; !ok {
			delete(n.tokens, name)
		}
	}
	n.banned = s.bans(n.self.named)
	if len(s.Banned) > 0 {
		for _, m := range slices.Clone(n.members) {
			if s.bans(m.Peers) {
				n.leaveLocked(m.Name)
			}
		}
		n.store.dropIf(func(h *held) bool { return s.bans([]learn.PeerID{h.rec.owner, h.member}) })
	}
	if old == nil || old.Key != s.Key || old.HashCost != s.HashCost {
		for _, p := range n.pubs {
			p.hashed, p.raw, p.at = false, nil, map[learn.PeerID]*copyAt{}
		}
	}
	n.trim()
	n.fill()
	n.changed()
}

// trustParty knows a bootstrap server by its certificate.
func (n *node) trustParty(p *party) {
	if !p.bootstrap {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	known := map[learn.PeerID]trusted{}
	for k, v := range n.trusted {
		known[k] = v
	}
	if _, ok := known[p.name]; ok || len(known) < maxBootstraps {
		known[p.name] = trusted{p.spki, p.key}
		n.trusted = known
	}
}

// learnToken takes a bootstrap server's sign of life.
func (n *node) learnToken(raw []byte) error {
	t, err := decodeToken(raw)
	if err != nil {
		return n.refuseSettings(err)
	}
	now := n.now()
	n.mu.Lock()
	defer n.mu.Unlock()
	if last := n.tokens[t.bootstrap]; last != nil && t.sequence <= last.t.sequence {
		return errStale
	}
	boot, ok := n.trusted[t.bootstrap]
	if !ok || t.made.After(now.Add(clockSkew)) || !verify(boot.key, "token", t.signed(), t.signature) {
		n.count.SettingsRefused++
		return errors.New("token: not of a bootstrap server that we know")
	}
	if now.Sub(t.made) > 10*n.tokenEvery {
		return errStale // an old one that somebody kept says nothing of now
	}
	n.noteToken(t, now)
	return nil
}

func (n *node) noteToken(t *token, now time.Time) {
	l := &lastToken{t, now}
	n.tokens[t.bootstrap] = l
	n.last = l
	n.count.TokensReceived++
	n.changed()
}

// makeToken signs our sign of life. The lock is held.
func (n *node) makeToken(now time.Time) (*token, error) {
	t := &token{bootstrap: n.self.name, sequence: uint64(now.Unix()), made: now.Truncate(time.Millisecond), peers: uint32(n.countPeers())}
	if n.settings != nil {
		t.settings = n.settings.Sequence
	}
	var err error
	t.signature, err = sign(n.signer, "token", t.signed())
	return t, err
}

// beat makes the token that a bootstrap server sends around; it counts as received, for a bootstrap server is in touch with itself.
func (n *node) beat() ([]byte, error) {
	now := n.now()
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.authority {
		return nil, ErrNotBootstrap
	}
	t, err := n.makeToken(now)
	if err != nil {
		return nil, err
	}
	if last := n.tokens[t.bootstrap]; last == nil || t.sequence > last.t.sequence {
		n.noteToken(t, now)
	}
	return t.encode(), nil
}

// list puts another bootstrap server, known by its certificate, among those that all members know. The lock is held.
func (n *node) list(p *party) {
	if slices.ContainsFunc(n.settings.Bootstraps, func(b BootstrapServer) bool { return b.Name == p.name && string(b.SPKI) == p.spki }) {
		return
	}
	// An error means that sixteen are listed: the seventeenth admits nobody.
	_, _ = n.changeLocked(func(s *Settings) {
		s.Bootstraps = slices.DeleteFunc(s.Bootstraps, func(b BootstrapServer) bool { return b.Name == p.name })
		s.Bootstraps = append(s.Bootstraps, BootstrapServer{p.name, []byte(p.spki)})
	})
}

func (n *node) countPeers() (k int) {
	for _, m := range n.members {
		k += len(m.Peers)
	}
	return k
}

// govern makes us a bootstrap server with the settings that were kept, or with those that another bootstrap server will
// tell when s is nil.
func (n *node) govern(s *Settings) error {
	if !n.self.bootstrap {
		return errors.New("the certificate is not one of a bootstrap server: it lacks " + bootstrapURI)
	}
	n.mu.Lock()
	n.authority = true
	n.mu.Unlock()
	n.trustParty(n.self)
	if s == nil {
		return nil
	}
	_, err := n.change(func(now *Settings) { *now = *s.clone() })
	return err
}

// hand makes a bootstrap server's new key known: in settings that the former key signs, which all members know. The lock is held.
func (n *node) hand(self *party) {
	if n.settings != nil {
		if _, err := n.changeLocked(func(*Settings) {}); err == nil {
			return
		}
	}
	known := map[learn.PeerID]trusted{}
	for k, v := range n.trusted {
		known[k] = v
	}
	known[self.name] = trusted{self.spki, self.key}
	n.trusted = known
}

// change edits the settings, signs and adopts them.
func (n *node) change(edit func(*Settings)) ([]byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changeLocked(edit)
}

func (n *node) changeLocked(edit func(*Settings)) ([]byte, error) {
	now := n.now()
	if !n.authority {
		return nil, ErrNotBootstrap
	}
	next := &Settings{}
	var sequence uint64
	if n.settings != nil {
		next, sequence = n.settings.clone(), n.settings.Sequence
	}
	edit(next)
	if n.settings != nil || next.Sequence == 0 { // settings that were kept keep their age: the ring may have newer ones by now
		next.Sequence = max(sequence+1, uint64(now.Unix()))
	}
	next.Bootstrap = n.self.name
	if i := slices.IndexFunc(next.Bootstraps, func(b BootstrapServer) bool { return b.Name == n.self.name }); i >= 0 {
		next.Bootstraps[i].SPKI = []byte(n.self.spki)
	} else {
		next.Bootstraps = append(next.Bootstraps, BootstrapServer{n.self.name, []byte(n.self.spki)})
	}
	if err := next.Check(); err != nil {
		return nil, err
	}
	var err error
	if next.signature, err = sign(n.signer, "settings", next.signed()); err != nil {
		return nil, err
	}
	known := map[learn.PeerID]trusted{}
	for _, b := range next.Bootstraps {
		if known[b.Name], err = trust(b.SPKI); err != nil {
			return nil, err
		}
	}
	n.adopt(next, next.encode(), known)
	return n.raw, nil
}
