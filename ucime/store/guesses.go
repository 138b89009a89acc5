package store

import (
	"encoding/binary"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"imeproxy/ucime/learn"
)

// guessKey names what a peer has spent against a VCR that came in.
func guessKey(n uint64, peer learn.PeerID) []byte { return append(id(n), peer[:]...) }

// Spend adds one run of a peer against each VCR to what it has spent, and returns once that is durable. It writes as much for no VCR as for one:
// who waits for it must not learn whether there was any. When there are too many entries, those of the oldest VCR go.
func (s *Store) Spend(vcrs []uint64, peer learn.PeerID) error {
	err := s.update(func(tx *bolt.Tx, after *sizes) error {
		b, meta := tx.Bucket(bGuess), tx.Bucket(bMeta)
		if err := meta.Put(kRuns, id(runs(meta.Get(kRuns))+1)); err != nil {
			return err
		}
		for _, n := range vcrs {
			key := guessKey(n, peer)
			was := b.Get(key)
			if was == nil {
				if after.guesses >= s.limits.Guesses {
					if err := s.forgetOldest(b, after); err != nil {
						return err
					}
				}
				after.guesses++
			}
			if err := b.Put(key, id(runs(was)+1)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("store the guesses of a peer: %w", err)
	}
	return nil
}

// GiveBack takes one run of a peer off each VCR.
func (s *Store) GiveBack(vcrs []uint64, peer learn.PeerID) error {
	err := s.update(func(tx *bolt.Tx, after *sizes) error {
		b := tx.Bucket(bGuess)
		for _, n := range vcrs {
			key := guessKey(n, peer)
			was := b.Get(key)
			if was == nil {
				continue
			}
			if left := runs(was) - 1; left > 0 && left < 1<<32 {
				if err := b.Put(key, id(left)); err != nil {
					return err
				}
				continue
			}
			if err := b.Delete(key); err != nil {
				return err
			}
			after.guesses--
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("give the guesses of a peer back: %w", err)
	}
	return nil
}

// EachSpent gives what peers have spent, the oldest VCR's first; f must not call the Store.
func (s *Store) EachSpent(f func(vcr uint64, peer learn.PeerID, runs int) error) error {
	return s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bGuess).ForEach(func(k, v []byte) error {
			var peer learn.PeerID
			if len(k) != 8+len(peer) || len(v) != 8 {
				return fmt.Errorf("guess %x: %w", k, ErrDamaged)
			}
			copy(peer[:], k[8:])
			return f(binary.BigEndian.Uint64(k), peer, int(min(runs(v), 1<<20)))
		})
	})
}

func runs(v []byte) uint64 {
	if len(v) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(v)
}

// forgetOldest removes the entries of the VCR with the lowest number.
func (s *Store) forgetOldest(b *bolt.Bucket, after *sizes) error {
	k, _ := b.Cursor().First()
	if len(k) < 8 {
		return errors.New("no guess can give way")
	}
	return forgetGuesses(b, binary.BigEndian.Uint64(k), after)
}

// forgetGuesses removes what has been spent against a VCR that is gone, or proven.
func forgetGuesses(b *bolt.Bucket, n uint64, after *sizes) error {
	c := b.Cursor()
	for k, _ := c.Seek(id(n)); k != nil && binary.BigEndian.Uint64(k) == n; k, _ = c.Seek(id(n)) {
		if err := c.Delete(); err != nil {
			return err
		}
		after.guesses--
	}
	return nil
}
