package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"imeproxy/ucime/learn"
)

// Upload is a VCR as a service's call agent has uploaded it.
type Upload struct {
	Service string
	VCR     learn.VCR
}

// hash tells equal records: those of one call, uploaded for one service.
func (u Upload) hash() []byte {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%d\x00%s\x00%s\x00%d\x00%d", u.Service, u.VCR.Role, u.VCR.Called, u.VCR.Caller, u.VCR.Start.UnixMilli(), u.VCR.Stop.UnixMilli())
	return h.Sum(nil)[:16]
}

func stamp(t time.Time) []byte { return binary.BigEndian.AppendUint64(nil, uint64(t.Unix())) }

// Incoming is a stored VCR of a call that came in.
type Incoming struct {
	ID     uint64
	VCR    learn.VCR
	Proven bool
	By     learn.PeerID // who has proven it
}

// sizes are those of the tables, so that no write has to count.
type sizes struct{ incoming, routes, notices, seen, outgoing, guesses int }

func (s *Store) count(tx *bolt.Tx) error {
	n := func(b []byte) int { return tx.Bucket(b).Stats().KeyN }
	s.sizes = sizes{n(bIncoming), n(bRoute), n(bNotice), n(bIncomingSeen), n(bOutgoing), n(bGuess)}
	return nil
}

// update runs a transaction that may change the sizes; they count when it is on the disk.
func (s *Store) update(f func(tx *bolt.Tx, n *sizes) error) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	after := s.sizes
	if err := s.db.Update(func(tx *bolt.Tx) error { return f(tx, &after) }); err != nil {
		return err
	}
	s.sizes = after
	return nil
}

// Uploaded says which of the VCRs of calls that went out were stored before.
func (s *Store) Uploaded(all []Upload) (seen []bool, err error) {
	seen = make([]bool, len(all))
	err = s.db.View(func(tx *bolt.Tx) error {
		for i, u := range all {
			seen[i] = tx.Bucket(bOutgoing).Get(u.hash()) != nil
		}
		return nil
	})
	return seen, err
}

// AddIncoming stores VCRs of calls that came in. Those that were stored before are left out of what it returns; evicted are IDs of the oldest, which gave way.
func (s *Store) AddIncoming(now time.Time, all []Upload) (added []Incoming, evicted []uint64, err error) {
	err = s.update(func(tx *bolt.Tx, after *sizes) error {
		added, evicted = nil, nil
		b, seen := tx.Bucket(bIncoming), tx.Bucket(bIncomingSeen)
		for _, u := range all {
			h := u.hash()
			if seen.Get(h) != nil {
				continue
			}
			for after.incoming >= s.limits.Incoming {
				k, _ := b.Cursor().First()
				evicted = append(evicted, binary.BigEndian.Uint64(k))
				if err := errors.Join(b.Delete(k), forgetGuesses(tx.Bucket(bGuess), evicted[len(evicted)-1], after)); err != nil {
					return err
				}
				after.incoming--
			}
			n, err := b.NextSequence()
			if err != nil {
				return err
			}
			in := Incoming{ID: n, VCR: u.VCR}
			if err := put(b, id(n), in); err != nil {
				return err
			}
			if err := s.remember(seen, &after.seen, h, now); err != nil {
				return err
			}
			after.incoming++
			added = append(added, in)
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("store records: %w", err)
	}
	return added, evicted, nil
}

// Prove marks a VCR as proven; false: it is gone, or was proven before.
func (s *Store) Prove(n uint64, by learn.PeerID) (ok bool, err error) {
	err = s.update(func(tx *bolt.Tx, after *sizes) error {
		ok = false
		b := tx.Bucket(bIncoming)
		data := b.Get(id(n))
		if data == nil {
			return nil
		}
		var in Incoming
		if err := json.Unmarshal(data, &in); err != nil {
			return err
		}
		if in.Proven {
			return nil
		}
		in.Proven, in.By, ok = true, by, true
		if err := forgetGuesses(tx.Bucket(bGuess), n, after); err != nil {
			return err
		}
		return put(b, id(n), in)
	})
	if err != nil {
		return false, fmt.Errorf("mark record %d as proven: %w", n, err)
	}
	return ok, nil
}

// EachIncoming gives the VCRs of calls that came in, the oldest first; f must not call the Store.
func (s *Store) EachIncoming(f func(Incoming) error) error {
	return s.db.View(func(tx *bolt.Tx) error {
		return each(tx, bIncoming, func(_ []byte, in Incoming) error { return f(in) })
	})
}

// Expire removes VCRs of calls that ended before a time, the hashes of uploads that are old, and routes that have ended; of these the call agents are told. It says how
// many went.
func (s *Store) Expire(now, before time.Time) (vcrs, routes int, err error) {
	err = s.update(func(tx *bolt.Tx, after *sizes) error {
		vcrs, routes = 0, 0
		var old [][]byte
		if err := each(tx, bIncoming, func(k []byte, in Incoming) error {
			if in.VCR.Stop.Before(before) {
				old = append(old, append([]byte(nil), k...))
			}
			return nil
		}); err != nil {
			return err
		}
		for _, k := range old {
			if err := errors.Join(tx.Bucket(bIncoming).Delete(k), forgetGuesses(tx.Bucket(bGuess), binary.BigEndian.Uint64(k), after)); err != nil {
				return err
			}
		}
		vcrs = len(old)
		after.incoming -= vcrs
		for b, size := range map[string]*int{string(bIncomingSeen): &after.seen, string(bOutgoing): &after.outgoing} {
			if err := forget(tx.Bucket([]byte(b)), now.Add(-s.limits.Seen), size); err != nil {
				return err
			}
		}
		n, err := s.endRoutes(tx, now, after)
		routes = n
		return err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("remove what is old: %w", err)
	}
	return vcrs, routes, nil
}

// remember keeps a hash. When there are too many the oldest tenth goes at once: to find the oldest, all have to be read.
func (s *Store) remember(b *bolt.Bucket, size *int, hash []byte, now time.Time) error {
	if b.Get(hash) == nil {
		if *size >= s.limits.Hashes {
			type old struct{ stamp, hash []byte }
			var all []old
			if err := b.ForEach(func(k, v []byte) error {
				all = append(all, old{bytes.Clone(v), bytes.Clone(k)})
				return nil
			}); err != nil {
				return err
			}
			slices.SortFunc(all, func(x, y old) int { return bytes.Compare(x.stamp, y.stamp) })
			for _, o := range all[:len(all)/10+1] {
				if err := b.Delete(o.hash); err != nil {
					return err
				}
				*size--
			}
		}
		*size++
	}
	return b.Put(hash, stamp(now))
}

// forget removes hashes with a stamp before a time.
func forget(b *bolt.Bucket, before time.Time, size *int) error {
	var old [][]byte
	if err := b.ForEach(func(k, v []byte) error {
		if len(v) != 8 || int64(binary.BigEndian.Uint64(v)) < before.Unix() {
			old = append(old, append([]byte(nil), k...))
		}
		return nil
	}); err != nil {
		return err
	}
	for _, k := range old {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	*size -= len(old)
	return nil
}
