package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"imeproxy/ucime/learn"
)

// ErrFull says that a table has no room; nothing of the transaction was stored.
var ErrFull = errors.New("the store is full")

const form = "1"

var (
	bMeta, bVCR, bLast, bPool           = []byte("meta"), []byte("engine-vcr"), []byte("engine-last"), []byte("engine-pool")
	bIncoming, bIncomingSeen, bOutgoing = []byte("incoming"), []byte("incoming-seen"), []byte("outgoing-seen")
	bRoute, bNotice, bEnded             = []byte("route"), []byte("notice"), []byte("ended")
	bGuess                              = []byte("guess")
	kForm, kNext, kRuns                 = []byte("form"), []byte("next"), []byte("runs")
)

// Limits of a Store; the zero value of a field means its default.
type Limits struct {
	Incoming int // VCRs of calls that came in: 200,000
	Routes   int // 200,000
	Notices  int // 400,000
	Hashes   int // of uploaded VCRs, for each direction: 200,000
	Guesses  int // pairs of a VCR and a peer that has spent guesses against it: 400,000
	// Seen is how long the hash of an uploaded VCR is kept: 4 days.
	Seen time.Duration
}

func (l Limits) withDefaults() Limits {
	for _, x := range []struct {
		v *int
		d int
	}{{&l.Incoming, 200_000}, {&l.Routes, 200_000}, {&l.Notices, 400_000}, {&l.Hashes, 200_000}, {&l.Guesses, 400_000}} {
		if *x.v == 0 {
			*x.v = x.d
		}
	}
	if l.Seen == 0 {
		l.Seen = 4 * 24 * time.Hour
	}
	return l
}

// Store is an open file.
type Store struct {
	db     *bolt.DB
	limits Limits

	writing sync.Mutex // one transaction that changes sizes at a time
	sizes   sizes
}

// ErrDamaged says that a file cannot be read as the store that it was.
var ErrDamaged = errors.New("the store is damaged: bring a backup back, or move it away, and routes are learned anew")

// Open opens the file, or makes it with mode 0600. It fails when another process has it, when it is of another form, and with ErrDamaged.
func Open(path string, limits Limits) (s *Store, err error) {
	// The library believes what it finds: pages that a cut file lacks are faults of the whole process, and others panics. It cannot be asked to
	// close then, as it may hold its own locks; its descriptor goes with the next garbage collection.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			s, err = nil, fmt.Errorf("%s: %w: %v", path, ErrDamaged, r)
		}
	}()
	return open(path, limits)
}

func open(path string, limits Limits) (*Store, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("%s: another process has the store open", path)
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s := &Store{db: db, limits: limits.withDefaults()}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, b := range [][]byte{bMeta, bVCR, bLast, bPool, bIncoming, bIncomingSeen, bOutgoing, bRoute, bNotice, bEnded, bGuess} {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bMeta)
		if f := meta.Get(kForm); f != nil && string(f) != form {
			return fmt.Errorf("the store has form %q, this program reads %q", f, form)
		}
		return meta.Put(kForm, []byte(form))
	})
	if err == nil {
		err = db.View(s.count)
	}
	if err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// Path is the file.
func (s *Store) Path() string { return s.db.Path() }

// Close waits for transactions and closes the file.
func (s *Store) Close() error { return s.db.Close() }

// Backup writes a consistent copy of the whole store while it is in use.
func (s *Store) Backup(w io.Writer) (n int64, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		n, err = tx.WriteTo(w)
		return err
	})
	return n, err
}

func id(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func put(b *bolt.Bucket, key []byte, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return b.Put(key, data)
}

// each decodes all values of a bucket.
func each[T any](tx *bolt.Tx, bucket []byte, f func(key []byte, v T) error) error {
	return tx.Bucket(bucket).ForEach(func(k, data []byte) error {
		var v T
		if err := json.Unmarshal(data, &v); err != nil {
			return fmt.Errorf("%s %x: %w", bucket, k, err)
		}
		return f(k, v)
	})
}

// State reads the learning state.
func (s *Store) State() (learn.State, error) {
	out := learn.State{Last: map[learn.Number]time.Time{}, Pools: map[learn.PeerID]learn.Pool{}}
	err := s.db.View(func(tx *bolt.Tx) error {
		if n := tx.Bucket(bMeta).Get(kNext); n != nil {
			out.Next = binary.BigEndian.Uint64(n)
		}
		return errors.Join(
			each(tx, bVCR, func(_ []byte, v learn.StateVCR) error { out.Waiting = append(out.Waiting, v); return nil }),
			each(tx, bLast, func(k []byte, t time.Time) error { out.Last[learn.Number(k)] = t; return nil }),
			each(tx, bPool, func(k []byte, p learn.Pool) error {
				peer, err := learn.ParsePeerID(string(k))
				out.Pools[peer] = p
				return err
			}),
		)
	})
	return out, err
}

// Apply stores changes of the learning state and the routes that they release, all of it or nothing. seen are VCRs that call agents have
// uploaded (see Uploaded). The IDs of the notices are in the order of the routes.
func (s *Store) Apply(now time.Time, c learn.Changes, released []learn.Learned, seen ...Upload) (notices []uint64, err error) {
	err = s.update(func(tx *bolt.Tx, after *sizes) error {
		vcr, last, pool := tx.Bucket(bVCR), tx.Bucket(bLast), tx.Bucket(bPool)
		if !c.Empty() {
			if err := tx.Bucket(bMeta).Put(kNext, id(c.Next)); err != nil {
				return err
			}
		}
		var errs []error
		for _, w := range c.Waiting {
			errs = append(errs, put(vcr, id(w.ID), w))
		}
		for _, n := range c.Ended {
			errs = append(errs, vcr.Delete(id(n)))
		}
		for n, t := range c.Last {
			errs = append(errs, put(last, []byte(n), t))
		}
		for _, n := range c.Former {
			errs = append(errs, last.Delete([]byte(n)))
		}
		for p, v := range c.Pools {
			errs = append(errs, put(pool, []byte(p.String()), v))
		}
		for _, p := range c.NoPools {
			errs = append(errs, pool.Delete([]byte(p.String())))
		}
		for _, u := range seen {
			errs = append(errs, s.remember(tx.Bucket(bOutgoing), &after.outgoing, u.hash(), now))
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
		notices = nil
		for _, l := range released {
			n, err := s.addRoute(tx, l, after)
			if err != nil {
				return err
			}
			notices = append(notices, n)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("store what was learned: %w", err)
	}
	return notices, nil
}
