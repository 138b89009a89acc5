package shell

import (
	"net/netip"
	"time"

	"imeproxy/proxy/capture"
	"imeproxy/proxy/disk"
	"imeproxy/proxy/machine"
	"imeproxy/proxy/observe"
	"imeproxy/proxy/remote"
	"imeproxy/proxy/trace"
)

// Backend is the running appliance as the commands see it. Every method may be called from several goroutines at once and gives a
// snapshot that nobody changes afterwards.
type Backend interface {
	Hostname() string // for the prompt
	Banner() string   // what a terminal shows before the first prompt, with line feeds; may be empty
	SignalingSessions() observe.SignalingSessions
	Statistics() observe.Statistics
	MediaSessions() observe.MediaSessions
	MediaTermination() observe.MediaTermination
	MappingSessions() observe.MappingSessions
	FallbackStatistics() observe.FallbackStatistics
	Quality() observe.Quality
	Metrics() (observe.Exposition, error)
	TLSProxy() observe.TLSProxySessions
	Conns() observe.Conns
	Certificates() observe.Certificates
	Version() observe.Version
	Health() observe.HealthList
	Logging() observe.Logging
	Interfaces() observe.InterfaceStates
	Routes() (observe.RouteTable, error)
	Neighbors() (observe.ARPTable, error)
	Resources() observe.Resources
	SIPCalls() observe.SIPCalls
	TLSSessions() observe.TLSSessions
	Xlates() (observe.Xlates, error)
	// AccessLists gives all lists ("") or one.
	AccessLists(name string) (observe.AccessLists, error)
	ServicePolicies() (observe.ServicePolicies, error)
	// TracePacket tells what would become of the first packet of a connection (proto is tcp, udp, or icmp without ports).
	TracePacket(nameif, proto string, src, dst netip.AddrPort) (observe.PacketTrace, error)
	// RunningConfig gives the canonical text with secrets masked, of everything ("") or of one section, whose name is one of config.SectionNames. A
	// section that nothing is configured for is empty text. The error's words are shown to the operator.
	RunningConfig(section string) (string, error)
	// ClearConns ends every signaling session, with its connections and calls, and says how many connections that were.
	ClearConns() int
}

// TicketTester is a Backend that can tell what is wrong with a ticket; with it the command `test uc-ime ticket` exists.
type TicketTester interface {
	// TestTicket checks a header's value; an empty called number or peer domain is not checked.
	TestTicket(header, called, peer string) (observe.TicketTest, error)
}

// Requester is a Backend that has certificate requests; with it the command `show crypto ca request` exists.
type Requester interface {
	// CertificateRequest gives the PKCS#10 of a trustpoint as PEM.
	CertificateRequest(trustpoint string) (string, error)
	// IdentityCertificate gives the identity certificate of a trustpoint as PEM.
	IdentityCertificate(trustpoint string) (string, error)
}

// Storage is a Backend with files; with it the commands `dir`, `more`, `delete` and `copy` of files exist.
type Storage interface {
	Disk() *disk.Disk
	KnownHosts() remote.Hosts
}

// Restarter is a Backend that can begin anew; with it the command `reload` exists.
type Restarter interface {
	// Restart asks for it and returns at once. who stands in the log.
	Restart(who string)
}

// Machine is a Backend on a machine of its own (image/); with it the commands `utils system` exist.
type Machine interface {
	Machine() *machine.Client
}

// Shunner is a Backend that can turn sources away; with it the commands `shun` exist.
type Shunner interface {
	Shun(src netip.Addr, d time.Duration) error // 0 is for good
	Unshun(src netip.Addr) error
	Shunned() (observe.Shuns, error)
}

// Tracer is a Backend that passes on what happens in it; with it the commands `debug` and `capture` exist.
type Tracer interface {
	Trace() *trace.Hub
	Captures() *capture.Store
}

// StatisticsClearer is a Backend whose counters can be set to zero; with it the command `clear uc-ime statistics` exists.
type StatisticsClearer interface {
	ClearStatistics()
}
