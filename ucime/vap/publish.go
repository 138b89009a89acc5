package vap

import (
	"math"
	"slices"
)

// publication is a service as its user's clients have published it. Guarded by Server.mu, and changed only with Server.pubMu held as well.
type publication struct {
	key        Key
	service    Service
	version    uint32
	by         *conn // who gave version; nil after it went
	numbers    *Numbers
	pages      map[uint16]*heldPage
	publishers map[*conn]struct{} // registrations that have published it; none: held
	confirmed  bool               // published again since it was held
	stop       func() bool        // of the hold timer; nil: none
	holds      int                // how often it was held: tells a late timer from the present one
}

type heldPage struct {
	with, without []span // merged
	version       uint32
	by            *conn
	confirmed     bool
}

func (p *publication) disarm() {
	if p.stop != nil {
		p.stop()
		p.stop = nil
	}
}

// collect is the set of all pages, with one of them replaced (or removed, nil).
func (p *publication) collect(sub uint16, by *heldPage) *Numbers {
	var with, without []span
	for n, pg := range p.pages {
		if n != sub {
			with, without = append(with, pg.with...), append(without, pg.without...)
		}
	}
	if by != nil {
		with, without = append(with, by.with...), append(without, by.without...)
	}
	return newNumbers(subtract(merge(with), merge(without)))
}

// noPage is no page's number.
const noPage = MaxPages

// unique counts the numbers of all services, with one service's replaced.
func (s *Server) unique(key Key, numbers *Numbers) uint64 {
	if len(s.pubs) == 0 || len(s.pubs) == 1 && s.pubs[key] != nil {
		return numbers.Count()
	}
	sets := []*Numbers{numbers}
	for k, p := range s.pubs {
		if k != key {
			sets = append(sets, p.numbers)
		}
	}
	return Union(sets...).Count()
}

func clamp(n uint64) uint32 { return uint32(min(n, math.MaxUint32)) }

func (c *conn) doPublish(m *message) (*message, func(), error) {
	if err := m.need(attrIdentity, attrServiceVersion, attrServiceData); err != nil {
		return nil, nil, err
	}
	id, err := m.identity(MaxPages)
	if err != nil {
		return nil, nil, err
	}
	c.s.pubMu.Lock()
	defer c.s.pubMu.Unlock()
	err = c.stands()
	switch {
	case err != nil:
	case id.service == serviceItself:
		err = c.publishService(id, m)
	default:
		err = c.publishPage(id, m)
	}
	if err != nil {
		c.s.count.publishRefused.Add(1)
		return nil, nil, err
	}
	c.s.count.published.Add(1)
	c.s.mu.Lock()
	quota := Quota{clamp(c.s.total), c.s.quota}
	c.s.mu.Unlock()
	return m.answer().put(attrIdentity, m.get(attrIdentity)).put(attrServiceVersion, m.get(attrServiceVersion)).put(attrQuota, quota.bytes()), nil, nil
}

// stands refuses changes under a registration that has given way, with pubMu held: what had been sent before its client came back by another
// connection may be read only now, and must not undo what was published by that one.
func (c *conn) stands() error {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.leaving {
		return &Error{Code: CodeUnregistered}
	}
	return nil
}

// publishService makes or changes a service, with pubMu held.
func (c *conn) publishService(id identity, m *message) error {
	service, err := readService(id.id, m.get(attrServiceData))
	if err != nil {
		return err
	}
	s, key, version := c.s, Key{c.user, id.id}, m.u32(attrServiceVersion)
	s.mu.Lock()
	old := s.pubs[key]
	p := &publication{key: key, numbers: NewNumbers(nil, nil), pages: map[uint16]*heldPage{}, publishers: map[*conn]struct{}{}}
	known := 0
	for k := range s.pubs {
		if k.User == c.user {
			known++
		}
	}
	switch {
	case old != nil:
		p = old
		if p.by == c && version <= p.version {
			err = &Error{Code: CodeVersionTooLow}
		} else if n := p.numbers.Count(); n > uint64(service.MaxDIDs) {
			err = &Error{Code: CodeQuota, Reason: "more numbers than didcount", Quota: &Quota{clamp(n), service.MaxDIDs}}
		}
	case known >= MaxServices:
		err = fail(CodeQuota, "%d services of one user", known)
	}
	same := old != nil && sameService(old.service, service)
	numbers := p.numbers
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if !same {
		if err := s.cfg.Handler.Published(s.ctx, Publication{key, service, numbers}); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.service, p.version, p.by, p.confirmed = service, version, c, true
	p.publishers[c] = struct{}{}
	s.pubs[key] = p
	return nil
}

func sameService(a, b Service) bool {
	return a.Name == b.Name && a.Overlay == b.Overlay && a.Domain == b.Domain && a.MaxDIDs == b.MaxDIDs && slices.Equal(a.URIs, b.URIs) &&
		a.Trust.Trusted == b.Trust.Trusted && slices.Equal(a.Trust.Domains, b.Trust.Domains) && slices.Equal(a.Trust.Prefixes, b.Trust.Prefixes)
}

// publishPage replaces a page of a service's numbers, with pubMu held.
func (c *conn) publishPage(id identity, m *message) error {
	content, err := readPage(m.get(attrServiceData))
	if err != nil {
		return err
	}
	s, key := c.s, Key{c.user, id.id}
	pg := &heldPage{with: merge(spansOf(content.patterns)), without: merge(spansOf(content.exclude)), version: m.u32(attrServiceVersion), by: c, confirmed: true}
	s.mu.Lock()
	p := s.pubs[key]
	if p == nil {
		s.mu.Unlock()
		return &Error{Code: CodeUnknownService}
	}
	if old := p.pages[id.sub]; old != nil && old.by == c && pg.version <= old.version {
		s.mu.Unlock()
		return &Error{Code: CodeVersionTooLow}
	}
	service, before := p.service, p.numbers
	s.mu.Unlock()
	numbers, total, err := s.weigh(p, id.sub, pg)
	if err != nil {
		return err
	}
	if !numbers.Equal(before) {
		if err := s.cfg.Handler.Published(s.ctx, Publication{key, service, numbers}); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.pages[id.sub], p.numbers, s.total = pg, numbers, total
	p.publishers[c] = struct{}{}
	return nil
}

// weigh computes what a page makes of a service's numbers and holds it against didcount and quota. With pubMu held nothing else changes
// publications, so that the sums need no lock.
func (s *Server) weigh(p *publication, sub uint16, pg *heldPage) (*Numbers, uint64, error) {
	numbers := p.collect(sub, pg)
	total := s.unique(p.key, numbers)
	s.mu.Lock()
	quota, before := s.quota, s.total
	s.mu.Unlock()
	if n := numbers.Count(); n > uint64(p.service.MaxDIDs) {
		s.count.overQuota.Add(1)
		return nil, 0, &Error{Code: CodeQuota, Reason: "more numbers than didcount", Quota: &Quota{clamp(n), p.service.MaxDIDs}}
	}
	if total > uint64(quota) && total > before {
		q := Quota{clamp(total), quota}
		s.count.overQuota.Add(1)
		s.log.Warn("VAP over quota", "user", p.key.User, "service", p.key.Service, "current", q.Current, "target", q.Target)
		if s.cfg.OnOverQuota != nil {
			s.cfg.OnOverQuota(q)
		}
		return nil, 0, &Error{Code: CodeQuota, Reason: "VAP over quota", Quota: &q}
	}
	return numbers, total, nil
}

func (c *conn) doUnpublish(m *message) (*message, func(), error) {
	if err := m.need(attrIdentity); err != nil {
		return nil, nil, err
	}
	id, err := m.identity(MaxPages)
	if err != nil {
		return nil, nil, err
	}
	s := c.s
	s.pubMu.Lock()
	defer s.pubMu.Unlock()
	if err := c.stands(); err != nil {
		return nil, nil, err
	}
	key := Key{c.user, id.id}
	s.mu.Lock()
	p := s.pubs[key]
	known := p != nil && (id.service == serviceItself || p.pages[id.sub] != nil)
	s.mu.Unlock()
	switch {
	case !known:
		return nil, nil, &Error{Code: CodeUnknownService}
	case id.service == serviceItself:
		s.drop(p)
	default:
		if err := s.dropPages(p, func(sub uint16, _ *heldPage) bool { return sub == id.sub }); err != nil {
			return nil, nil, err
		}
	}
	return m.answer().put(attrIdentity, m.get(attrIdentity)), nil, nil
}

// drop ends a service, with pubMu held.
func (s *Server) drop(p *publication) {
	total := s.unique(p.key, nil)
	s.mu.Lock()
	p.disarm()
	delete(s.pubs, p.key)
	s.total = total
	s.mu.Unlock()
	s.cfg.Handler.Unpublished(s.ctx, p.key)
}

// dropPages takes pages off a service, with pubMu held. An error of the handler leaves them.
func (s *Server) dropPages(p *publication, which func(uint16, *heldPage) bool) error {
	rest := &publication{pages: map[uint16]*heldPage{}}
	for sub, pg := range p.pages {
		if !which(sub, pg) {
			rest.pages[sub] = pg
		}
	}
	numbers := rest.collect(noPage, nil)
	total := s.unique(p.key, numbers)
	if !numbers.Equal(p.numbers) {
		if err := s.cfg.Handler.Published(s.ctx, Publication{p.key, p.service, numbers}); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.pages, p.numbers, s.total = rest.pages, numbers, total
	return nil
}

// doUnregister withdraws what only this client has published.
func (c *conn) doUnregister(m *message) (*message, func(), error) {
	s := c.s
	s.pubMu.Lock()
	defer s.pubMu.Unlock()
	if c.stands() != nil { // what it has published is the other connection's, or held
		return m.answer(), nil, nil
	}
	for _, p := range s.publishedBy(c) {
		s.mu.Lock()
		delete(p.publishers, c)
		alone := len(p.publishers) == 0
		s.mu.Unlock()
		if alone {
			s.drop(p)
		}
	}
	return m.answer(), nil, nil
}

func (s *Server) publishedBy(c *conn) (list []*publication) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pubs {
		if _, ok := p.publishers[c]; ok {
			list = append(list, p)
		}
	}
	return list
}

// hold starts the hold time of what only this client, which is gone, has published.
func (s *Server) hold(c *conn) {
	s.pubMu.Lock()
	defer s.pubMu.Unlock()
	for _, p := range s.publishedBy(c) {
		s.mu.Lock()
		delete(p.publishers, c)
		if p.by == c {
			p.by = nil
		}
		for _, pg := range p.pages {
			if pg.by == c {
				pg.by = nil
			}
		}
		if len(p.publishers) == 0 && !s.closed {
			p.confirmed = false
			for _, pg := range p.pages {
				pg.confirmed = false
			}
			p.disarm()
			p.holds++
			holds := p.holds
			p.stop = s.clock.After(s.cfg.HoldTime, func() { s.expire(p, holds) })
		}
		s.mu.Unlock()
	}
}

// expire withdraws what was not published again in the hold time.
func (s *Server) expire(p *publication, holds int) {
	s.pubMu.Lock()
	defer s.pubMu.Unlock()
	s.mu.Lock()
	gone := s.closed || s.pubs[p.key] != p || p.holds != holds
	confirmed := p.confirmed
	s.mu.Unlock()
	switch {
	case gone:
	case !confirmed:
		s.count.expired.Add(1)
		s.log.Warn("vap: service withdrawn, its client did not come back", "user", p.key.User, "service", p.key.Service, "name", p.service.Name)
		s.drop(p)
	default:
		if err := s.dropPages(p, func(_ uint16, pg *heldPage) bool { return !pg.confirmed }); err != nil {
			s.log.Error("vap: numbers not withdrawn", "user", p.key.User, "service", p.key.Service, "error", err)
		}
	}
}

// RemovedReason says why a server takes back a service.
type RemovedReason uint32

// The reasons.
const (
	RemovedByNetwork  RemovedReason = 0
	RemovedOverQuota  RemovedReason = 2
	RemovedByOperator RemovedReason = 3
)

// RevokeService takes back a service and tells its clients (PublishRevoke); false when it is not published.
func (s *Server) RevokeService(key Key, why RemovedReason) bool {
	s.pubMu.Lock()
	defer s.pubMu.Unlock()
	s.mu.Lock()
	p := s.pubs[key]
	if p == nil {
		s.mu.Unlock()
		return false
	}
	for c := range p.publishers {
		if _, living := s.conns[c]; !living || c.leaving {
			continue
		}
		m := (&message{method: PublishRevoke}).put(attrIdentity, identity{serviceItself, 0, key.Service}.bytes()).putU32(attrRemovedReason, uint32(why))
		c.tasks.Go(func() {
			if _, err := c.call(m); err != nil {
				s.log.Warn("vap: service taken back, client does not agree", "client", c.remote, "user", key.User, "service", key.Service, "error", err)
			}
		})
	}
	s.mu.Unlock()
	s.drop(p)
	s.count.revoked.Add(1)
	return true
}
