package testbed

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Ring is what peer servers need of the Internet: an enrolment authority on the outsider's host, and a bootstrap server on one of its own.
type Ring struct {
	// AuthorityDir is the authority's; URL its server's.
	AuthorityDir, URL string
	// Boot is the bootstrap server, an imeproxy without a proxy; BootIP its address.
	Boot   *Enterprise
	BootIP netip.Addr

	lab *Lab
}

// enrollPort is the authority's.
const enrollPort = 8443

// StartRing starts the authority and the bootstrap server, and returns when the latter lets others in.
func (l *Lab) StartRing(t T) *Ring {
	t.Helper()
	r := &Ring{AuthorityDir: filepath.Join(l.Dir, "authority"), URL: fmt.Sprintf("https://%s:%d", l.OutsiderIP, enrollPort), lab: l}
	MustImeproxy(t, "enroll-server", "init", "--dir", r.AuthorityDir, "--name", "Lab ring")
	at := netip.AddrPortFrom(l.OutsiderIP, enrollPort).String()
	authority, err := l.Outsider.Start("authority", StartOptions{}, Binary(), "enroll-server", "run", "--dir", r.AuthorityDir, "--host", l.OutsiderIP.String(), "--listen", at)
	if err != nil {
		t.Fatalf("%v", err)
	}
	l.track(authority)
	l.onClose(authority.Kill)
	authority.WaitLog(t, "enroll: serving", 10*time.Second)

	r.Boot = r.AddServer(t, "r", "ring.example", "203.0.113.0/27")
	r.BootIP = r.Boot.OutsideIP
	r.Join(t, r.Boot, " bootstrap-server\n ticket epoch 1 password ticket-password-of-ring\n")
	r.WaitHealth(t, r.Boot, "GREEN")
	return r
}

// AddServer makes a host of the Internet with an imeproxy that has a peer server and no proxy.
func (r *Ring) AddServer(t T, letter, domain, outside string) *Enterprise {
	t.Helper()
	l := r.lab
	net := netip.MustParsePrefix(outside)
	at := func(n byte) netip.Addr {
		b := net.Masked().Addr().As4()
		b[3] += n
		return netip.AddrFrom4(b)
	}
	e := &Enterprise{Letter: letter, Domain: domain, Outside: net, OutsideIP: at(1), Gateway: at(30), TicketPassword: "ticket-password-of-" + letter, TicketEpoch: 1, lab: l}
	var err error
	if e.EdgeHost, err = l.newHost("peer-" + letter); err != nil {
		t.Fatalf("%v", err)
	}
	if err := wire(e.EdgeHost, "eout", l.Internet.Host, "e"+letter); err != nil {
		t.Fatalf("%v", err)
	}
	if err := l.Internet.ip(fmt.Sprintf("addr add %s/%d dev e%s", e.Gateway, net.Bits(), letter)); err != nil {
		t.Fatalf("%v", err)
	}
	e.side.Config = func(string) string {
		return fmt.Sprintf("hostname peer-%s\ndomain-name %s\ninterface eout\n nameif outside\n security-level 0\n ip address %s %s\nroute outside 0.0.0.0 0.0.0.0 %s\n",
			letter, domain, e.OutsideIP, mask(net), e.Gateway)
	}
	e.Proxy = newProxy(l, e)
	if err := os.MkdirAll(e.Proxy.StateDir, 0o700); err != nil { // it has no certificates to import
		t.Fatalf("%v", err)
	}
	e.Proxy.Start(t)
	return e
}

// bareAgent publishes numbers. It has no PBX and no PSTN: nothing listens there.
const bareAgent = `state-directory %[1]s
control %[2]s
media %[3]s ports 40000 40999
pbx none
 listen tcp %[3]s port 5060
 peer tcp %[4]s port 5060
pstn-trunk none
 listen udp %[3]s port 5080
 peer udp %[4]s port 5060
ime-trunk proxy
 listen tcp %[3]s port 5070
service main
 domain %[5]s
 enrolled-group numbers
 external-address %[3]s port 5070
 activated
enrolled-group numbers
 pattern %[6]s
`

// Publish starts a call agent beside a server of AddServer, which lets it publish a pattern and nothing else. The server's VAP port must be on the outside interface.
func (r *Ring) Publish(t T, e *Enterprise, pattern string) {
	t.Helper()
	dir := filepath.Join(r.lab.Dir, "agent-"+e.Letter)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatalf("%v", err)
	}
	e.UCMHost = e.EdgeHost
	e.Agent = &IMEAgent{e: e, lab: r.lab, ConfigFile: filepath.Join(dir, "callagent.cfg"), StateDir: filepath.Join(dir, "state"), Control: filepath.Join(r.lab.socks, "agent-"+e.Letter)}
	text := fmt.Sprintf(bareAgent, e.Agent.StateDir, e.Agent.Control, e.OutsideIP, e.Gateway, e.Domain, pattern)
	writeFile(t, e.Agent.ConfigFile, WithPeerServer(e.OutsideIP.String())(text))
	e.Agent.Start(t)
}

// License issues a license file.
func (r *Ring) License(t T, args ...string) string {
	t.Helper()
	return MustImeproxy(t, append([]string{"license", "issue", "--dir", r.AuthorityDir, "--host-id", "ANY"}, args...)...)
}

// Join makes an enterprise's running appliance a member, as an operator does: files into the state directory, lines of mode peer-server, the license.
// lines are added to those that every member has.
func (r *Ring) Join(t T, e *Enterprise, lines string) {
	t.Helper()
	copyFile(t, filepath.Join(r.AuthorityDir, "authority.pem"), filepath.Join(e.Proxy.StateDir, "authority.pem"))
	var args []string
	if strings.Contains(lines, "bootstrap-server") {
		args = append(args, "--bootstrap")
	} else {
		lines += fmt.Sprintf(" bootstrap host %s\n", r.BootIP)
	}
	if err := os.WriteFile(filepath.Join(e.Proxy.StateDir, "ring.lic"), []byte(r.License(t, args...)), 0o600); err != nil {
		t.Fatalf("%v", err)
	}
	text := fmt.Sprintf("configure terminal\npeer-server\n domain %s\n listening-interface outside\n enrollment url %s\n enrollment trust-file authority.pem\n%send\n", e.Domain, r.URL, lines)
	cmd := []string{"shell", "--control", e.Proxy.Control}
	for _, line := range nonEmptyLines(text + "utils ime license file install ring.lic\n") {
		cmd = append(cmd, "-c", line)
	}
	MustImeproxy(t, cmd...)
	Until(t, 20*time.Second, "peer server "+e.Letter+" runs", func() bool {
		s, err := e.PeerServer()
		return err == nil && s.Running
	})
}

func copyFile(t T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
}

// PeerServerState is what `show ime ... | json` tells, as far as the lab asks.
type PeerServerState struct {
	Running    bool   `json:"running"`
	Why        string `json:"why"`
	Enrollment struct {
		PeerIDs []string `json:"peer_ids"`
	} `json:"enrollment"`
	Ring struct {
		Health    string `json:"health"`
		Reason    string `json:"reason"`
		Members   int    `json:"members"`
		NodeCount int    `json:"node_count"`
		QuotaUsed int    `json:"quota_used"`
		Placed    int    `json:"placed"`
	} `json:"ring"`
	Clients []struct {
		Registered bool   `json:"registered"`
		Address    string `json:"address"`
	} `json:"vap_clients"`
	Services []struct {
		Domain  string   `json:"domain"`
		Numbers int      `json:"numbers"`
		URIs    []string `json:"sip_uris"`
	} `json:"vservices"`
	Pools []struct {
		Peer    string `json:"peer"`
		Value   int    `json:"default_bucket"`
		Numbers []struct {
			Number string `json:"number"`
		} `json:"number_buckets"`
	} `json:"pools"`
	Perf []struct {
		Object   string `json:"object"`
		Counters []struct {
			Name  string  `json:"name"`
			Value float64 `json:"value"`
		} `json:"counters"`
	} `json:"perf"`
}

// Counter is one of the guide's counters; -1: there is none of that name.
func (s PeerServerState) Counter(name string) float64 {
	for _, o := range s.Perf {
		for _, c := range o.Counters {
			if c.Name == name {
				return c.Value
			}
		}
	}
	return -1
}

// PeerServer asks the appliance for the state of its peer server.
func (e *Enterprise) PeerServer() (s PeerServerState, err error) {
	err = e.Proxy.TryShow("ime dht summary", &s)
	return s, err
}

// WaitHealth waits until the distributed cache has a health in a member's eyes.
func (r *Ring) WaitHealth(t T, e *Enterprise, want string) {
	t.Helper()
	var last PeerServerState
	defer func() {
		if last.Ring.Health != want {
			t.Errorf("distributed cache of %s: %+v", e.Letter, last.Ring)
		}
	}()
	Until(t, 60*time.Second, "the distributed cache is "+want+" for "+e.Letter, func() bool {
		s, err := e.PeerServer()
		last = s
		return err == nil && s.Ring.Health == want
	})
}
