package store

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"imeproxy/ucime/learn"
)

func TestServicesWithRoutes(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "s"), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got, err := s.Services(); err != nil || len(got) != 0 {
		t.Fatalf("of an empty store: %q, %v", got, err)
	}
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	var all []learn.Learned
	for _, service := range []string{"b", "a", "a b"} {
		for _, n := range []learn.Number{"+14085551111", "+14085551112"} {
			all = append(all, learn.Learned{Service: service, Route: learn.Route{Number: n, Expires: now.Add(time.Hour)}})
		}
	}
	if _, err := s.Apply(now, learn.Changes{}, all); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Services(); err != nil || !slices.Equal(got, []string{"a", "a b", "b"}) {
		t.Errorf("%q, %v", got, err)
	}
}
