package callagent

import (
	"context"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"imeproxy/ucime/learn"
	"imeproxy/ucime/vap"
)

// behind stands behind a VAP server: it keeps records and tells of routes.
type behind struct {
	mu      sync.Mutex
	vcrs    []learn.VCR
	pending []vap.Notification
	settled map[uint64]bool // accepted
}

func (b *behind) Published(context.Context, vap.Publication) error { return nil }
func (b *behind) Unpublished(context.Context, vap.Key)             {}

func (b *behind) StoreVCRs(_ context.Context, _ vap.Key, vcrs []learn.VCR) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.vcrs = append(b.vcrs, vcrs...)
	return nil
}

func (b *behind) Pending(_ context.Context, k vap.Key, after uint64, _ int) (out []vap.Notification, _ error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range b.pending {
		if _, done := b.settled[n.ID]; n.ID > after && !done {
			n.Service = k.Service
			out = append(out, n)
		}
	}
	return out, nil
}

func (b *behind) Settle(_ context.Context, _ vap.Key, id uint64, accepted bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settled[id] = accepted
	return nil
}

func (b *behind) records() []learn.VCR {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.vcrs)
}

// peerServer serves VAP; lines are what the configuration has of it.
func peerServer(t *testing.T) (srv *vap.Server, b *behind, lines string) {
	t.Helper()
	key, err := vap.DeriveUserKey("vapuser", "correct-horse-battery")
	if err != nil {
		t.Fatal(err)
	}
	b = &behind{settled: map[uint64]bool{}}
	srv = vap.NewServer(vap.ServerConfig{Handler: b, Quota: 5000, Log: quiet()})
	t.Cleanup(srv.Close)
	if err := srv.Apply([]vap.Instance{{Name: "v", Addr: "127.0.0.1:0", Credentials: vap.Users{"vapuser": key}}}); err != nil {
		t.Fatal(err)
	}
	_, at, _ := net.SplitHostPort(srv.Addr("v").String())
	return srv, b, "ime-server one\n address 127.0.0.1 port " + at + "\n application-user vapuser\n password correct-horse-battery\n reconnect-interval 1\n"
}

// tell lets the server bring a notification and waits until it is settled.
func (w *world) tell(srv *vap.Server, b *behind, n vap.Notification) (accepted bool) {
	w.t.Helper()
	b.mu.Lock()
	b.pending = append(b.pending, n)
	b.mu.Unlock()
	srv.Wake(vap.Key{User: "vapuser", Service: srv.Services()[0].Key.Service})
	until(w.t, "the notification is settled", func() (ok bool) {
		b.mu.Lock()
		defer b.mu.Unlock()
		accepted, ok = b.settled[n.ID]
		return ok
	})
	return accepted
}

// A call over the PSTN is uploaded; the route that comes of it takes the next call over the Internet.
func TestAPSTNCallBecomesARoute(t *testing.T) {
	srv, b, lines := peerServer(t)
	w := newWorld(t, "trust-group x untrusted\n domain c.example\n"+lines)
	w.cfg = strings.Replace(w.cfg, " activated\n", " activated\n trust-group x\n primary-server one\n", 1)
	w.reload(w.cfg)
	out := w.pbx.call(w.pbxAt, own, other, anySDP)
	_, there := w.toPSTN(out, other)
	there.Bye(context.Background())
	take(t, w.pbx.byes, "the BYE")
	w.counts(map[string]uint64{"VCRsWritten": 1, "VCRsUploaded": 1, "VCRUploadRequests": 1, "VCRsWaiting": 0, "IMEServiceStatus": 1, "RoutesPublished": 1000})
	if got := b.records(); len(got) != 1 || got[0].Role != learn.Originating || got[0].Called != other || got[0].Caller != own {
		t.Errorf("%+v", got)
	}
	route := learn.Route{
		Number: other, Domain: "b.example", Ticket: testTicket(t, other), Learned: time.Now().UTC().Truncate(time.Second), Expires: time.Now().Add(time.Hour).UTC().Truncate(time.Second),
		URIs: []string{"sip:u1@b.example:" + strconv.Itoa(int(w.far.at.Port())) + ";maddr=" + w.far.at.Addr().String() + ";transport=tcp"},
	}
	if !w.tell(srv, b, vap.Notification{ID: 7, Routes: []learn.Route{route}}) {
		t.Fatal("rejected")
	}
	out = w.pbx.call(w.pbxAt, own, other, anySDP)
	s := w.far.expect()
	if !has(s.req, ticketHeader, route.Ticket) {
		t.Errorf("%s", s.req)
	}
	answer(s.req, s.tx, 486, "Busy Here")
	final(t, out)
	// What is not trusted, or has another number's ticket, is rejected.
	blocked, wrong := route, route
	blocked.Domain, wrong.Number = "c.example", "+12125559999"
	if w.tell(srv, b, vap.Notification{ID: 8, Routes: []learn.Route{blocked}}) || w.tell(srv, b, vap.Notification{ID: 9, Routes: []learn.Route{wrong}}) {
		t.Error("accepted")
	}
	w.counts(map[string]uint64{"RoutesRejected": 1, "RoutesUnusable": 1, "RoutesLearned": 1, "DomainsUnique": 1})
	if text, err := w.a.Command([]string{"show", "servers"}, false); err != nil || !strings.Contains(text, "registered since") || !strings.Contains(text, "1000 of 5000 numbers") || strings.Contains(text, "battery") {
		t.Errorf("%s %v", text, err)
	}
	if !w.tell(srv, b, vap.Notification{ID: 10, Withdrawn: []learn.Number{other}, Reason: "expired"}) {
		t.Error("rejected")
	}
	w.counts(map[string]uint64{"RoutesLearned": 0})
}

// The PSTN may tell another of a user's numbers than the one that was dialled.
func TestACallToAnAliasIsRecordedForAllOfThem(t *testing.T) {
	w := newWorld(t, "")
	w.cfg = strings.Replace(w.cfg, " pattern +14085551XXX\n", " all-patterns-are-aliases\n pattern +14085551111\n pattern +18005550000\n", 1)
	w.reload(w.cfg)
	in := w.pstn.call(w.pstnAt, other, own, anySDP)
	s := w.pbx.expect()
	_ = w.pbx.leg(s).Respond(s.req, s.tx, 200, "OK", anySDP, "", nil)
	final(t, in)
	in.Leg.Bye(context.Background())
	w.counts(map[string]uint64{"VCRsWritten": 2})
	var called []string
	all, _ := w.a.Records().Take(9)
	for _, v := range all {
		called = append(called, string(v.Called))
	}
	slices.Sort(called)
	if !slices.Equal(called, []string{own, "+18005550000"}) {
		t.Errorf("%v", called)
	}
}

func TestAServiceWithServersThatIsNotActivatedIsTold(t *testing.T) {
	_, _, lines := peerServer(t)
	w := newWorld(t, lines)
	w.reload(strings.Replace(w.cfg, " activated\n", " primary-server one\n", 1))
	w.counts(map[string]uint64{"IMEServiceStatus": 0})
	if out, _ := w.a.Command([]string{"show", "alerts"}, false); !strings.Contains(out, "IMEServiceStatus  Critical  active") {
		t.Error(out)
	}
	w.reload(strings.Replace(w.cfg, " activated\n", " activated\n primary-server one\n", 1))
	w.counts(map[string]uint64{"IMEServiceStatus": 1})
	if out, _ := w.a.Command([]string{"show", "alerts"}, false); !strings.Contains(out, "IMEServiceStatus  Critical  ended") {
		t.Error(out)
	}
}

func TestWhatIsShownIsThere(t *testing.T) {
	_, _, lines := peerServer(t)
	w := newWorld(t, lines)
	w.reload(strings.Replace(w.cfg, " activated\n", " activated\n primary-server one\n external-address 209.165.200.227\n", 1))
	w.route(other, w.far.at)
	w.pbx.call(w.pbxAt, own, other, anySDP)
	w.far.expect()
	if err := w.a.Records().Put(learn.VCR{Role: learn.Terminating, Called: own, Start: time.Now(), Stop: time.Now()}); err != nil {
		t.Fatal(err)
	}
	for command, want := range map[string]string{
		"show counters": "CallsAttempted", "show calls": other, "show service": "209.165.200.227:5060", "show servers": "authenticated", "routes list": "b.example", "show vcrs": "SECONDS",
	} {
		text, err := w.a.Command(strings.Fields(command), false)
		if err != nil || !strings.Contains(text, want) {
			t.Errorf("%s: %q, %v", command, text, err)
		}
		if text, err := w.a.Command(strings.Fields(command), true); err != nil || len(text) < 4 && command != "show vcrs" {
			t.Errorf("%s as JSON: %q, %v", command, text, err)
		}
	}
}
