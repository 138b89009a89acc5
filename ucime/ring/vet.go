package ring

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"imeproxy/ucime/learn"
)

const (
	maxVetted    = maxMembers + 4096 // descriptions whose signatures are known to be good
	forgedBurst  = 64                // descriptions, settings and tokens that do not verify, that a member may pass on at once
	forgedRate   = 0.1               // a second
	changedBurst = 10                // new descriptions of one member
	changedRate  = 1. / 60
	accusedEvery = time.Hour // between two log lines about one member
)

var (
	errForging  = errors.New("too much of what this member passes on does not verify")
	errChanging = errors.New("the member describes itself anew too often")
	errUnvetted = errors.New("the description has not been verified")
)

// vetted are descriptions whose signatures were good under a bootstrap server's key: what all members tell each other again and again is verified once. The oldest makes
// room. Not for concurrent use.
type vetted struct {
	good  map[[32]byte]*Member
	order [][32]byte
	next  int // of order, to be replaced
}

func vettedKey(raw []byte, boot trusted) (key [32]byte) {
	h := sha256.New()
	h.Write(put8(nil, []byte(boot.spki)))
	h.Write(raw)
	h.Sum(key[:0])
	return key
}

func (v *vetted) add(key [32]byte, m *Member) {
	if v.good == nil {
		v.good = map[[32]byte]*Member{}
	}
	if _, known := v.good[key]; known {
		return
	}
	if len(v.order) < maxVetted {
		v.order = append(v.order, key)
	} else {
		delete(v.good, v.order[v.next])
		v.order[v.next] = key
		v.next = (v.next + 1) % maxVetted
	}
	v.good[key] = m
}

// look decodes what somebody says of a member and does all that costs no signature: m is the member where its signatures are known to be good. The key is the one to remember them by.
func (n *node) look(raw []byte, now time.Time) (d *description, boot trusted, key [32]byte, m *Member, err error) {
	if d, err = decodeDescription(raw); err != nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	name := d.admission.peers[0]
	var old *Member
	if i, known := findMember(n.members, name); known {
		old = n.members[i]
	}
	switch {
	case n.settings.bans(d.admission.peers):
		err = CodeBanned
	case old == nil && len(n.members) >= maxMembers:
		err = CodeFull
	case old != nil && d.serial.Before(old.serial):
		err = fmt.Errorf("description of %s is older than the one known", old.Name)
	case old != nil && d.serial.Equal(old.serial) && d.addr == old.Addr && string(d.admission.spki) == old.spki:
		m = old
	case name != n.self.name:
		err = n.placed(d)
	}
	if err != nil || m != nil {
		return
	}
	if boot, err = d.plausible(n.trusted, now); err != nil {
		return
	}
	key = vettedKey(raw, boot)
	m = n.vetted.good[key]
	return
}

// recall returns the member that a description is of where it has been verified before. memberlist asks under its lock, behind which everything of it waits.
func (n *node) recall(raw []byte) (*Member, error) {
	_, _, _, m, err := n.look(raw, n.now())
	if err == nil && m == nil {
		err = errUnvetted
	}
	return m, err
}

// judge verifies what `by` says of a member. A description that does not verify is charged to it, one that verifies to the member that has described itself anew. It
// changes nothing else.
func (n *node) judge(raw []byte, by learn.PeerID) (*Member, error) {
	now := n.now()
	d, boot, key, m, err := n.look(raw, now)
	if err != nil || m != nil {
		return m, err
	}
	name := d.admission.peers[0]
	if err := n.mayVerify(name, by, now); err != nil {
		return nil, err
	}
	if m, err = d.verify(boot); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forging.giveBack(by, 1)
	n.changing.take(name, now, changedBurst, changedRate, 1)
	n.vetted.add(key, m)
	return m, nil
}

// mayVerify says why a description of name that comes from `by` is not worth its signatures.
func (n *node) mayVerify(name, by learn.PeerID, now time.Time) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if k := n.changing.m[name]; k != nil { // names that do not verify get no budget of their own
		if k.fill(now); k.level < 1 {
			return errChanging
		}
	}
	if !n.forging.take(by, now, forgedBurst, forgedRate, 1) {
		return errForging
	}
	n.count.MembersVerified++
	return nil
}

// mayForge takes one from what a member may pass on that does not verify; who finds that it does gives it back.
func (n *node) mayForge(by learn.PeerID, now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.forging.take(by, now, forgedBurst, forgedRate, 1)
}

func (n *node) noForgery(by learn.PeerID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forging.giveBack(by, 1)
}
