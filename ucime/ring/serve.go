package ring

import (
	"encoding/binary"
	"slices"
	"time"

	"imeproxy/ucime/learn"
)

// session is one member's request connection as its server sees it.
type session struct {
	p     *party
	hello bool // it described itself, and well
}

// serve answers one request. It is what a hostile member gets to talk to.
func (n *node) serve(s *session, kind uint8, body []byte) (uint8, []byte) {
	answer, code := n.answer(s, kind, body)
	if code != CodeOK {
		return typeError, []byte{uint8(code)}
	}
	return kind + answerBit, answer
}

func (n *node) answer(s *session, kind uint8, body []byte) ([]byte, Code) {
	n.mu.Lock()
	bad := n.settings.bans(s.p.named)
	n.mu.Unlock()
	if bad {
		return nil, CodeBanned
	}
	switch {
	case kind == typeAdmit:
		return n.serveAdmit(s.p, body)
	case kind == typeHello:
		m, err := n.judge(body, s.p.name)
		if err != nil || m.Name != s.p.name || m.spki != s.p.spki {
			n.refused()
			return nil, CodeNotAdmitted
		}
		s.hello = true
		return nil, CodeOK
	case !s.hello:
		return nil, CodeNotAdmitted
	}
	switch kind {
	case typePing:
		return nil, CodeOK
	case typeStore:
		return n.serveStore(s.p, body)
	case typeRemove:
		list, err := takeRemovals(body)
		if err != nil {
			return nil, CodeMalformed
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, x := range list {
			if slices.Contains(s.p.peers, x.owner) {
				n.store.remove(x.owner, x.hash)
			}
		}
		n.changed()
		return nil, CodeOK
	case typeRead:
		return n.serveRead(s.p, body)
	}
	return nil, CodeMalformed
}

func (n *node) serveStore(p *party, body []byte) ([]byte, Code) {
	list, err := takeList(body, maxStoreBatch)
	if err != nil {
		return nil, CodeMalformed
	}
	out := binary.BigEndian.AppendUint16(nil, uint16(len(list)))
	for _, raw := range list {
		out = append(out, uint8(n.storeOne(p, raw)))
	}
	return out, CodeOK
}

// storeOne locks for one record only, so that a large batch does not keep others out.
func (n *node) storeOne(p *party, raw []byte) Code {
	now := n.now()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.settings == nil {
		return CodeNotAdmitted
	}
	limit := holderLimit(n.settings.StorageQuota, len(n.members))
	code := CodeThrottled
	most := 2*float64(limit)*float64(len(p.peers)) + maxStoreBatch
	if n.storing.take(p.name, now, most, most/600, 1) {
		code = n.store.put(raw, p, bounds{now: now, quota: n.settings.StorageQuota, limit: limit, inPlace: n.inPlace})
	}
	n.count.StoreResults[code]++
	n.changed()
	return code
}

// inPlace says whether we are among the first six members for a hash. The lock is held.
func (n *node) inPlace(h Hash) bool {
	mine, above := scoreOf(n.self.peers, h), 0
	for _, m := range n.members {
		if m.Name != n.self.name && compareSeats(seat{scoreOf(m.Peers, h), m}, seat{mine, &Member{Name: n.self.name}}) < 0 {
			if above++; above >= places {
				return false
			}
		}
	}
	return true
}

func (n *node) serveRead(p *party, body []byte) ([]byte, Code) {
	r := reader{b: body}
	hash := r.hash()
	if r.end() != nil {
		return nil, CodeMalformed
	}
	now := n.now()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.settings == nil {
		return nil, CodeNotAdmitted
	}
	most := readLimit(n.settings.FailedReads, len(p.peers), len(n.members))
	if k := n.reading.of(p.name, now, most, most/time.Hour.Seconds()); k == nil || k.level < 1 {
		n.count.ReadsThrottled++
		return nil, CodeThrottled
	}
	f := n.store.read(hash, now)
	n.count.ReadsServed++
	if len(f.records) == 0 {
		n.count.ReadsFailed++
		n.reading.take(p.name, now, most, most/time.Hour.Seconds(), 1)
	}
	return f.encode(), CodeOK
}

// serveAdmit is a bootstrap server's decision who joins.
func (n *node) serveAdmit(p *party, body []byte) ([]byte, Code) {
	r := reader{b: body}
	software := r.u32()
	if r.end() != nil {
		return nil, CodeMalformed
	}
	now := n.now()
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.authority || n.settings == nil {
		return nil, CodeNotAdmitted
	}
	if software < n.settings.RequiredVersion {
		return nil, CodeVersion
	}
	if p.bootstrap {
		n.list(p)
	}
	a, err := n.admit(p.peers, p.spki, now)
	if err != nil {
		return nil, CodeNotAdmitted
	}
	t, err := n.makeToken(now)
	if err != nil {
		return nil, CodeNotAdmitted
	}
	return put16(put16(put16(nil, a.encode()), n.raw), t.encode()), CodeOK
}

// admit signs an admission. The lock is held.
func (n *node) admit(peers []learn.PeerID, spki string, now time.Time) (*admission, error) {
	now = now.Truncate(time.Millisecond)
	a := &admission{peers: peers, spki: []byte(spki), issued: now, expires: now.Add(admissionLifetime), bootstrap: n.self.name}
	var err error
	a.signature, err = sign(n.signer, "admission", a.signed())
	return a, err
}
