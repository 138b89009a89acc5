package peerserver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"imeproxy/ucime/enroll"
	"imeproxy/ucime/learn"
	"imeproxy/ucime/pvp"
	"imeproxy/ucime/ring"
	"imeproxy/ucime/ticket"
	"imeproxy/ucime/vap"
)

// office is an enrolment authority with its server.
type office struct {
	dir, url string
	trust    *enroll.Trust
}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{dir: filepath.Join(t.TempDir(), "authority")}
	if err := enroll.InitAuthority(o.dir, "Ring", enroll.Clock{}); err != nil {
		t.Fatal(err)
	}
	a, err := enroll.OpenAuthority(o.dir, enroll.Clock{})
	if err != nil {
		t.Fatal(err)
	}
	server, err := enroll.NewServer(a, []string{"127.0.0.1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(ctx, ln) }()
	t.Cleanup(func() { cancel(); <-done })
	o.url = "https://" + ln.Addr().String()
	text, err := os.ReadFile(filepath.Join(o.dir, enroll.TrustFile))
	if err == nil {
		o.trust, err = enroll.ParseTrust(text)
	}
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func (o *office) license(t *testing.T, bootstrap bool) []byte {
	t.Helper()
	key, err := enroll.LicenseKey(o.dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := enroll.IssueLicense(key, enroll.LicenseSpec{PeerCount: 2, Bootstrap: bootstrap, HostID: "ANY", Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

type toldAlerts struct {
	mu  sync.Mutex
	all []string
}

func (a *toldAlerts) tell(x Alert) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, x.Name)
}

func (a *toldAlerts) has(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Contains(a.all, name)
}

func (o *office) setup(t *testing.T, alerts *toldAlerts) Setup {
	t.Helper()
	key, err := vap.DeriveUserKey("ucm", "correct-horse-battery")
	if err != nil {
		t.Fatal(err)
	}
	lo := netip.MustParseAddr("127.0.0.1")
	return Setup{
		Dir: filepath.Join(t.TempDir(), "peer-server"), Trust: o.trust, Authority: o.url, Domain: "a.example", Address: lo, Public: lo,
		Bootstraps: []string{"127.0.0.1:1"}, Software: 1, TicketKey: ticket.DeriveKey("password1234", 1),
		VAP:   []vap.Instance{{Name: "v", Addr: "127.0.0.1:0", Credentials: vap.Users{"ucm": key}}},
		Alert: alerts.tell,
	}
}

// A node without a license says so and serves nobody; with one it enrols by itself and serves, also after a restart.
func TestNodeStartsWithItsCertificate(t *testing.T) {
	o, alerts := newOffice(t), &toldAlerts{}
	set := o.setup(t, alerts)
	n, err := Open(set)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "InvalidCertificate is told", func() bool { return alerts.has("InvalidCertificate") })
	if s := n.Status(); s.Running || s.Enrollment.Licensed {
		t.Errorf("without a license: %+v", s)
	}
	if _, err := n.Lookup(t.Context(), "+14085551112"); !errors.Is(err, ErrNotRunning) {
		t.Errorf("look-up: %v", err)
	}
	if _, err := n.InstallLicense("a.lic", []byte("nonsense")); err == nil {
		t.Error("nonsense is installed as a license")
	}
	if _, err := n.InstallLicense("a.lic", o.license(t, false)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it runs", func() bool { return n.Status().Running })
	s := n.Status()
	if !alerts.has("SuccessfulEnrollment") || len(s.Enrollment.PeerIDs) != 2 || s.VAPAddresses["v"] == "" || s.Ring.Health != ring.Red {
		t.Errorf("running: %+v", s)
	}
	if err := n.ChangeSettings(func(*ring.Settings) {}); !errors.Is(err, ring.ErrNotBootstrap) {
		t.Errorf("settings: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}

	n, err = Open(set)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	eventually(t, "it runs again", func() bool { return n.Status().Running })
	if got := n.Status().Enrollment.PeerIDs; !slices.Equal(got, s.Enrollment.PeerIDs) {
		t.Errorf("peer IDs %v, were %v", got, s.Enrollment.PeerIDs)
	}
}

// A port that somebody else has is told, and the node starts when it is free.
func TestNodeWaitsForItsPort(t *testing.T) {
	o, alerts := newOffice(t), &toldAlerts{}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	set := o.setup(t, alerts)
	set.Validator = taken.Addr().(*net.TCPAddr).AddrPort().Port()
	n, err := Open(set)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if _, err := n.InstallLicense("a.lic", o.license(t, false)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the taken port is told", func() bool { return alerts.has("IMESdlLinkOutOfService") })
	if s := n.Status(); s.Running || s.Failed == "" {
		t.Errorf("with its port taken: %+v", s)
	}
	taken.Close()
	n.wake()
	eventually(t, "it runs", func() bool { return n.Status().Running })
}

// A call agent registers, and publishing and ports of call agents can change while it runs.
func TestNodeServesCallAgents(t *testing.T) {
	o, alerts := newOffice(t), &toldAlerts{}
	set := o.setup(t, alerts)
	n, err := Open(set)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if _, err := n.InstallLicense("a.lic", o.license(t, false)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it runs", func() bool { return n.Status().Running })
	agent := func(password string) *vap.Client {
		c, err := vap.NewClient(vap.ClientConfig{
			Addr: n.Status().VAPAddresses["v"], Username: "ucm", Password: password, Name: "n1", RetryInterval: time.Second,
			OnNotify: func(context.Context, vap.Notification) error { return nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = c.Run(ctx) }()
		t.Cleanup(func() { cancel(); <-done })
		return c
	}
	agent("another-password")
	eventually(t, "the wrong password is told", func() bool { return alerts.has("InvalidCredentials") })
	good := agent("correct-horse-battery")
	eventually(t, "the call agent is registered", func() bool { return good.Registration().Registered && n.Status().VAP.Registered == 1 })

	more := append(slices.Clone(set.VAP), vap.Instance{Name: "w", Addr: "127.0.0.1:0", Credentials: set.VAP[0].Credentials})
	if err := n.ApplyVAP(more); err != nil {
		t.Fatal(err)
	}
	if s := n.Status(); len(s.VAPAddresses) != 2 || s.VAP.Registered != 1 {
		t.Errorf("after a port came: %+v", s)
	}
}

// A file that another node holds, or a damaged one, is an error at once.
func TestOpenTellsWhatIsWrong(t *testing.T) {
	o := newOffice(t)
	set := o.setup(t, &toldAlerts{})
	n, err := Open(set)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if _, err := Open(set); err == nil {
		t.Error("two nodes have one directory")
	}
	other := o.setup(t, &toldAlerts{})
	if err := os.MkdirAll(other.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(other.Dir, enroll.LicenseFile), []byte("edited"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(other); err == nil {
		t.Error("an edited license is taken")
	}
}

// Nodes that have their certificates from the authority form a ring; global settings are a bootstrap server's, reach the others and outlive a restart.
func TestNodesFormARing(t *testing.T) {
	o := newOffice(t)
	start := func(set Setup, bootstrap bool) *Node {
		n, err := Open(set)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.InstallLicense("a.lic", o.license(t, bootstrap)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it runs", func() bool { return n.Status().Running })
		return n
	}
	alerts := &toldAlerts{}
	set := o.setup(t, &toldAlerts{})
	set.Bootstrap, set.Bootstraps = true, nil
	boot := start(set, true)
	memberSet := o.setup(t, alerts)
	r, err := boot.on()
	if err != nil {
		t.Fatal(err)
	}
	set.RingPort = r.ring.Addr().Port() // the same after its restart
	memberSet.Bootstraps = []string{r.ring.Addr().String()}
	member := start(memberSet, false)
	defer member.Close()
	eventually(t, "the member is let in", func() bool { s := member.Status(); return s.Ring.Health == ring.Green && s.Ring.Members == 2 })
	if err := boot.ChangeSettings(func(s *ring.Settings) { s.MOTD, s.StorageQuota = "hello", 7 }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the message has arrived", func() bool {
		s := member.Status()
		return s.Ring.MOTD == "hello" && s.Ring.Quota == 14 && alerts.has("MessageOfTheDay")
	})

	key := func(n *Node) [32]byte {
		r, err := n.on()
		if err != nil {
			t.Fatal(err)
		}
		s, _ := r.ring.Settings()
		return s.Key
	}
	before := key(boot)
	if err := boot.Close(); err != nil {
		t.Fatal(err)
	}
	if boot, err = Open(set); err != nil {
		t.Fatal(err)
	}
	defer boot.Close()
	eventually(t, "the bootstrap server runs again", func() bool { return boot.Status().Running })
	if s := boot.Status(); key(boot) != before || s.Ring.MOTD != "hello" || s.Ring.Quota != 14 {
		t.Errorf("after a restart: message %q, quota %d, same key %t", s.Ring.MOTD, s.Ring.Quota, key(boot) == before)
	}
}

// A certificate that does not say so makes no bootstrap server.
func TestMemberIsNoBootstrapServer(t *testing.T) {
	o, alerts := newOffice(t), &toldAlerts{}
	set := o.setup(t, alerts)
	set.Bootstrap, set.Bootstraps = true, nil
	n, err := Open(set)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if _, err := n.InstallLicense("a.lic", o.license(t, false)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "that is told", func() bool { return alerts.has("IMESdlLinkOutOfService") })
	if s := n.Status(); s.Running {
		t.Errorf("it runs: %+v", s)
	}
}

// A ring of enrolled nodes alone: a bootstrap server and two members. Who is revoked is out as soon as the others have the list of it.
func TestRingOfEnrolledNodes(t *testing.T) {
	o := newOffice(t)
	open := func(domain string, bootstrap bool, boots ...string) *Node {
		set := o.setup(t, &toldAlerts{})
		set.Domain, set.Bootstrap, set.Bootstraps = domain, bootstrap, boots
		set.RingPort, set.Validator = freePort(t), freePort(t)
		n, err := Open(set)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = n.Close() })
		if _, err := n.InstallLicense("x.lic", o.license(t, bootstrap)); err != nil {
			t.Fatal(err)
		}
		eventually(t, domain+" runs", func() bool { return n.Status().Running })
		return n
	}
	boot := open("r.example", true)
	at := boot.running.ring.Addr().String()
	one, two := open("a.example", false, at), open("b.example", false, at)
	for _, n := range []*Node{boot, one, two} {
		eventually(t, "three members", func() bool { s := n.Status(); return s.Ring.Members == 3 && s.Ring.Admitted })
	}
	a, err := enroll.OpenAuthority(o.dir, enroll.Clock{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := two.running.ring.Lookup(t.Context(), "+14085551112")
	if err != nil || len(c) != 0 {
		t.Errorf("look-up: %v %v", c, err)
	}
	if err := a.Revoke(two.member.License().Tag); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*Node{boot, one} { // as each hour
		if err := n.member.FetchList(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// It has connections to both from the look-up before; without them it has to open others.
	for _, n := range []*Node{boot, one} {
		eventually(t, "the revoked member is turned away", func() bool {
			_, _ = two.Lookup(t.Context(), "+14085551112")
			return n.Status().Ring.HandshakesRefused > 0
		})
	}
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).AddrPort().Port()
}

// Whom the ring has banned is turned away by validators too, from the next connection on.
func TestBannedAtTheValidator(t *testing.T) {
	o := newOffice(t)
	set := o.setup(t, &toldAlerts{})
	set.Bootstrap, set.Bootstraps = true, nil
	boot, err := Open(set)
	if err != nil {
		t.Fatal(err)
	}
	defer boot.Close()
	if _, err := boot.InstallLicense("a.lic", o.license(t, true)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it runs", func() bool { return boot.Status().Running && boot.Status().Ring.Admitted })
	villain, err := enroll.OpenMember(enroll.MemberConfig{Dir: t.TempDir(), Trust: o.trust, URL: o.url})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := villain.InstallLicense("v.lic", o.license(t, false)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(villain.Enroll(t.Context()), villain.FetchList(t.Context()), boot.member.FetchList(t.Context())); err != nil {
		t.Fatal(err)
	}
	r, err := boot.on()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = r.server.validator.Serve(ctx, ln) }() // its own waits for a call agent
	defer func() { cancel(); <-done }()
	ids := villain.OwnPeerIDs()
	client, err := pvp.NewClient(pvp.ClientConfig{Identity: villain, Own: ids[0], Domain: "evil.example"})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	call := learn.VCR{Role: learn.Originating, Caller: "+13105550100", Called: "+14085551212", Start: now.Add(-time.Minute), Stop: now}
	if got := client.Validate(t.Context(), ln.Addr().String(), r.own[0], call, pvp.WithoutCaller); got.Outcome != pvp.FailedProof {
		t.Fatalf("before the ban: %v, %v", got.Outcome, got.Err)
	}
	for _, id := range ids { // whichever of them was seen in a log
		if err := boot.ChangeSettings(func(s *ring.Settings) { s.Banned = []learn.PeerID{id} }); err != nil {
			t.Fatal(err)
		}
		runs := r.server.counters.Runs.Load()
		if got := client.Validate(t.Context(), ln.Addr().String(), r.own[0], call, pvp.WithoutCaller); got.Outcome != pvp.Unreachable || r.server.counters.Runs.Load() != runs {
			t.Errorf("banned: %v, %v", got.Outcome, got.Err)
		}
	}
}
