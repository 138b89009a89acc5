package peerserver

import (
	"net"
	"testing"
	"time"

	"imeproxy/ucime/learn"
	"imeproxy/ucime/pvp"
	"imeproxy/ucime/store"
	"imeproxy/ucime/vap"
)

// Who has had its guesses at a call has none again after a restart; others may prove it still.
func TestRestartGivesNoGuesses(t *testing.T) {
	a := newAuthority(t)
	bob := newEnterprise(t, a, &claims{all: map[learn.Number][]Claim{}}, "", 2, "b.example", "+14085551112")
	now := time.Now()
	call := learn.VCR{Role: learn.Originating, Called: "+14085551112", Caller: "+13105550100", Start: now.Add(-5 * time.Minute), Stop: now.Add(-2 * time.Minute)}
	seen := call
	seen.Role = learn.Terminating
	if _, _, err := bob.cfg.Store.AddIncoming(now, []store.Upload{{Service: "s", VCR: seen}}); err != nil {
		t.Fatal(err)
	}
	restart := func() {
		t.Helper()
		path := bob.cfg.Store.Path()
		bob.stop()
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		bob.validator = ln
		bob.start(path, ln)
		bob.agent([]vap.Pattern{"+14085551112"}) // nobody proves anything before one is there
	}
	validate := func(peer byte, v learn.VCR) pvp.Outcome {
		t.Helper()
		id := learn.PeerID{peer}
		c, err := pvp.NewClient(pvp.ClientConfig{Identity: a.member(t, id), Own: id, Domain: "x.example"})
		if err != nil {
			t.Fatal(err)
		}
		r := c.Validate(t.Context(), bob.validator.Addr().String(), bob.id, v, pvp.WithCaller)
		if r.Outcome == pvp.Unreachable {
			t.Fatalf("no validation with peer %d: %v", peer, r.Err)
		}
		return r.Outcome
	}
	restart() // it finds the record
	wrong := call
	wrong.Caller = "+13105550199"
	for range 3 { // of three runs each
		if got := validate(9, wrong); got != pvp.FailedProof {
			t.Fatalf("a wrong guess: %v", got)
		}
	}
	restart()
	if got := validate(9, call); got != pvp.FailedProof {
		t.Errorf("a peer that has had its guesses proves the call after a restart: %v", got)
	}
	if got := validate(8, call); got == pvp.FailedProof {
		t.Error("a peer that has guessed nothing cannot prove the call")
	}
}
