package ring

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"imeproxy/ucime/learn"
)

const (
	retryAfter   = 30 * time.Second // a holder that did not answer or had no room for us now
	refusedAfter = 10 * time.Minute // a holder that refused a record for good reason
	waitLimit    = 10 * time.Minute // a number that waits longer for a holder makes the health yellow
	hashBatch    = 64               // numbers hashed in one step, a millisecond each
	storeBatch   = 2048             // records sent in one step
)

// publication is a number of ours and where it lies.
type publication struct {
	number learn.Number
	owner  learn.PeerID
	slot   uint32
	hashed bool // sec and seats count
	sec    secrets
	seats  []seat
	at     map[learn.PeerID]*copyAt
	raw    []byte // the record as signed last
	issued time.Time
	ends   time.Time
	renew  time.Time
}

// copyAt is a publication's copy with one holder.
type copyAt struct {
	issued  time.Time // of the record it has
	ends    time.Time
	next    time.Time // not to be asked before
	waiting time.Time // since when it should have a newer one; zero: it has
}

// QuotaError says that numbers were left out because the licence's peer IDs may publish no more (alert IMEOverQuota).
type QuotaError struct {
	Quota, Asked int // numbers
}

func (e *QuotaError) Error() string {
	return fmt.Sprintf("%d numbers to publish, the quota is %d: ask for a licence with more peer IDs, or enrol fewer", e.Asked, e.Quota)
}

// quota is how many numbers we may publish; before settings are known, none is sent, and as many as a ring could ever allow are taken.
func (n *node) quota() int {
	per := uint32(maxQuota)
	if n.settings != nil {
		per = n.settings.StorageQuota
	}
	return int(per) * len(n.self.peers)
}

// publish takes numbers up; those that we have already count once. What does not fit the quota is said, and waits for room.
func (n *node) publish(numbers []learn.Number) error {
	for _, x := range numbers {
		if !x.Valid() {
			return fmt.Errorf("%q is no number in +E.164 form", x)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, x := range numbers {
		if n.pubs[x] != nil {
			continue
		}
		n.left[x] = true
	}
	n.fill()
	n.changed()
	if len(n.left) > 0 {
		return &QuotaError{Quota: n.quota(), Asked: len(n.pubs) + len(n.left)}
	}
	return nil
}

// fill takes up numbers that wait for room in the quota.
func (n *node) fill() {
	for x := range n.left {
		if len(n.pubs) >= n.quota() {
			return
		}
		delete(n.left, x)
		p := &publication{number: x, at: map[learn.PeerID]*copyAt{}}
		n.seatSlot(p)
		n.pubs[x] = p
	}
}

// seatSlot gives p the lowest free slot of the peer ID of ours that has the fewest.
func (n *node) seatSlot(p *publication) {
	p.owner = n.self.peers[0]
	for _, id := range n.self.peers {
		if len(n.slots[id]) < len(n.slots[p.owner]) {
			p.owner = id
		}
	}
	used := n.slots[p.owner]
	if used == nil {
		used = map[uint32]bool{}
		n.slots[p.owner] = used
	}
	for p.slot = uint32(len(used)); used[p.slot]; p.slot = (p.slot + 1) % (uint32(len(used)) + 1) {
	}
	used[p.slot] = true
}

// unpublish withdraws numbers, from the holders that have them too.
func (n *node) unpublish(numbers []learn.Number) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, x := range numbers {
		delete(n.left, x)
		if p := n.pubs[x]; p != nil {
			n.withdraw(p)
		}
	}
	n.fill()
	n.changed()
}

func (n *node) withdraw(p *publication) {
	delete(n.pubs, p.number)
	delete(n.slots[p.owner], p.slot)
	now := n.now()
	for name, c := range p.at {
		if c.ends.After(now) {
			n.removals[name] = append(n.removals[name], removal{p.owner, p.sec.hash})
		}
	}
}

// trim withdraws what a quota that shrank no longer allows, slots at or above it; the numbers wait for room.
func (n *node) trim() {
	for x, p := range n.pubs {
		if p.slot >= n.settings.StorageQuota {
			n.withdraw(p)
			n.left[x] = true
		}
	}
}

// job is one request to one holder.
type job struct {
	to   *Member
	kind uint8
	body []byte
	pubs []*publication // of a STORE, in the order of its records
	sent []time.Time    // their issues
	ends []time.Time
}

// step does what is due: hashes numbers, stores and removes records, at most `parallel` requests at once, and returns
// how many requests it made. Call it again and again; it returns at the latest with ctx.
func (n *node) step(ctx context.Context, call caller, parallel int) int {
	n.hashSome()
	jobs := n.work()
	slots := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	for _, j := range jobs {
		slots <- struct{}{}
		wg.Go(func() {
			body, err := call(ctx, j.to, j.kind, j.body)
			n.done(j, body, err)
			<-slots
		})
	}
	wg.Wait()
	return len(jobs)
}

// hashSome hashes numbers outside of the lock, for it is made to be slow.
func (n *node) hashSome() {
	n.mu.Lock()
	s := n.settings
	var todo []learn.Number
	for x, p := range n.pubs {
		if s != nil && !p.hashed && len(todo) < hashBatch {
			todo = append(todo, x)
		}
	}
	n.mu.Unlock()
	for _, x := range todo {
		sec, err := derive(x, s.Key, s.HashCost)
		if err != nil {
			continue // the settings were checked: cannot be
		}
		n.mu.Lock()
		if p := n.pubs[x]; p != nil && n.settings == s {
			p.sec, p.hashed, p.raw = sec, true, nil
			p.seats = best(n.members, sec.hash, copies)
		}
		n.mu.Unlock()
	}
}

// work collects what has to be sent now and marks it as tried.
func (n *node) work() []job {
	now := n.now()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.banned || n.admission == nil || n.settings == nil {
		return nil
	}
	var jobs []job
	open := map[learn.PeerID]int{}
	sizes := map[learn.PeerID]int{}
	records := map[int][][]byte{}
	total := 0
	for _, p := range n.pubs {
		if !p.hashed || total >= storeBatch {
			continue
		}
		if p.raw == nil || !now.Before(p.renew) {
			if err := n.issue(p, now); err != nil {
				continue
			}
		}
		for _, s := range p.seats {
			c := p.at[s.m.Name]
			if c == nil {
				c = &copyAt{}
				p.at[s.m.Name] = c
			}
			if c.issued.Equal(p.issued) {
				continue
			}
			if c.waiting.IsZero() {
				c.waiting = now
			}
			if now.Before(c.next) {
				continue
			}
			c.next = now.Add(retryAfter)
			i, ok := open[s.m.Name]
			if !ok || len(jobs[i].pubs) >= maxStoreBatch || sizes[s.m.Name]+len(p.raw)+2 > maxBody-2 {
				i = len(jobs)
				open[s.m.Name], sizes[s.m.Name] = i, 0
				jobs = append(jobs, job{to: s.m, kind: typeStore})
			}
			j := &jobs[i]
			j.pubs, j.sent, j.ends = append(j.pubs, p), append(j.sent, p.issued), append(j.ends, p.ends)
			records[i] = append(records[i], p.raw)
			sizes[s.m.Name] += len(p.raw) + 2
			total++
		}
	}
	for i, list := range records {
		jobs[i].body = putList(list)
	}
	for name, list := range n.removals {
		if i, ok := findMember(n.members, name); ok {
			k := min(len(list), maxRemoveBatch)
			jobs = append(jobs, job{to: n.members[i], kind: typeRemove, body: putRemovals(list[:k])})
			n.removals[name] = list[k:]
		}
		if len(n.removals[name]) == 0 {
			delete(n.removals, name) // tried once; what is lost expires
		}
	}
	return jobs
}

// issue signs a record anew for p; the holders get it because it is newer than theirs.
func (n *node) issue(p *publication, now time.Time) error {
	now = now.Truncate(time.Millisecond)
	if !now.After(p.issued) {
		now = p.issued.Add(time.Millisecond)
	}
	r := &record{owner: p.owner, hash: p.sec.hash, slot: p.slot, issued: now, expires: now.Add(lifetime), cert: n.self.print}
	if err := r.sealClaim(p.sec.seal, n.validator); err != nil {
		return err
	}
	var err error
	if r.signature, err = sign(n.signer, "record", r.signed()); err != nil {
		return err
	}
	p.raw, p.issued, p.ends = r.encode(), r.issued, r.expires
	p.renew = now.Add(time.Duration(float64(lifetime) / 2 * (0.9 + 0.2*rand.Float64())))
	n.count.Stores++
	if len(p.at) > 16 { // members that held it once
		for name, c := range p.at {
			if !c.ends.After(now) && !seated(p.seats, name) {
				delete(p.at, name)
			}
		}
	}
	return nil
}

// done notes what came of a job.
func (n *node) done(j job, body []byte, err error) {
	if j.kind != typeStore {
		return
	}
	var list []byte
	if err == nil {
		r := reader{b: body}
		list = r.take(int(r.u16()))
		if err = r.end(); err == nil && len(list) != len(j.pubs) {
			err = errShort
		}
	}
	now := n.now()
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, p := range j.pubs {
		c := p.at[j.to.Name]
		if c == nil {
			continue
		}
		if err != nil {
			n.count.StoresFailed++
			continue
		}
		switch code := Code(list[i]); code {
		case CodeOK:
			c.issued, c.ends = j.sent[i], j.ends[i]
			if c.issued.Equal(p.issued) {
				c.waiting = time.Time{}
			}
			c.next = time.Time{}
		default:
			n.count.StoresFailed++
			// A holder that has not heard of new settings yet goes by the former quota.
			early := (code == CodeSlot || code == CodeQuota) && now.Sub(n.settledAt) < refusedAfter
			if code != CodeThrottled && code != CodePlace && code != CodeNotAdmitted && !early {
				c.next = now.Add(refusedAfter)
			}
		}
	}
	n.changed()
}
