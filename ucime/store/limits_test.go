package store

import (
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"imeproxy/ucime/learn"
)

// A route that is learned again takes the place of the notice of its end: brought again later, as after a call agent's error, that would take the new route away.
func TestEndOfARouteDoesNotOutliveTheNextOne(t *testing.T) {
	s := mustOpen(t, filepath.Join(t.TempDir(), "ime.db"), Limits{})
	later := start.Add(time.Hour)
	learnt := func() {
		t.Helper()
		if _, err := s.Apply(start, learn.Changes{}, []learn.Learned{route("s", "+1", later)}); err != nil {
			t.Fatal(err)
		}
	}
	learnt()
	if found, err := s.Withdraw("s", "+1", "revoked"); err != nil || !found {
		t.Fatal(found, err)
	}
	learnt()
	if n := must[[]Notice](t)(s.Pending("s", 0, 10)); len(n) != 1 || n[0].Withdrawn {
		t.Errorf("notices %+v, want the new route alone", n)
	}
	// Once the end was settled it is of the past.
	_, _ = s.Withdraw("s", "+1", "revoked")
	n := must[[]Notice](t)(s.Pending("s", 0, 10))
	if err := s.Settle("s", n[0].ID, true); err != nil {
		t.Fatal(err)
	}
	learnt()
	if n := must[[]Notice](t)(s.Pending("s", 0, 10)); len(n) != 1 || n[0].Withdrawn || s.sizes.notices != 1 {
		t.Errorf("notices %+v, counted %d", n, s.sizes.notices)
	}
}

// Without room for notices what is old goes all the same.
func TestExpiryWithoutRoomForNotices(t *testing.T) {
	s := mustOpen(t, filepath.Join(t.TempDir(), "ime.db"), Limits{Notices: 1})
	if _, err := s.Apply(start, learn.Changes{}, []learn.Learned{route("s", "+1", start.Add(time.Hour))}); err != nil {
		t.Fatal(err)
	}
	if err := s.Settle("s", must[[]Notice](t)(s.Pending("s", 0, 1))[0].ID, true); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(start, learn.Changes{}, []learn.Learned{route("gone", "+2", start.Add(24*time.Hour))}); err != nil {
		t.Fatal(err)
	}
	_, _, _ = s.AddIncoming(start, []Upload{incoming(1)})
	if vcrs, routes, err := s.Expire(start.Add(2*time.Hour), start.Add(time.Hour)); err != nil || vcrs != 1 || routes != 1 {
		t.Errorf("%d records and %d routes went, %v", vcrs, routes, err)
	}
	if n := must[[]Route](t)(s.Routes("s")); len(n) != 0 {
		t.Errorf("routes left: %+v", n)
	}
}

// The hashes of uploaded records are bounded in each direction, over restarts too; the oldest give way.
func TestHashesAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ime.db")
	limits := Limits{Hashes: 20}
	s := mustOpen(t, path, limits)
	count := func() (in, out int) {
		_ = s.db.View(func(tx *bolt.Tx) error {
			in, out = tx.Bucket(bIncomingSeen).Stats().KeyN, tx.Bucket(bOutgoing).Stats().KeyN
			return nil
		})
		return in, out
	}
	for n := range 100 {
		now := start.Add(time.Duration(n) * time.Second)
		if _, _, err := s.AddIncoming(now, []Upload{incoming(n)}); err != nil {
			t.Fatal(err)
		}
		u := incoming(n)
		u.VCR.Role = learn.Originating
		if _, err := s.Apply(now, learn.Changes{}, nil, u, u); err != nil {
			t.Fatal(err)
		}
		if in, out := count(); in > 20 || out > 20 || in != s.sizes.seen || out != s.sizes.outgoing {
			t.Fatalf("%d and %d hashes, counted %+v", in, out, s.sizes)
		}
		if seen := must[[]bool](t)(s.Uploaded([]Upload{u})); !seen[0] {
			t.Fatalf("the hash of record %d is forgotten at once", n)
		}
		if n%30 == 7 {
			_ = s.Close()
			s = mustOpen(t, path, limits)
		}
	}
	if _, _, err := s.Expire(start.Add(5*24*time.Hour), start); err != nil {
		t.Fatal(err)
	}
	if in, out := count(); in+out+s.sizes.seen+s.sizes.outgoing != 0 {
		t.Errorf("%d and %d hashes are left, counted %+v", in, out, s.sizes)
	}
}
