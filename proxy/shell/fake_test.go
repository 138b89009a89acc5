package shell

import (
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"imeproxy/proxy/capture"
	"imeproxy/proxy/disk"
	"imeproxy/proxy/machine"
	"imeproxy/proxy/observe"
	"imeproxy/proxy/remote"
	"imeproxy/proxy/trace"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// fake is a running appliance with one call.
type fake struct{ cleared, reset atomic.Int32 }

func (f *fake) Hostname() string { return "asa-a" }

func (f *fake) Banner() string { return "Enterprise A\nKeep \x1bout" }

func (f *fake) SignalingSessions() observe.SignalingSessions {
	return observe.SignalingSessions{InUse: 1, MostUsed: 3, Sessions: []observe.SignalingSession{
		{Inside: "192.168.10.30:39608", Outside: "209.165.202.129:5070", Direction: "outbound", State: "active"},
	}}
}

func (f *fake) Statistics() observe.Statistics {
	return observe.Statistics{Tickets: map[string]uint64{"Ticket DID mismatch": 4}}
}

func (f *fake) MediaSessions() observe.MediaSessions {
	return observe.MediaSessions{InUse: 1, MostUsed: 1, Sessions: []observe.MediaSession{{CallID: "a@b", Kind: "audio"}}}
}

func (f *fake) MappingSessions() observe.MappingSessions { return observe.MappingSessions{} }

func (f *fake) Quality() observe.Quality                       { return observe.Quality{} }
func (f *fake) Metrics() (observe.Exposition, error)           { return observe.Exposition{}, nil }
func (f *fake) FallbackStatistics() observe.FallbackStatistics { return observe.FallbackStatistics{} }

func (f *fake) MediaTermination() observe.MediaTermination {
	return observe.MediaTermination{Name: "m", Engine: "tproxy"}
}

func (f *fake) TLSProxy() observe.TLSProxySessions {
	return observe.TLSProxySessions{MaximumSessions: 10000}
}

func (f *fake) Conns() observe.Conns {
	return observe.Conns{InUse: 2, MostUsed: 2, Conns: []observe.Conn{
		{Protocol: "TCP", Outside: "209.165.202.129:5070", Inside: "192.168.10.30:39608", Flags: "UIOT"},
		{Protocol: "UDP", Outside: "209.165.202.130:29824", Inside: "192.168.10.51:19520", Flags: "m"},
	}}
}

func (f *fake) Certificates() observe.Certificates {
	return observe.Certificates{Certificates: []observe.Certificate{{Trustpoint: "local_ent", KeyType: "RSA", KeyBits: 2048, NotBefore: noon, NotAfter: noon.AddDate(1, 0, 0), DaysLeft: 365}}}
}

func (f *fake) Version() observe.Version {
	return observe.Version{Hostname: "asa-a", Version: "0.1.0", Up: observe.Seconds(time.Minute)}
}

func (f *fake) Logging() observe.Logging {
	return observe.Logging{Lines: []string{"level=INFO msg=serving", "level=WARN msg=\"ticket refused\""}}
}

func (f *fake) Interfaces() observe.InterfaceStates {
	return observe.InterfaceStates{Interfaces: []observe.InterfaceState{{Name: "ein", Nameif: "inside", Present: true, Up: true, Link: true}}}
}

func (f *fake) Routes() (observe.RouteTable, error) {
	return observe.RouteTable{Routes: []observe.RouteEntry{{Network: "0.0.0.0/0", Gateway: "209.165.200.254", Interface: "outside"}}}, nil
}

func (f *fake) Neighbors() (observe.ARPTable, error) {
	return observe.ARPTable{Neighbors: []observe.ARPEntry{}}, nil
}

func (f *fake) Resources() observe.Resources { return observe.Resources{Cores: 2} }

func (f *fake) Health() observe.HealthList { return observe.HealthList{} }

func (f *fake) RunningConfig(section string) (string, error) {
	switch section {
	case "":
		return "hostname asa-a\n!\nuc-ime local\n ticket epoch 1 password *****\n", nil
	case "uc-ime":
		return "uc-ime local\n ticket epoch 1 password *****\n", nil
	case "banner":
		return "", errors.New("the configuration is being \x1bchanged")
	}
	return "", nil
}

func (f *fake) SIPCalls() observe.SIPCalls {
	return observe.SIPCalls{Total: 1, Calls: []observe.SIPCall{{CallID: "a@b", State: "confirmed", Direction: "outbound", From: "+14085550100", To: "+12125550199", Domain: "b.example"}}}
}

func (f *fake) TLSSessions() observe.TLSSessions {
	return observe.TLSSessions{InUse: 1, MostUsed: 1, Sessions: []observe.TLSSession{
		{Proxy: "local_to_remote-ent", Outside: "209.165.202.129:5070", Inside: "192.168.10.30:39608", PeerDomains: []string{"b.example"}, TLSVersion: "TLS 1.3", Bytes: 4711},
	}}
}

func (f *fake) Xlates() (observe.Xlates, error) {
	return observe.Xlates{Xlates: []observe.Xlate{{RealInterface: "inside", Real: "192.168.10.30", MappedInterface: "outside", Mapped: "209.165.200.227", Static: true}}}, nil
}

func (f *fake) AccessLists(name string) (observe.AccessLists, error) {
	if name == "none" {
		return observe.AccessLists{}, errors.New("there is no access list none")
	}
	return observe.AccessLists{Lists: []observe.AccessList{{Name: "ime-incoming", Use: []string{"access-group in on outside"}, Entries: []observe.AccessEntry{
		{Line: 1, Text: "remark calls", Remark: true}, {Line: 2, Text: "extended permit tcp any host 192.168.10.30 eq 5070", Hits: 4, Hash: "0x5e2e0f5c"},
	}}}}, nil
}

func (f *fake) ServicePolicies() (observe.ServicePolicies, error) {
	return observe.ServicePolicies{Policies: []observe.ServicePolicy{{Name: "ime-policy", Classes: []observe.ServiceClass{{Name: "ime-inbound-sip", UCIME: "local-ent-ime", TLSProxy: "remote_to_local-ent", Connections: 4, Sessions: 1}}}}}, nil
}

func (f *fake) TracePacket(nameif, proto string, src, dst netip.AddrPort) (observe.PacketTrace, error) {
	return observe.PacketTrace{Input: nameif, Action: "drop", Outcome: proto + " from " + src.String() + " to " + dst.String(), Phases: []observe.TracePhase{{Type: "ACCESS-LIST", Result: "DROP", Text: "no entry"}}}, nil
}

func (f *fake) ClearConns() int { f.cleared.Add(1); return 2 }

func (f *fake) TestTicket(header, called, peer string) (observe.TicketTest, error) {
	if header == "none" {
		return observe.TicketTest{}, errors.New("no uc-ime is in force")
	}
	return observe.TicketTest{Result: "Ticket DID mismatch", Meaning: "called " + called + " by " + peer, Claims: []string{header}}, nil
}

func (f *fake) CertificateRequest(trustpoint string) (string, error) {
	return "-----BEGIN CERTIFICATE REQUEST-----\n" + trustpoint + "\n-----END CERTIFICATE REQUEST-----\n", nil
}

func (f *fake) IdentityCertificate(trustpoint string) (string, error) {
	return "-----BEGIN CERTIFICATE-----\n" + trustpoint + "\n-----END CERTIFICATE-----\n", nil
}

// clearable is a fake whose counters can be reset.
type clearable struct{ fake }

func (c *clearable) ClearStatistics() { c.reset.Add(1) }

// traced is a fake that passes on what happens in it.
type traced struct {
	clearable
	dir     string
	disk    *disk.Disk
	shunned []observe.Shun
	hub     trace.Hub
	store   *capture.Store
	first   string // socket of the first process
}

func newTraced(t *testing.T) *traced {
	b := &traced{dir: t.TempDir()}
	b.store = capture.NewStore(b.dir, &b.hub, slog.New(slog.DiscardHandler))
	t.Cleanup(b.store.Close)
	b.first, _ = firstProcess(t)
	var err error
	if b.disk, err = disk.Open(b.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.disk.Close)
	return b
}

func (b *traced) Trace() *trace.Hub { return &b.hub }

func (b *traced) Restart(string) {}

func (b *traced) Machine() *machine.Client { return machine.New(b.first) }

func (b *traced) Shun(a netip.Addr, d time.Duration) error {
	b.shunned = append(b.shunned, observe.Shun{Source: a.String(), Left: observe.Seconds(d)})
	return nil
}

func (b *traced) Unshun(a netip.Addr) error {
	before := len(b.shunned)
	b.shunned = slices.DeleteFunc(b.shunned, func(s observe.Shun) bool { return s.Source == a.String() })
	if len(b.shunned) == before {
		return errors.New("it is not shunned")
	}
	return nil
}

func (b *traced) Shunned() (observe.Shuns, error) {
	return observe.Shuns{Shuns: slices.Clone(b.shunned)}, nil
}

func (b *traced) Disk() *disk.Disk { return b.disk }

func (b *traced) KnownHosts() remote.Hosts { return remote.NewHosts(b.dir) }

func (b *traced) Captures() *capture.Store { return b.store }
