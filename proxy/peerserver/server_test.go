package peerserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"imeproxy/ucime/enroll"
	"imeproxy/ucime/learn"
	"imeproxy/ucime/pvp"
	"imeproxy/ucime/ring"
	"imeproxy/ucime/store"
	"imeproxy/ucime/ticket"
	"imeproxy/ucime/vap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority is the ring's, for a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	a.cert, a.key, _ = a.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "ring"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

func (a *authority) issue(t *testing.T, tmpl *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl.SerialNumber, tmpl.NotBefore, tmpl.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key, der
}

// identity is a member's certificate.
type identity struct {
	cert  tls.Certificate
	roots *x509.CertPool
}

func (a *authority) member(t *testing.T, id learn.PeerID, more ...*url.URL) *identity {
	t.Helper()
	cert, key, der := a.issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "member"}, KeyUsage: x509.KeyUsageDigitalSignature, URIs: append([]*url.URL{ring.PeerURI(id)}, more...),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	})
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	return &identity{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: cert}, roots}
}

func (i *identity) Certificate() (*tls.Certificate, error) { return &i.cert, nil }
func (i *identity) Roots() *x509.CertPool                  { return i.roots }
func (i *identity) PeerIDs(c *x509.Certificate) ([]learn.PeerID, error) {
	return enroll.CertificatePeerIDs(c)
}
func (i *identity) Admitted(*x509.Certificate) error { return nil }

// claims is a directory that everybody sees.
type claims struct {
	mu  sync.Mutex
	all map[learn.Number][]Claim
}

func (c *claims) add(n learn.Number, claim Claim) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all[n] = append(c.all[n], claim)
}

func (c *claims) Lookup(_ context.Context, n learn.Number) ([]Claim, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Claim(nil), c.all[n]...), nil
}

// enterprise is one with a peer server and a call agent.
type enterprise struct {
	t         *testing.T
	name      string
	id        learn.PeerID
	key       ticket.Key
	cfg       Config
	server    *Server
	validator net.Listener
	stop      func()

	client  *vap.Client
	service vap.ServiceID
	learned chan learn.Route
}

// inOrder keeps claimants in the order in which the directory names them.
func inOrder(n int64) int64 { return n - 1 }

func newEnterprise(t *testing.T, a *authority, dir *claims, boot string, n byte, name string, patterns ...vap.Pattern) *enterprise {
	t.Helper()
	e := &enterprise{t: t, name: name, id: learn.PeerID{n}, key: ticket.DeriveKey("password"+name, n), service: vap.ServiceID{n}, learned: make(chan learn.Route, 100)}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e.validator = ln
	e.cfg = Config{
		Identity: a.member(t, e.id), Own: e.id, Domain: name, Directory: dir, Quota: 1000, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Issuer: &pvp.TicketIssuer{Key: e.key, Domain: name, Routes: []string{"sip:" + name + ":5061"}},
		Learn:  learn.Config{DelayMin: time.Millisecond, DelayMax: 2 * time.Millisecond, Interval: time.Second, Random: inOrder},
		Publish: func(all []vap.Publication) {
			for _, p := range all {
				for n := range p.Numbers.All() {
					dir.add(n, Claim{e.id, ln.Addr().String()})
				}
			}
		},
	}
	path := filepath.Join(t.TempDir(), "ime.db")
	if boot != "" {
		e.joins(boot)
	}
	e.start(path, ln)
	t.Cleanup(func() { e.stop() })
	e.agent(patterns)
	return e
}

func (e *enterprise) start(path string, ln net.Listener) {
	e.t.Helper()
	var err error
	if e.cfg.Store, err = store.Open(path, store.Limits{}); err != nil {
		e.t.Fatal(err)
	}
	if e.server, err = New(e.cfg); err != nil {
		e.t.Fatal(err)
	}
	user, err := vap.DeriveUserKey("ucm", "password-of-"+e.name)
	if err != nil {
		e.t.Fatal(err)
	}
	if err := e.server.VAP().Apply([]vap.Instance{{Name: "vap1", Addr: "127.0.0.1:0", Credentials: vap.Users{"ucm": user}}}); err != nil {
		e.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.server.Run(ctx, ln) }()
	e.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			e.t.Error(err)
		}
		if err := e.cfg.Store.Close(); err != nil {
			e.t.Error(err)
		}
	})
}

// agent is the enterprise's call agent.
func (e *enterprise) agent(patterns []vap.Pattern) {
	e.t.Helper()
	var err error
	e.client, err = vap.NewClient(vap.ClientConfig{
		Addr: e.server.VAP().Addr("vap1").String(), Username: "ucm", Password: "password-of-" + e.name, Name: "node1", RetryInterval: time.Second,
		OnNotify: func(_ context.Context, n vap.Notification) error {
			for _, r := range n.Routes {
				e.learned <- r
			}
			return nil
		},
	})
	if err != nil {
		e.t.Fatal(err)
	}
	if err := e.client.SetServices([]vap.Offer{{
		Service:  vap.Service{ID: e.service, Name: "s", Domain: e.name, MaxDIDs: 100, URIs: []string{"sip:" + e.name + ":5061;maddr=203.0.113.1;transport=tcp"}},
		Patterns: patterns,
	}}); err != nil {
		e.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = e.client.Run(ctx)
	}()
	e.t.Cleanup(func() { cancel(); <-done })
	wait, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	if err := e.client.WaitRegistered(wait); err != nil {
		e.t.Fatal(err)
	}
}

func (e *enterprise) upload(v learn.VCR) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := e.client.Upload(ctx, e.service, []learn.VCR{v}); err != nil {
		e.t.Fatalf("%s: %v", e.name, err)
	}
}

// call is a PSTN call that a user of e has made; the other side, if it took part, has its own record of it.
func (e *enterprise) call(to *enterprise, called learn.Number, start time.Time) {
	e.t.Helper()
	v := learn.VCR{Role: learn.Originating, Called: called, Caller: "+13105550100", Start: start, Stop: start.Add(95 * time.Second)}
	if to != nil {
		w := v
		w.Role = learn.Terminating
		w.Start, w.Stop = w.Start.Add(300*time.Millisecond), w.Stop.Add(400*time.Millisecond)
		to.upload(w)
	}
	e.upload(v)
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// validated waits until a number of validations have ended.
func (e *enterprise) validated(n uint64) {
	e.t.Helper()
	eventually(e.t, fmt.Sprintf("%d calls validated", n), func() bool {
		c, _ := e.server.Learning()
		pending, _ := e.server.Awaiting()
		return c.Added >= n && pending == 0
	})
}

// The whole story: two enterprises whose users call each other over the PSTN, and a third that claims numbers which are not its own. Validations succeed, the route and its ticket
// arrive at the call agent, the ticket is one of the called enterprise; the liar gets into the penalty box and nothing is learned of it. A restart of the calling
// side's server in the middle loses nothing.
func TestRouteIsLearnedAndLiarIsNot(t *testing.T) {
	a, dir := newAuthority(t), &claims{all: map[learn.Number][]Claim{}}
	// The liar publishes first, so that it is asked first.
	liar := newEnterprise(t, a, dir, "", 3, "liar.example", "+1408555111X")
	alice := newEnterprise(t, a, dir, "", 1, "a.example", "+1310555010X")
	bob := newEnterprise(t, a, dir, "", 2, "b.example", "+1408555111X")
	eventually(t, "all numbers are published", func() bool {
		x, _ := dir.Lookup(t.Context(), "+14085551112")
		y, _ := dir.Lookup(t.Context(), "+13105550100")
		return len(x) >= 2 && len(y) >= 1
	})
	began := time.Now().Add(-3 * time.Hour)
	alice.call(bob, "+14085551112", began)
	alice.validated(1)
	select {
	case r := <-alice.learned:
		t.Fatalf("one validation teaches %+v", r)
	default:
	}
	c, pools := alice.server.Learning()
	if c.Failed != 1 || c.Succeeded != 1 || pools[liar.id].Numbers["+14085551112"] == nil || pools[bob.id].Default.Value != 12 {
		t.Fatalf("counters %+v, pools %+v", c, pools)
	}

	restart(t, alice)
	if _, pools := alice.server.Learning(); pools[bob.id].Default.Value != 12 || pools[liar.id].Numbers["+14085551112"] == nil {
		t.Fatalf("after a restart the pools are %+v", pools)
	}

	alice.call(bob, "+14085551113", began.Add(time.Hour))
	got := map[learn.Number]learn.Route{}
	for range 2 {
		select {
		case r := <-alice.learned:
			got[r.Number] = r
		case <-time.After(20 * time.Second):
			t.Fatalf("learned so far: %v", got)
		}
	}
	for _, n := range []learn.Number{"+14085551112", "+14085551113"} {
		r := got[n]
		if r.Domain != "b.example" || r.Peer != bob.id || len(r.URIs) != 1 || r.URIs[0] != "sip:b.example:5061" {
			t.Errorf("%s: route %+v", n, r)
		}
		tk, err := ticket.Decode(r.Ticket)
		if err != nil {
			t.Fatalf("%s: ticket %q: %v", n, r.Ticket, err)
		}
		if fmt.Sprint(tk) == "" || tk.Epoch != 2 {
			t.Errorf("%s: ticket %+v", n, tk)
		}
	}
	eventually(t, "the call agent's acknowledgement is stored", func() bool {
		all, err := alice.cfg.Store.Routes(serviceName(vap.Key{User: "ucm", Service: alice.service}))
		return err == nil && len(all) == 2 && all[0].Settled && all[1].Settled
	})

	// A call that never was: nobody proves it, and the honest peer lands in the penalty box for that number.
	alice.call(nil, "+14085551114", began.Add(2*time.Hour))
	alice.validated(2)
	if _, pools := alice.server.Learning(); pools[bob.id].Numbers["+14085551114"] == nil {
		t.Errorf("pools %+v", pools)
	}
	// Equal records are taken once.
	c, _ = alice.server.Learning()
	alice.call(nil, "+14085551114", began.Add(2*time.Hour))
	if now, _ := alice.server.Learning(); now.Added != c.Added || now.TooSoon != c.TooSoon {
		t.Errorf("an equal record counts again: %+v, before %+v", now, c)
	}
}

// restart ends a server and starts another on the same store, at the same ports.
func restart(t *testing.T, e *enterprise) {
	t.Helper()
	addr, agents := e.validator.Addr().String(), e.server.VAP().Addr("vap1").String()
	path := e.cfg.Store.Path()
	e.stop()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	e.validator = ln
	e.cfg.VAPListen = func(string) (net.Listener, error) { return net.Listen("tcp", agents) }
	e.start(path, ln)
	eventually(t, "the call agent is registered again", func() bool { return len(e.server.VAP().Services()) == 1 })
}

func TestNumbersOfNobodyAreTrustedToNobody(t *testing.T) {
	a, dir := newAuthority(t), &claims{all: map[learn.Number][]Claim{}}
	e := newEnterprise(t, a, dir, "", 1, "a.example", "+1310555010X")
	eventually(t, "the numbers are published", func() bool { return trust{e.server}.Trusted("b.example", learn.VCR{Called: "+13105550105"}) })
	if (trust{e.server}).Trusted("b.example", learn.VCR{Called: "+13105550200"}) {
		t.Error("a number that no call agent publishes is given away")
	}
}

// joins makes the enterprise's peer server a member of a ring, which takes the place of the directory.
func (e *enterprise) joins(bootstrap string) {
	e.t.Helper()
	r, err := ring.New(ring.Config{Identity: e.cfg.Identity, Listen: "127.0.0.1:0", Validator: e.validator.Addr().String(), Bootstraps: []string{bootstrap}, Log: e.cfg.Log})
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = r.Close() })
	eventually(e.t, "the ring's settings have come", func() bool { _, ok := r.Settings(); return ok })
	var mu sync.Mutex
	var published []learn.Number
	e.cfg.Directory = Ring{r}
	e.cfg.Publish = func(all []vap.Publication) {
		mu.Lock()
		defer mu.Unlock()
		var err error
		if published, err = (Ring{r}).Publish(published, all); err != nil {
			e.t.Error(err)
		}
	}
}

// The same with a ring of four real members: numbers are published by the call agents, claimed in the ring, found there, and proven.
func TestRouteIsLearnedThroughTheRing(t *testing.T) {
	a := newAuthority(t)
	settings := ring.DefaultSettings()
	settings.HashCost = 10
	boot, err := ring.New(ring.Config{
		Identity: a.member(t, learn.PeerID{9}, ring.BootstrapURI()), Listen: "127.0.0.1:0", Validator: "127.0.0.1:1", Bootstrap: true, Settings: &settings,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer boot.Close()
	at := boot.Addr().String()
	alice := newEnterprise(t, a, nil, at, 1, "a.example", "+1310555010X")
	bob := newEnterprise(t, a, nil, at, 2, "b.example", "+1408555111X")
	liar := newEnterprise(t, a, nil, at, 3, "liar.example", "+1408555111X")
	eventually(t, "both claims of a number are found", func() bool {
		c, err := alice.cfg.Directory.Lookup(t.Context(), "+14085551113")
		return err == nil && len(c) == 2
	})
	began := time.Now().Add(-3 * time.Hour)
	for i, n := range []learn.Number{"+14085551112", "+14085551113", "+14085551112", "+14085551113"} {
		alice.call(bob, n, began.Add(time.Duration(i)*10*time.Minute))
		alice.validated(uint64(i + 1))
	}
	select {
	case r := <-alice.learned:
		if r.Domain != "b.example" || r.Peer != bob.id {
			t.Errorf("learned %+v", r)
		}
	case <-time.After(20 * time.Second):
		c, pools := alice.server.Learning()
		t.Fatalf("nothing is learned: %+v, %+v", c, pools)
	}
	if _, pools := alice.server.Learning(); pools[liar.id].Default.Value != 0 {
		t.Errorf("the liar has %+v", pools[liar.id])
	}
}
