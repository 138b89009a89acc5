package store

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"imeproxy/ucime/learn"
)

// spent writes what the store holds as "VCR/peer=runs".
func spent(t *testing.T, s *Store) string {
	t.Helper()
	var out []string
	if err := s.EachSpent(func(n uint64, peer learn.PeerID, runs int) error {
		out = append(out, fmt.Sprintf("%d/%d=%d", n, peer[0], runs))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if s.sizes.guesses != len(out) {
		t.Errorf("%d entries are counted, there are %d", s.sizes.guesses, len(out))
	}
	return strings.Join(out, " ")
}

// What peers have guessed outlives the process, and goes with the call that they guessed at.
func TestGuessesOutliveARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ime.db")
	s := mustOpen(t, path, Limits{Incoming: 4})
	one, two := learn.PeerID{1}, learn.PeerID{2}
	for n := range 4 {
		if _, _, err := s.AddIncoming(start, []Upload{incoming(n)}); err != nil {
			t.Fatal(err)
		}
	}
	step := func(what, want string, errs ...error) {
		t.Helper()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if got := spent(t, s); got != want {
				t.Errorf("%s: %s, want %s", what, got, want)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = mustOpen(t, path, Limits{Incoming: 4})
		}
	}
	step("nothing to guess at", "", s.Spend(nil, one))
	step("guesses", "1/1=2 2/1=1 3/2=1 4/1=1", s.Spend([]uint64{1, 2, 4}, one), s.Spend([]uint64{1}, one), s.Spend([]uint64{3}, two))
	step("given back", "1/1=1 3/2=1 4/1=1", s.GiveBack([]uint64{1, 2, 9}, one))
	ok, err := s.Prove(3, one)
	if !ok {
		t.Error("record 3 cannot be proven")
	}
	step("proven", "1/1=1 4/1=1", err)
	_, evicted, err := s.AddIncoming(start, []Upload{incoming(4)})
	if len(evicted) != 1 || evicted[0] != 1 {
		t.Errorf("evicted %v", evicted)
	}
	step("given way", "4/1=1", err)
	_, _, err = s.Expire(start, start.Add(time.Hour))
	step("expired", "", err)
}

// They are bounded: those at the oldest calls give way, all of a call at once.
func TestGuessesAreBounded(t *testing.T) {
	s := mustOpen(t, filepath.Join(t.TempDir(), "ime.db"), Limits{Guesses: 5})
	for n := range uint64(3) {
		for peer := range byte(2) {
			if err := s.Spend([]uint64{n + 1}, learn.PeerID{peer + 1}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := spent(t, s); got != "2/1=1 2/2=1 3/1=1 3/2=1" {
		t.Errorf("left: %s", got)
	}
	for peer := range byte(100) {
		if err := s.Spend([]uint64{7}, learn.PeerID{peer + 1}); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.sizes.guesses; n > 5 {
		t.Errorf("%d entries, at most 5 are allowed", n)
	}
}

// An entry that this program did not write is told, not guessed at.
func TestDamagedGuesses(t *testing.T) {
	s := mustOpen(t, filepath.Join(t.TempDir(), "ime.db"), Limits{})
	if err := s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bGuess).Put([]byte("short"), []byte("x")) }); err != nil {
		t.Fatal(err)
	}
	if err := s.EachSpent(func(uint64, learn.PeerID, int) error { return nil }); err == nil {
		t.Error("an entry of 5 bytes is taken for one")
	}
}
