package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"imeproxy/ucime/learn"
)

// Route is a learned route with what the call agent has said to it.
type Route struct {
	learn.Route
	// Settled: the call agent has stored it, or with Forbidden its trust rules refuse it.
	Settled, Forbidden bool
	notice             uint64
}

// Notice is something that a call agent must be told until it has stored it.
type Notice struct {
	ID uint64
	// Route is learned, or with Withdrawn its number has none any more.
	Route     learn.Route
	Withdrawn bool
	Reason    string
}

type storedRoute struct {
	Route              learn.Route
	Settled, Forbidden bool
	Notice             uint64
}

func key(service string, rest []byte) []byte {
	return append(append([]byte(service), 0), rest...)
}

// addRoute stores a route and its notice. A notice of an older route to the number, or of its end, is void: the new one takes its place. Brought again after
// the new one it would take the route away.
func (s *Store) addRoute(tx *bolt.Tx, l learn.Learned, n *sizes) (uint64, error) {
	routes := tx.Bucket(bRoute)
	at := key(l.Service, []byte(l.Route.Number))
	if data := routes.Get(at); data != nil {
		var old storedRoute
		if err := json.Unmarshal(data, &old); err != nil {
			return 0, err
		}
		if err := s.dropNotice(tx, l.Service, old.Notice, n); err != nil {
			return 0, err
		}
	} else if n.routes >= s.limits.Routes {
		return 0, fmt.Errorf("%w: %d routes", ErrFull, n.routes)
	} else {
		n.routes++
	}
	if ended := tx.Bucket(bEnded).Get(at); ended != nil {
		if err := s.dropNotice(tx, l.Service, binary.BigEndian.Uint64(ended), n); err != nil {
			return 0, err
		}
		if err := tx.Bucket(bEnded).Delete(at); err != nil {
			return 0, err
		}
	}
	notice, err := s.addNotice(tx, l.Service, Notice{Route: l.Route}, n)
	if err != nil {
		return 0, err
	}
	return notice, put(routes, at, storedRoute{Route: l.Route, Notice: notice})
}

func (s *Store) addNotice(tx *bolt.Tx, service string, v Notice, n *sizes) (uint64, error) {
	if n.notices >= s.limits.Notices {
		return 0, fmt.Errorf("%w: %d notices that no call agent has taken", ErrFull, n.notices)
	}
	b := tx.Bucket(bNotice)
	next, err := b.NextSequence()
	if err != nil {
		return 0, err
	}
	v.ID = next
	n.notices++
	return next, put(b, key(service, id(next)), v)
}

func (s *Store) dropNotice(tx *bolt.Tx, service string, notice uint64, n *sizes) error {
	b, at := tx.Bucket(bNotice), key(service, id(notice))
	if b.Get(at) == nil {
		return nil
	}
	n.notices--
	return b.Delete(at)
}

// Pending gives the notices of a service with an ID above after, the lowest first, at most limit.
func (s *Store) Pending(service string, after uint64, limit int) (out []Notice, err error) {
	prefix := key(service, nil)
	err = s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bNotice).Cursor()
		for k, data := c.Seek(key(service, id(after+1))); k != nil && bytes.HasPrefix(k, prefix) && len(k) == len(prefix)+8 && len(out) < limit; k, data = c.Next() {
			var v Notice
			if err := json.Unmarshal(data, &v); err != nil {
				return fmt.Errorf("notice %x: %w", k, err)
			}
			out = append(out, v)
		}
		return nil
	})
	return out, err
}

// Settle ends a notice: the call agent has stored it (accepted) or refuses it. One that is not there is settled already.
func (s *Store) Settle(service string, notice uint64, accepted bool) error {
	err := s.update(func(tx *bolt.Tx, after *sizes) error {
		data := tx.Bucket(bNotice).Get(key(service, id(notice)))
		if data == nil {
			return nil
		}
		var v Notice
		if err := json.Unmarshal(data, &v); err != nil {
			return err
		}
		if err := s.dropNotice(tx, service, notice, after); err != nil {
			return err
		}
		at := key(service, []byte(v.Route.Number))
		if v.Withdrawn {
			return tx.Bucket(bEnded).Delete(at)
		}
		var r storedRoute
		if data := tx.Bucket(bRoute).Get(at); data == nil {
			return nil
		} else if err := json.Unmarshal(data, &r); err != nil {
			return err
		}
		r.Settled, r.Forbidden = true, !accepted
		return put(tx.Bucket(bRoute), at, r)
	})
	if err != nil {
		return fmt.Errorf("settle notice %d: %w", notice, err)
	}
	return nil
}

// Routes gives the routes of a service in the order of their numbers.
func (s *Store) Routes(service string) (out []Route, err error) {
	prefix := key(service, nil)
	err = s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bRoute).Cursor()
		for k, data := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, data = c.Next() {
			var r storedRoute
			if err := json.Unmarshal(data, &r); err != nil {
				return fmt.Errorf("route %x: %w", k, err)
			}
			out = append(out, Route{r.Route, r.Settled, r.Forbidden, r.Notice})
		}
		return nil
	})
	return out, err
}

// Withdraw ends the route of a service to a number and tells the call agent why. False: there is none.
func (s *Store) Withdraw(service string, number learn.Number, reason string) (found bool, err error) {
	err = s.update(func(tx *bolt.Tx, after *sizes) error {
		found, err = s.endRoute(tx, key(service, []byte(number)), reason, true, after)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("withdraw the route to %s: %w", number, err)
	}
	return found, nil
}

// endRoute ends a route. must: not unless there is room for the notice.
func (s *Store) endRoute(tx *bolt.Tx, at []byte, reason string, must bool, n *sizes) (bool, error) {
	data := tx.Bucket(bRoute).Get(at)
	if data == nil {
		return false, nil
	}
	var r storedRoute
	if err := json.Unmarshal(data, &r); err != nil {
		return false, err
	}
	service := string(at[:bytes.LastIndexByte(at, 0)])
	if err := s.dropNotice(tx, service, r.Notice, n); err != nil {
		return false, err
	}
	notice, err := s.addNotice(tx, service, Notice{Route: learn.Route{Number: r.Route.Number}, Withdrawn: true, Reason: reason}, n)
	if err == nil {
		err = tx.Bucket(bEnded).Put(at, id(notice))
	} else if !must && errors.Is(err, ErrFull) {
		err = nil
	}
	if err != nil {
		return false, err
	}
	n.routes--
	return true, tx.Bucket(bRoute).Delete(at)
}

// endRoutes ends the routes whose time has come. Without room for notices it does so too, or nothing old would ever go: call agents know when a route ends.
func (s *Store) endRoutes(tx *bolt.Tx, now time.Time, n *sizes) (ended int, err error) {
	var old [][]byte
	if err := each(tx, bRoute, func(k []byte, r storedRoute) error {
		if !r.Route.Expires.After(now) {
			old = append(old, append([]byte(nil), k...))
		}
		return nil
	}); err != nil {
		return 0, err
	}
	for _, at := range old {
		if _, err := s.endRoute(tx, at, "expired", false, n); err != nil {
			return 0, err
		}
	}
	return len(old), nil
}
