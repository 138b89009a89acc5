package testbed

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// EdgeKind says what stands between an enterprise and the Internet.
type EdgeKind int

const (
	// EdgeImeproxy is the appliance under test.
	EdgeImeproxy EdgeKind = iota
	// EdgeForeign is an edge of other make: Kamailio with rtpengine, mutual TLS
	// and SDES outside, TCP and RTP inside. It checks no tickets.
	EdgeForeign
	// EdgeRouter only forwards: the lab without any edge, to try the rest of it.
	// Both enterprises must have it, or none.
	EdgeRouter
	// EdgeMachine is the appliance as a virtual machine, which the test starts: its cards are Taps in the edge's namespace.
	EdgeMachine
)

// Taps are the other ends of the cards of an EdgeMachine: the inside one, the outside one.
var Taps = [2]string{"tap0", "tap1"}

// Options of a lab. The zero value is the whole lab with two proxies.
type Options struct {
	// Name replaces the process id in namespace names and makes a lab that
	// the next one of that name removes, however it ended.
	Name string
	// Keep leaves everything running at the end. Needs Name.
	Keep bool
	// Dir holds configurations, logs, recordings and captures. Empty: a
	// temporary folder, removed after a test that passed.
	Dir string
	// A and B differ between the enterprises.
	A, B Side
	// NoPhones leaves the phones out, NoCallAgents these and the phones:
	// for tests that play the call agent themselves.
	NoPhones, NoCallAgents bool
	// Direct leaves everything out that stands between edge A and the two ends of its calls: phone and call agent are one host at the end
	// of the inside cable, enterprise B is one at the end of the outside one. For measurements.
	Direct bool
	// PSTN adds a telephone network, and to either enterprise a PBX and `imeproxy callagent`. Nothing of it runs before JoinPSTN.
	PSTN bool
	// NoStart makes the network and the files but starts no program; use the
	// Start methods of the parts.
	NoStart bool
}

// Side holds the options of one enterprise.
type Side struct {
	Edge EdgeKind
	// Tone of the phone in Hz; 0 is 440 for A and 880 for B.
	Tone int
	// Codec as baresip names it; empty is PCMU/8000/1.
	Codec string
	// ManualAnswer leaves incoming calls ringing.
	ManualAnswer bool
	// Config may change the generated configuration of the proxy.
	Config func(text string) string
	// AgentConfig may change the generated configuration of `imeproxy callagent`.
	AgentConfig func(text string) string
	// Cert may change what the edge's certificate is made of.
	Cert func(*CertSpec)
	// Confined runs the proxy with the capabilities of image/imeproxy.service alone, and as another user where this machine
	// has one to give.
	Confined bool
	// Core runs the edge on this one processor, "" on all.
	Core string
	// NoMedia leaves rtpengine out of a foreign edge: session descriptions pass as they are.
	NoMedia bool
}

// Enterprise is one of the two companies of the lab.
type Enterprise struct {
	// Letter is "a" or "b"; Domain the SIP domain; Number the phone's, E.164.
	Letter, Domain, Number string

	Inside    netip.Prefix // network of phones and call agent
	PhoneIP   netip.Addr
	UCMIP     netip.Addr // real address of the call agent
	PBXIP     netip.Addr // of the PBX; with Options.PSTN
	PSTNIP    netip.Addr // of the PSTN's gateway inside; with Options.PSTN
	InsideIP  netip.Addr // the edge's
	MediaIn   netip.Addr // media termination inside
	Outside   netip.Prefix
	OutsideIP netip.Addr // the edge's
	Mapped    netip.Addr // call agent as the Internet sees it
	MediaOut  netip.Addr // media termination outside
	Gateway   netip.Addr // the Internet's router

	TicketPassword string
	TicketEpoch    int
	// FallbackNumber is what the far call agent dials when a call falls back.
	FallbackNumber string

	PhoneHost, UCMHost, EdgeHost *Host
	PBXHost                      *Host // with Options.PSTN

	Phone *Phone
	UCM   *CallAgent
	Proxy *Proxy       // nil unless its edge is EdgeImeproxy
	Edge  *ForeignEdge // nil unless its edge is EdgeForeign
	PBX   *PBX         // nil without Options.PSTN
	Agent *IMEAgent    // nil without Options.PSTN

	// CertFile, KeyFile and P12File hold the edge's identity, passphrase P12Pass.
	CertFile, KeyFile, P12File string

	side Side
	far  *Enterprise
	lab  *Lab
}

// P12Pass protects the lab's PKCS#12 files.
const P12Pass = "lab-passphrase"

// TrunkPort is where call agents talk to other enterprises; it lies in the
// class of the configuration (5000-6000).
const TrunkPort = 5070

// Lab is a standing world. Make it with Start.
type Lab struct {
	T    T
	Dir  string
	A, B *Enterprise
	CA   *CA
	// Internet is the router between the edges.
	Internet *Internet
	// Outsider is a host on the Internet that belongs to nobody.
	Outsider *Host
	// OutsiderIP is its address.
	OutsiderIP netip.Addr
	// PSTN is the telephone network; nil without Options.PSTN.
	PSTN     *PSTN
	PSTNHost *Host

	opts   Options
	prefix string
	// socks holds Unix sockets: their paths must be short.
	socks string
	hosts []*Host
	lan   *Host

	mu    sync.Mutex
	procs []*Process
	stops []func()
}

var labCount atomic.Int32

// Start builds a lab and removes it when the test ends. It returns when all
// of it serves.
func Start(t T, o Options) *Lab {
	t.Helper()
	if o.NoCallAgents {
		o.NoPhones = true
	}
	l := &Lab{T: t, opts: o}
	if err := sweep(); err != nil {
		t.Fatalf("remove what an earlier lab left: %v", err)
	}
	l.name()
	l.makeDir()
	t.Cleanup(l.close)
	l.A, l.B = l.enterprises()
	if err := l.network(); err != nil {
		t.Fatalf("build the network: %v", err)
	}
	l.certificates()
	l.parts()
	if !o.NoStart {
		l.startAll()
	}
	return l
}

// name picks the prefix of the namespaces; a named lab replaces its forerunner.
func (l *Lab) name() {
	if l.opts.Name != "" {
		l.prefix = "ime-" + l.opts.Name + "-"
		if err := Remove(l.opts.Name); err != nil {
			l.T.Fatalf("remove the lab that stands: %v", err)
		}
		return
	}
	l.prefix = fmt.Sprintf("ime-%d-%d-", os.Getpid(), labCount.Add(1))
}

// makeDir makes the folder for everything that the lab writes.
func (l *Lab) makeDir() {
	var err error
	if l.Dir = l.opts.Dir; l.Dir == "" {
		l.Dir, err = os.MkdirTemp("", "imelab-")
	} else if l.Dir, err = filepath.Abs(l.Dir); err == nil {
		err = os.MkdirAll(l.Dir, 0o755)
	}
	if err != nil {
		l.T.Fatalf("folder of the lab: %v", err)
	}
	if l.opts.Name == "" {
		l.socks, err = os.MkdirTemp("", "imesock-")
	} else {
		l.socks = socksOf(l.opts.Name)
		err = os.Mkdir(l.socks, 0o700)
	}
	if err != nil {
		l.T.Fatalf("folder of the lab's sockets: %v", err)
	}
	// Programs that give up root must still reach their files.
	if err := os.Chmod(l.Dir, 0o755); err != nil {
		l.T.Fatalf("folder of the lab: %v", err)
	}
}

// enterprises lays out addresses as in the guide's figure, where they fit.
func (l *Lab) enterprises() (a, b *Enterprise) {
	mk := func(letter, inside, outside, number, password string, s Side, tone int) *Enterprise {
		in, out := netip.MustParseAddr(inside), netip.MustParsePrefix(outside)
		host := func(base netip.Addr, n byte) netip.Addr {
			b := base.As4()
			b[3] += n
			return netip.AddrFrom4(b)
		}
		if s.Tone == 0 {
			s.Tone = tone
		}
		return &Enterprise{
			Letter: letter, Domain: letter + ".example", Number: number,
			Inside:  netip.PrefixFrom(in, 24),
			PhoneIP: host(in, 21), UCMIP: host(in, 30), PBXIP: host(in, 20), PSTNIP: host(in, 40), InsideIP: host(in, 1), MediaIn: host(in, 3),
			Outside: out, OutsideIP: host(out.Masked().Addr(), 1), Mapped: host(out.Masked().Addr(), 3),
			MediaOut: host(out.Masked().Addr(), 4), Gateway: host(out.Masked().Addr(), 30),
			TicketPassword: password, TicketEpoch: 1,
			side: s, lab: l,
		}
	}
	a = mk("a", "192.168.10.0", "209.165.200.224/27", "+14085551111", "ticket-password-of-A", l.opts.A, 440)
	b = mk("b", "192.168.20.0", "209.165.201.0/27", "+14085551212", "ticket-password-of-B", l.opts.B, 880)
	a.far, b.far = b, a
	a.FallbackNumber, b.FallbackNumber = "+14085550100", "+14085550200"
	return a, b
}

// Enterprises returns both, for loops.
func (l *Lab) Enterprises() []*Enterprise { return []*Enterprise{l.A, l.B} }

// Far is the other enterprise.
func (e *Enterprise) Far() *Enterprise { return e.far }

// TrunkTarget is where the call agent sends calls for the other enterprise.
func (e *Enterprise) TrunkTarget() netip.AddrPort {
	switch e.side.Edge {
	case EdgeForeign:
		return netip.AddrPortFrom(e.InsideIP, TrunkPort)
	case EdgeRouter:
		return netip.AddrPortFrom(e.far.UCMIP, TrunkPort)
	default:
		return netip.AddrPortFrom(e.far.Mapped, TrunkPort)
	}
}

// parts makes the programs' configurations.
func (l *Lab) parts() {
	for _, e := range l.Enterprises() {
		switch e.side.Edge {
		case EdgeImeproxy:
			e.Proxy = newProxy(l, e)
		case EdgeForeign:
			e.Edge = newForeignEdge(l, e)
		}
		e.UCM = newCallAgent(l, e)
		e.Phone = newPhone(l, e)
	}
	if l.opts.PSTN {
		l.telephony()
	}
}

// startAll starts the programs, edges first: call agents connect to them.
func (l *Lab) startAll() {
	for _, e := range l.Enterprises() {
		if e.Proxy != nil {
			e.Proxy.Start(l.T)
		}
		if e.Edge != nil {
			e.Edge.Start(l.T)
		}
	}
	if l.opts.NoCallAgents {
		return
	}
	for _, e := range l.Enterprises() {
		e.UCM.Start(l.T)
		if e.Proxy != nil || e.far.Proxy != nil {
			l.giveTicket(e)
		}
	}
	if l.opts.NoPhones {
		return
	}
	for _, e := range l.Enterprises() {
		e.Phone.Start(l.T)
	}
}

// giveTicket stores a good ticket for the far phone's number at the call
// agent of e, as validation would have.
func (l *Lab) giveTicket(e *Enterprise) {
	e.UCM.SetTicket(l.T, e.far.Number, l.ticketFor(l.T, e))
}

// ticketFor is a good ticket for calls from e to the far phone.
func (l *Lab) ticketFor(t T, e *Enterprise) string {
	t.Helper()
	return IssueTicket(t, TicketSpec{
		Password: e.far.TicketPassword, Epoch: e.far.TicketEpoch, Dir: l.Dir,
		OwnDomain: e.far.Domain, GrantedTo: e.Domain, Numbers: []string{e.far.Number},
	})
}

// track remembers a process for the log excerpt of a failed test.
func (l *Lab) track(p *Process) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.procs = append(l.procs, p)
}

// onClose registers what must end before the namespaces go.
func (l *Lab) onClose(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stops = append(l.stops, f)
}

// close ends the programs in the reverse order of their start, then removes
// the namespaces and, after success, the folder.
func (l *Lab) close() {
	if l.opts.Keep {
		return
	}
	l.mu.Lock()
	stops := l.stops
	l.mu.Unlock()
	for i := len(stops) - 1; i >= 0; i-- {
		stops[i]()
	}
	for _, h := range l.hosts {
		if err := killNamespace(h.NS); err != nil {
			l.T.Errorf("remove %s: %v", h.NS, err)
		}
	}
	os.RemoveAll(l.socks)
	if l.T.Failed() {
		l.excerpts()
		return
	}
	if l.opts.Dir == "" {
		os.RemoveAll(l.Dir)
	}
}

// excerpts shows the end of every log after a failure.
func (l *Lab) excerpts() {
	l.T.Logf("files of the lab are in %s", l.Dir)
	if l.opts.Dir != "" {
		return // the caller knows where to look
	}
	seen := make(map[string]bool)
	for _, p := range l.procs {
		if text := p.Log(); text != "" && !seen[p.Name] {
			l.T.Logf("--- end of %s ---\n%s", p.Name, tail(text, 2500))
		}
		seen[p.Name] = true
	}
}

// staleName matches the namespaces of labs that no Name made.
var staleName = regexp.MustCompile(`^ime-(\d+)-\d+-`)

// sweep removes the namespaces of labs whose process is gone.
func sweep() error {
	return removeWhere(func(ns string) bool {
		m := staleName.FindStringSubmatch(ns)
		if m == nil {
			return false
		}
		pid, err := strconv.Atoi(m[1])
		if err != nil {
			return false
		}
		_, err = os.Stat(fmt.Sprintf("/proc/%d", pid))
		return os.IsNotExist(err)
	})
}

// socksOf is where a named lab keeps its sockets.
func socksOf(name string) string { return filepath.Join(os.TempDir(), "imesock-"+name) }

// Remove ends the lab of that name with all its programs; none is no error.
func Remove(name string) error {
	if err := os.RemoveAll(socksOf(name)); err != nil {
		return err
	}
	return removeWhere(func(ns string) bool { return strings.HasPrefix(ns, "ime-"+name+"-") })
}

// removeWhere removes the namespaces that match.
func removeWhere(match func(ns string) bool) error {
	out, err := run(exec.CommandContext, "ip", "netns", "list")
	if err != nil {
		return err
	}
	for _, line := range nonEmptyLines(out) {
		if ns := strings.Fields(line)[0]; match(ns) {
			if err := killNamespace(ns); err != nil {
				return err
			}
		}
	}
	return nil
}

// background is for dials and commands that carry their own deadline.
func background(limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), limit)
}
