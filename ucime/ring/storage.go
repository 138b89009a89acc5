package ring

import (
	"slices"
	"time"

	"imeproxy/ucime/learn"
)

const (
	maxClaims      = 32        // members that may claim one number
	defaultRecords = 1_000_000 // records that a holder keeps
)

// storage is what a holder holds. Not for concurrent use.
type storage struct {
	most   int
	byHash map[Hash][]*held
	use    map[learn.PeerID]map[uint32]Hash // slots that a peer ID has here
	certs  map[[32]byte]*heldCert
	n      int
	bytes  int // of records and certificates
}

type held struct {
	rec    *record
	raw    []byte
	member learn.PeerID // name of the owner's server
	cert   *heldCert
}

type heldCert struct {
	der  []byte
	uses int
}

func newStorage(most int) storage {
	return storage{most: most, byHash: map[Hash][]*held{}, use: map[learn.PeerID]map[uint32]Hash{}, certs: map[[32]byte]*heldCert{}}
}

// bounds are what a record is measured by.
type bounds struct {
	now     time.Time
	quota   uint32
	limit   int               // of one peer ID with this holder
	inPlace func(h Hash) bool // costs a look at every member: asked for new records only
}

// put keeps a record that came over p's own connection, or says why not and changes nothing. The order of the checks is that
// of docs/protocol/ring.md: what is dear comes last.
func (s *storage) put(raw []byte, p *party, b bounds) Code {
	x, err := decodeRecord(raw)
	if err != nil {
		return CodeMalformed
	}
	if !slices.Contains(p.peers, x.owner) {
		return CodeNotOwner
	}
	if !x.expires.After(b.now) || x.issued.After(b.now.Add(clockSkew)) || x.expires.Sub(x.issued) > lifetime {
		return CodeTime
	}
	if x.slot >= b.quota {
		return CodeSlot
	}
	var gone []*held // what x takes the place of
	for _, h := range s.byHash[x.hash] {
		if h.member != p.name {
			continue
		}
		if !x.issued.After(h.rec.issued) {
			if h.rec.owner == x.owner && h.rec.issued.Equal(x.issued) {
				return CodeOK // sent twice
			}
			return CodeOld
		}
		gone = append(gone, h)
	}
	if other, ok := s.use[x.owner][x.slot]; ok && other != x.hash {
		h := s.find(x.owner, other)
		if !x.issued.After(h.rec.issued) {
			return CodeSlot
		}
		gone = append(gone, h)
	}
	if len(gone) == 0 && !b.inPlace(x.hash) {
		return CodePlace
	}
	freed, here := 0, 0
	for _, h := range gone {
		if h.rec.owner == x.owner {
			freed++
		}
		if h.rec.hash == x.hash {
			here++
		}
	}
	if len(s.use[x.owner])-freed >= b.limit {
		return CodeQuota
	}
	if s.n-len(gone) >= s.most || len(s.byHash[x.hash])-here >= maxClaims {
		return CodeFull
	}
	if x.cert != p.print || !verify(p.key, "record", x.signed(), x.signature) {
		return CodeSignature
	}
	for _, h := range gone {
		s.drop(h)
	}
	s.add(&held{rec: x, raw: slices.Clone(raw), member: p.name}, p)
	return CodeOK
}

func (s *storage) find(owner learn.PeerID, hash Hash) *held {
	for _, h := range s.byHash[hash] {
		if h.rec.owner == owner {
			return h
		}
	}
	return nil
}

func (s *storage) add(h *held, p *party) {
	c := s.certs[p.print]
	if c == nil {
		c = &heldCert{der: p.cert}
		s.certs[p.print] = c
		s.bytes += len(c.der)
	}
	c.uses++
	h.cert = c
	s.byHash[h.rec.hash] = append(s.byHash[h.rec.hash], h)
	if s.use[h.rec.owner] == nil {
		s.use[h.rec.owner] = map[uint32]Hash{}
	}
	s.use[h.rec.owner][h.rec.slot] = h.rec.hash
	s.n++
	s.bytes += len(h.raw)
}

func (s *storage) drop(h *held) {
	list := s.byHash[h.rec.hash]
	if i := slices.Index(list, h); i >= 0 {
		list = slices.Delete(list, i, i+1)
	}
	if s.byHash[h.rec.hash] = list; len(list) == 0 {
		delete(s.byHash, h.rec.hash)
	}
	if u := s.use[h.rec.owner]; u != nil {
		if delete(u, h.rec.slot); len(u) == 0 {
			delete(s.use, h.rec.owner)
		}
	}
	if h.cert.uses--; h.cert.uses == 0 {
		delete(s.certs, h.rec.cert)
		s.bytes -= len(h.cert.der)
	}
	s.n--
	s.bytes -= len(h.raw)
}

// remove takes out what the owner withdraws.
func (s *storage) remove(owner learn.PeerID, hash Hash) {
	if h := s.find(owner, hash); h != nil {
		s.drop(h)
	}
}

// read returns the claims for a hash with the certificates of their signers.
func (s *storage) read(hash Hash, now time.Time) found {
	var f found
	seen := map[*heldCert]bool{}
	size := 2
	for _, h := range s.byHash[hash] {
		if !h.rec.expires.After(now) {
			continue
		}
		if size += len(h.raw) + len(h.cert.der) + 4; size > maxBody {
			break
		}
		f.records = append(f.records, h.raw)
		if !seen[h.cert] {
			seen[h.cert] = true
			f.certs = append(f.certs, h.cert.der)
		}
	}
	return f
}

// dropIf takes out all records that f picks: expired ones, those of banned owners.
func (s *storage) dropIf(f func(*held) bool) (n int) {
	var out []*held
	for _, list := range s.byHash {
		for _, h := range list {
			if f(h) {
				out = append(out, h)
			}
		}
	}
	for _, h := range out {
		s.drop(h)
	}
	return len(out)
}
