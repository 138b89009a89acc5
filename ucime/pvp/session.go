package pvp

import (
	"context"
	"crypto/hmac"
	crand "crypto/rand"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"imeproxy/ucime/learn"
)

const (
	// maxRuns are the STARTs of one connection: three shifts of two methods.
	maxRuns = 6
	// maxCandidates are the VCRs that one OFFER answers for.
	maxCandidates = slots / passwordsPerVCR
	// pages are how many times that many an originator can ask for, one after the other.
	pages = 3
	// lookAt is how many VCRs are looked at to find candidates that have guesses left.
	lookAt = 4 * maxCandidates * pages
)

// session is one validation on the called side.
type session struct {
	server *Server
	conn   *tls.Conn
	peer   learn.PeerID   // under which limits are kept
	ids    []learn.PeerID // all of the certificate's
	own    []learn.PeerID

	runs   int
	proven bool
	last   *offered
	// eligible are the VCRs of the selector as they were at the first run of a method, so that pages neither overlap nor leave one out when a new call ends.
	eligible map[eligibleKey][]Candidate
}

type eligibleKey struct {
	method   Method
	selector uint16
}

// offered is what has to be kept of an OFFER for its FINISH.
type offered struct {
	start      *start
	keys       [slots]runKeys
	candidates [slots]*Candidate // nil for a decoy
	charged    []uint64
}

// serve returns nil when the exchange came to its end, with whatever answer.
func (v *session) serve(ctx context.Context) error {
	exporter, err := binding(v.conn.ConnectionState())
	if err != nil {
		return err
	}
	for {
		if err := v.conn.SetDeadline(time.Now().Add(v.server.Limits.Frame)); err != nil {
			return err
		}
		kind, body, err := readFrame(v.conn, frameStart, frameFinish)
		if err != nil {
			return v.ended(err)
		}
		if kind == frameFinish {
			return v.finish(body)
		}
		if v.runs == maxRuns {
			v.server.Counters.Malformed.Add(1)
			return fmt.Errorf("%w: run %d", errFrame, v.runs+1)
		}
		if done, err := v.run(ctx, body, exporter); done || err != nil {
			return err
		}
	}
}

// ended tells an end of the connection between frames, which is how a failed proof ends, from what is none.
func (v *session) ended(err error) error {
	if isFrameError(err) {
		v.server.Counters.Malformed.Add(1)
	}
	return err
}

// run answers one START; done says that the peer has been told that a limit is reached.
func (v *session) run(ctx context.Context, body, exporter []byte) (done bool, err error) {
	s := v.server
	st, err := decodeStart(body)
	if err != nil {
		s.Counters.Malformed.Add(1)
		return false, err
	}
	if !slices.Contains(v.ids, st.originator) || !slices.Contains(v.own, st.terminator) {
		s.Counters.PeerRefused.Add(1)
		return false, errPeerID
	}
	if _, err := decodePoint(st.public[:]); err != nil {
		s.Counters.Malformed.Add(1)
		return false, fmt.Errorf("START: %w", err)
	}
	if !s.peers.take(v.peer, s.Now()) {
		s.Counters.PeerLimited.Add(1)
		s.busy(v.conn)
		return true, nil
	}
	select {
	case s.workers <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	sid := sessionID(exporter, v.runs)
	v.runs++
	s.Counters.Runs.Add(1)
	offer := v.offer(st, sid)
	<-s.workers
	if s.Guesses != nil { // also where there was nothing to guess, which shows in the time
		if err := s.Guesses.Spend(v.last.charged, v.peer); err != nil {
			// An OFFER that is forgotten with the process would be a guess for nothing.
			s.Log.Error("validation: guesses cannot be stored", "error", err)
			s.Counters.Unavailable.Add(1)
			s.busy(v.conn)
			return true, nil
		}
	}
	// The wait for a worker was ours, not the peer's.
	if err := v.conn.SetDeadline(time.Now().Add(s.Limits.Frame)); err != nil {
		return false, err
	}
	return false, writeFrame(v.conn, frameOffer, encodeOffer(offer))
}

// offer charges the candidates and computes all slots in the same way, decoys and candidates alike.
func (v *session) offer(st *start, sid []byte) *[slots]slot {
	o := &offered{start: st}
	v.last = o
	var passwords [slots][]byte
	for i := range passwords {
		passwords[i] = decoyPassword(st.method)
	}
	n := 0
	all := v.candidates(st)
	from := min(int(st.page)*maxCandidates, len(all))
	for _, c := range all[from:min(from+maxCandidates, len(all))] {
		if !v.server.budget.spend(c.ID, v.peer) {
			continue
		}
		o.charged = append(o.charged, c.ID)
		for _, p := range terminatorPasswords(st.method, c.VCR) {
			passwords[n], o.candidates[n] = p, &c
			n++
		}
	}
	var seed [32]byte
	crand.Read(seed[:])
	rand.New(rand.NewChaCha8(seed)).Shuffle(slots, func(i, j int) {
		passwords[i], passwords[j] = passwords[j], passwords[i]
		o.candidates[i], o.candidates[j] = o.candidates[j], o.candidates[i]
	})
	ya, err := decodePoint(st.public[:])
	if err != nil {
		panic("pvp: " + err.Error()) // run has decoded it
	}
	ada, ci := st.ada(), st.ci()
	var out [slots]slot
	for i, p := range passwords {
		adb := []byte{byte(i)}
		sh := newShare(p, ci, sid)
		o.keys[i] = deriveKeys(sid, sh.secret(ya), st.public, ada, sh.public, adb)
		tag := o.keys[i].tag(sh.public, adb)
		out[i] = slot{sh.public, [shortTag]byte(tag[:])}
	}
	return &out
}

// candidates are the VCRs that all pages of a method may answer for, the newest first.
func (v *session) candidates(st *start) []Candidate {
	key := eligibleKey{st.method, st.selector}
	list, ok := v.eligible[key]
	if ok {
		return list
	}
	for _, c := range v.server.Records.Candidates(st.selector, lookAt) {
		if len(list) == pages*maxCandidates {
			break
		}
		if Usable(c.VCR, st.method) == nil && v.server.budget.left(c.ID, v.peer) {
			list = append(list, c)
		}
	}
	if v.eligible == nil {
		v.eligible = map[eligibleKey][]Candidate{}
	}
	v.eligible[key] = list
	return list
}

// finish checks the originator's proof, marks the VCR and answers.
func (v *session) finish(body []byte) error {
	s := v.server
	f, err := decodeFinish(body)
	if err != nil || v.last == nil {
		s.Counters.Malformed.Add(1)
		return fmt.Errorf("%w: FINISH", errFrame)
	}
	o := v.last
	keys, ada := &o.keys[f.slot], o.start.ada()
	want := keys.tag(o.start.public, ada)
	c := o.candidates[f.slot]
	if !hmac.Equal(want[:longTag], f.tag[:]) || c == nil {
		s.Counters.Malformed.Add(1)
		return fmt.Errorf("%w: FINISH proves nothing", errFrame)
	}
	plain, err := keys.open(directionRequest, frameFinish, ada, f.sealed)
	if err != nil {
		s.Counters.Malformed.Add(1)
		return fmt.Errorf("request: %w", err)
	}
	domain, err := decodeRequest(plain)
	if err != nil {
		s.Counters.Malformed.Add(1)
		return fmt.Errorf("request: %w", err)
	}
	v.proven = true
	s.Counters.Proofs.Add(1)
	s.peers.giveBack(v.peer, v.runs, s.Now())
	for _, id := range o.charged {
		s.budget.giveBack(id, v.peer)
	}
	if s.Guesses != nil && len(o.charged) > 0 {
		if err := s.Guesses.GiveBack(o.charged, v.peer); err != nil {
			s.Log.Error("validation: guesses of a good proof stay spent", "error", err)
		}
	}
	code, grant := v.decide(c, domain)
	sealed := keys.seal(directionAnswer, frameAnswer, ada, encodeAnswer(code, grant))
	return writeFrame(v.conn, frameAnswer, sealed)
}

// decide makes the answer to a good proof.
func (v *session) decide(c *Candidate, domain string) (Code, *Grant) {
	s, st := v.server, v.last.start
	log := s.Log.With("peer", st.originator, "domain", domain)
	first, err := s.Records.Prove(c.ID, st.originator)
	s.budget.forget(c.ID)
	if err != nil {
		log.Error("validation: a proven call could not be marked", "error", err)
		return s.unavailable()
	}
	if !first { // another connection was faster with the same call
		s.Counters.TermRefused.Add(1)
		return CodeRefused, nil
	}
	if !s.Trust.Trusted(domain, c.VCR) {
		s.Counters.ValidationsBlocked.Add(1)
		s.Counters.TermRefused.Add(1)
		log.Info("validation: the domain is not trusted")
		return CodeRefused, nil
	}
	g, err := s.Issuer.Issue(st.terminator, domain, c.VCR.Called, s.Now())
	if err == nil {
		err = g.check()
	}
	if err != nil {
		log.Error("validation: no ticket", "error", err)
		return s.unavailable()
	}
	s.Counters.Granted.Add(1)
	return CodeGranted, &g
}

func (s *Server) unavailable() (Code, *Grant) {
	s.Counters.Unavailable.Add(1)
	return CodeUnavailable, nil
}
