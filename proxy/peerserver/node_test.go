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

func (o *office) license(t *testing.T) []byte {
	t.Helper()
	key, err := enroll.LicenseKey(o.dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := enroll.IssueLicense(key, enroll.LicenseSpec{PeerCount: 2, HostID: "ANY", Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// freePort is a port that nobody has at the moment.
func freePort(t *testing.T) uint16 {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).AddrPort().Port()
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
		RingPort: freePort(t), Validator: freePort(t), Bootstraps: []string{"127.0.0.1:1"}, Software: 1, TicketKey: ticket.DeriveKey("password1234", 1),
		VAP:   []vap.Instance{{Name: "v", Addr: "127.0.0.1:0", Credentials: vap.Users{"ucm": key}}},
		Alert: alerts.tell,
	}
}

// A node without a license says so and serves nobody; with one it enrols by itself and serves, also after a restart; what others took of its ports is
// told, and it starts when they are free.
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
	if _, err := n.InstallLicense("a.lic", o.license(t)); err != nil {
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

	taken, err := net.Listen("tcp", netip.AddrPortFrom(set.Address, set.Validator).String())
	if err != nil {
		t.Fatal(err)
	}
	n, err = Open(set)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	eventually(t, "the taken port is told", func() bool { return alerts.has("IMESdlLinkOutOfService") })
	if s := n.Status(); s.Running || s.Failed == "" {
		t.Errorf("with its port taken: %+v", s)
	}
	taken.Close()
	n.wake()
	eventually(t, "it runs again", func() bool { return n.Status().Running })
	if got := n.Status().Enrollment.PeerIDs; !slices.Equal(got, s.Enrollment.PeerIDs) {
		t.Errorf("peer IDs %v, were %v", got, s.Enrollment.PeerIDs)
	}
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
	if _, err := n.InstallLicense("a.lic", o.license(t)); err != nil {
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
