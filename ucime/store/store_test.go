package store

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"imeproxy/ucime/learn"
)

var start = time.Date(2026, 11, 27, 9, 0, 0, 0, time.UTC)

func mustOpen(t testing.TB, path string, l Limits) *Store {
	t.Helper()
	s, err := Open(path, l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func route(service, number string, expires time.Time) learn.Learned {
	return learn.Learned{Service: service, Route: learn.Route{
		Number: learn.Number(number), Domain: "b.example", URIs: []string{"sip:1@203.0.113.1"}, Ticket: "ticket of " + number, Peer: learn.PeerID{1}, Learned: start, Expires: expires,
	}}
}

func incoming(n int) Upload {
	return Upload{Service: "s", VCR: learn.VCR{Role: learn.Terminating, Called: learn.Number(fmt.Sprint("+", n+1)), Start: start, Stop: start.Add(time.Duration(n) * time.Second)}}
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// The learning state comes back as it was, whatever changed it, over any number of restarts.
func TestStateComesBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ime.db")
	s := mustOpen(t, path, Limits{})
	rnd := rand.New(rand.NewPCG(1, 1))
	cfg := learn.Config{MaxPeers: 3, MaxNumbers: 20, Keep: 3 * time.Hour}
	e, now := learn.New(cfg), start
	for i := range 300 {
		now = now.Add(17 * time.Minute)
		_, _ = e.Add(now, "s", nil, learn.VCR{Role: learn.Originating, Called: learn.Number(fmt.Sprint("+", rnd.IntN(30))), Start: now.Add(-time.Minute), Stop: now})
		var released []learn.Learned
		for _, task := range e.Due(now, 3) {
			released = append(released, e.Report(now, task.ID, nil, learn.Result{
				Peer: learn.PeerID{byte(rnd.IntN(5))}, Outcome: learn.Outcome(rnd.IntN(4)), Value: 8, Domain: "b.example", Numbers: []learn.Number{task.VCR.Called},
			})...)
			e.Finish(now, task.ID, true)
		}
		if _, err := s.Apply(now, e.Changes(), released); err != nil {
			t.Fatal(err)
		}
		if i%50 == 0 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = mustOpen(t, path, Limits{})
		}
		if got := must[learn.State](t)(s.State()); !reflect.DeepEqual(got, e.State()) {
			t.Fatalf("step %d: stored\n%+v\nwant\n%+v", i, got, e.State())
		}
	}
}

func TestNoticesWaitUntilTheyAreSettled(t *testing.T) {
	s := mustOpen(t, filepath.Join(t.TempDir(), "ime.db"), Limits{})
	ids := must[[]uint64](t)(s.Apply(start, learn.Changes{}, []learn.Learned{route("s", "+1", start.Add(time.Hour)), route("s", "+2", start.Add(time.Hour)), route("s2", "+1", start.Add(2*time.Hour))}))
	pending := func(service string, after uint64, limit int) string {
		var out []string
		for _, n := range must[[]Notice](t)(s.Pending(service, after, limit)) {
			word := "has"
			if n.Withdrawn {
				word = "lost " + n.Reason
			}
			out = append(out, fmt.Sprintf("%s %s", n.Route.Number, word))
		}
		return strings.Join(out, ", ")
	}
	check := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	check("all", pending("s", 0, 10), "+1 has, +2 has")
	check("one", pending("s", 0, 1), "+1 has")
	check("after the first", pending("s", ids[0], 10), "+2 has")
	check("another service", pending("s2", 0, 10), "+1 has")
	check("a service whose name begins alike", pending("", 0, 10), "")
	if err := errors.Join(s.Settle("s", ids[0], true), s.Settle("s", ids[1], false), s.Settle("s", ids[1], true), s.Settle("s", 99, true)); err != nil {
		t.Fatal(err)
	}
	check("settled", pending("s", 0, 10), "")
	routes := must[[]Route](t)(s.Routes("s"))
	if len(routes) != 2 || !routes[0].Settled || routes[0].Forbidden || !routes[1].Forbidden || routes[0].Ticket != "ticket of +1" {
		t.Errorf("routes %+v", routes)
	}
	// A route that is learned again takes the place of the old one and of its notice.
	again := must[[]uint64](t)(s.Apply(start, learn.Changes{}, []learn.Learned{route("s2", "+1", start.Add(3*time.Hour))}))
	check("learned again", pending("s2", 0, 10), "+1 has")
	if n := must[[]Notice](t)(s.Pending("s2", 0, 10)); n[0].ID != again[0] || again[0] <= ids[2] {
		t.Errorf("notices %+v", n)
	}
	if found, err := s.Withdraw("s2", "+1", "revoked"); err != nil || !found {
		t.Errorf("withdraw: %v %v", found, err)
	}
	if found, err := s.Withdraw("s2", "+1", "revoked"); err != nil || found {
		t.Errorf("withdrawn twice: %v %v", found, err)
	}
	check("withdrawn before it was settled", pending("s2", 0, 10), "+1 lost revoked")
	// After its time a route goes, and the call agent is told.
	if _, n, err := s.Expire(start.Add(time.Hour), start); err != nil || n != 2 {
		t.Errorf("%d routes ended, %v", n, err)
	}
	check("expired", pending("s", 0, 10), "+1 lost expired, +2 lost expired")
	if left := must[[]Route](t)(s.Routes("s")); len(left) != 0 {
		t.Errorf("routes left: %+v", left)
	}
}

func TestIncomingRecords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ime.db")
	s := mustOpen(t, path, Limits{Incoming: 3, Seen: time.Hour})
	added, evicted, err := s.AddIncoming(start, []Upload{incoming(0), incoming(1), incoming(0)})
	if err != nil || len(added) != 2 || evicted != nil {
		t.Fatalf("%+v %v %v", added, evicted, err)
	}
	if added, _, _ := s.AddIncoming(start, []Upload{incoming(1)}); added != nil {
		t.Errorf("a record that comes again is stored again: %+v", added)
	}
	if ok, err := s.Prove(added[0].ID, learn.PeerID{7}); err != nil || !ok {
		t.Fatalf("%v %v", ok, err)
	}
	if ok, err := s.Prove(added[0].ID, learn.PeerID{8}); err != nil || ok {
		t.Errorf("proven twice: %v %v", ok, err)
	}
	if ok, err := s.Prove(99, learn.PeerID{8}); err != nil || ok {
		t.Errorf("what is not there is proven: %v %v", ok, err)
	}
	more, evicted, err := s.AddIncoming(start, []Upload{incoming(2), incoming(3)})
	if err != nil || len(more) != 2 || !reflect.DeepEqual(evicted, []uint64{added[0].ID}) {
		t.Errorf("%+v %v %v", more, evicted, err)
	}
	_ = s.Close()
	s = mustOpen(t, path, Limits{Incoming: 3, Seen: time.Hour})
	count := func() (n int) {
		if err := s.EachIncoming(func(Incoming) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count(); n != 3 {
		t.Errorf("%d records after a restart", n)
	}
	if n, _, err := s.Expire(start.Add(30*time.Minute), start.Add(2*time.Second)); err != nil || n != 1 || count() != 2 {
		t.Errorf("%d expired, %d left, %v", n, count(), err)
	}
	// The room of what has gone is there again, and a hash is forgotten in time.
	if _, evicted, err := s.AddIncoming(start, []Upload{incoming(5)}); err != nil || evicted != nil {
		t.Errorf("%v %v", evicted, err)
	}
	if _, _, err := s.Expire(start.Add(2*time.Hour), start.Add(time.Hour)); err != nil || count() != 0 {
		t.Errorf("%d left, %v", count(), err)
	}
	if added, _, _ := s.AddIncoming(start, []Upload{incoming(5)}); len(added) != 1 {
		t.Error("a hash is remembered for ever")
	}
}

func TestOutgoingRecordsAreSeenOnce(t *testing.T) {
	s := mustOpen(t, filepath.Join(t.TempDir(), "ime.db"), Limits{})
	a := Upload{"s", learn.VCR{Role: learn.Originating, Called: "+1", Start: start, Stop: start.Add(time.Second)}}
	b := a
	b.Service = "s2"
	if _, err := s.Apply(start, learn.Changes{}, nil, a); err != nil {
		t.Fatal(err)
	}
	if got := must[[]bool](t)(s.Uploaded([]Upload{a, b})); !got[0] || got[1] {
		t.Errorf("seen: %v", got)
	}
}

// A transaction that has no room stores nothing at all.
func TestFullStore(t *testing.T) {
	s := mustOpen(t, filepath.Join(t.TempDir(), "ime.db"), Limits{Routes: 2, Notices: 3})
	later := start.Add(time.Hour)
	if _, err := s.Apply(start, learn.Changes{}, []learn.Learned{route("s", "+1", later)}); err != nil {
		t.Fatal(err)
	}
	_, err := s.Apply(start, learn.Changes{Next: 5, Ended: []uint64{1}}, []learn.Learned{route("s", "+2", later), route("s", "+3", later)})
	if !errors.Is(err, ErrFull) {
		t.Errorf("%v", err)
	}
	if st := must[learn.State](t)(s.State()); st.Next != 0 || len(must[[]Route](t)(s.Routes("s"))) != 1 {
		t.Errorf("half of a transaction was stored: %+v", st)
	}
	if _, err := s.Apply(start, learn.Changes{}, []learn.Learned{route("s", "+2", later), route("s", "+2", later), route("s", "+1", later)}); err != nil {
		t.Errorf("routes to the same numbers: %v", err)
	}
	for _, n := range []learn.Number{"+1", "+2"} {
		if _, err := s.Withdraw("s", n, "x"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Apply(start, learn.Changes{}, []learn.Learned{route("s", "+3", later), route("s", "+4", later)}); !errors.Is(err, ErrFull) {
		t.Errorf("notices beyond their limit: %v", err)
	}
}

func TestFilesThatAreNotTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ime.db")
	s := mustOpen(t, path, Limits{})
	if _, err := Open(path, Limits{}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("opened twice: %v", err)
	}
	var copied bytes.Buffer
	if _, err := s.Backup(&copied); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("no store ", 2000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(path, Limits{}); err == nil {
		_ = s.Close()
		t.Error("a file of something else is opened")
	}
	if err := os.WriteFile(path, copied.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = mustOpen(t, path, Limits{}).Close()
}

// A file that was cut short or overwritten is an error that says what to do, never the end of the process, which takes calls too; or it is read as
// it was, where what is gone was in use no more.
func TestDamagedFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ime.db")
	_ = mustOpen(t, path, Limits{}).Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	refused := 0
	try := func(what string, text []byte) {
		t.Helper()
		file := filepath.Join(dir, fmt.Sprint(refused, len(text), what))
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(file, Limits{})
		if err == nil {
			_ = s.Close()
			return
		}
		refused++
		if !strings.HasPrefix(err.Error(), file+": ") {
			t.Errorf("%s: the error does not name the file: %v", what, err)
		}
	}
	for n := page; n < len(whole); n += page / 2 {
		try("cut", whole[:n])
	}
	if refused < 4 {
		t.Errorf("%d cut files were refused", refused)
	}
	before := refused
	for at := 0; at+64 <= len(whole); at += 64 {
		bad := bytes.Clone(whole)
		for i := range 64 {
			bad[at+i] ^= 0xa5
		}
		try("overwritten", bad)
	}
	if refused == before {
		t.Error("no overwritten file was refused")
	}
	if err := os.WriteFile(path, whole[:2*page], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Limits{}); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "routes are learned anew") {
		t.Errorf("a file that holds its head alone: %v", err)
	}
}

const childEnv = "IMEPROXY_STORE_CHILD"

// A process that is killed while it writes loses nothing that it has acknowledged, and its file opens again.
func TestKilledWhileWriting(t *testing.T) {
	path := os.Getenv(childEnv)
	if path != "" {
		writeUntilKilled(path)
	}
	path = filepath.Join(t.TempDir(), "ime.db")
	rnd := rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
	acked := 0
	for round := range 12 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledWhileWriting$")
		cmd.Env = append(os.Environ(), childEnv+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		stop := acked + 1 + rnd.IntN(40)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			n, err := strconv.Atoi(lines.Text())
			if err != nil {
				t.Fatalf("the child says %q", lines.Text())
			}
			if acked = n; acked >= stop {
				_ = cmd.Process.Kill() // it goes on writing until this has come
				break
			}
		}
		_ = cmd.Wait()
		s := mustOpen(t, path, Limits{})
		st := must[learn.State](t)(s.State())
		stored := map[int]bool{}
		if err := s.EachIncoming(func(in Incoming) error {
			n, err := strconv.Atoi(string(in.VCR.Called[1:]))
			stored[n-1] = true
			return err
		}); err != nil {
			t.Fatal(err)
		}
		notices := must[[]Notice](t)(s.Pending("s", 0, 1<<20))
		for n := range acked {
			if !stored[n] {
				t.Fatalf("round %d: record %d was acknowledged and is lost", round, n)
			}
		}
		if int(st.Next) < acked || len(notices) < acked || int(st.Next) != len(notices) {
			t.Fatalf("round %d: %d acknowledged; state %d and notices %d, which belong together", round, acked, st.Next, len(notices))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func writeUntilKilled(path string) {
	s, err := Open(path, Limits{})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	st, err := s.State()
	for n := int(st.Next); err == nil; n++ {
		if _, _, err = s.AddIncoming(start, []Upload{incoming(n)}); err != nil {
			break
		}
		_, err = s.Apply(start, learn.Changes{Next: uint64(n + 1), Ended: []uint64{0}}, []learn.Learned{route("s", fmt.Sprint("+", n+1), start.Add(time.Hour))})
		if err == nil {
			fmt.Println(n + 1)
		}
	}
	fmt.Println(err)
	os.Exit(1)
}

// A store of 100,000 VCRs and as many routes is open within 2 s, with all that a peer server reads at its start: the learning state, the VCRs that can be proven, the first
// notices. Routes are read when a call agent or a person asks for them.
func TestStartWithManyRecords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ime.db")
	s := mustOpen(t, path, Limits{})
	all, batch := 100_000, 10_000
	if raceEnabled {
		all = 10_000 // with the race detector it takes minutes to fill
	}
	for first := 0; first < all; first += batch {
		var in []Upload
		var out []learn.Learned
		for n := first; n < first+batch; n++ {
			in, out = append(in, incoming(n)), append(out, route("s", fmt.Sprint("+", n+1), start.Add(time.Hour)))
		}
		if _, _, err := s.AddIncoming(start, in); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Apply(start, learn.Changes{}, out); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	s = mustOpen(t, path, Limits{})
	must[learn.State](t)(s.State())
	n := 0
	if err := s.EachIncoming(func(Incoming) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	must[[]Notice](t)(s.Pending("s", 0, 100))
	took := time.Since(begin)
	routes := must[[]Route](t)(s.Routes("s"))
	t.Logf("%d records and %d routes: ready in %v", n, len(routes), took)
	if n != all || len(routes) != all || took > 2*time.Second {
		t.Errorf("%d records and %d routes in %v", n, len(routes), took)
	}
}
