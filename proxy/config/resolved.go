package config

import (
	"net/netip"
	"slices"
)

// Resolved is a configuration with all names followed. Its pointers lead into the Config; nothing in it may be changed.
type Resolved struct {
	// Inside and Outside are the interfaces of the call agents and of the Internet. Without a uc-ime they may be nil.
	Inside, Outside *Interface
	UCIME           *UCIME // nil: no proxy, the box only forwards
	Media           *MediaTermination
	PeerServer      *ResolvedPeerServer // nil: none
	// MappingListen and MappingOutside are the interfaces of the mapping service, nil without one.
	MappingListen, MappingOutside *Interface
	// MediaAddresses are those of Media with the interface that each belongs to.
	MediaAddresses []ResolvedMedia
	// MediaInside and MediaOutside are the addresses that streams end on; with a global address both are that.
	MediaInside, MediaOutside netip.Addr
	UCMs                      []ResolvedUCM
	Inbound, Outbound         []Inspection
	Routes                    []ResolvedRoute
	Statics                   []StaticTranslation
	Dynamics                  []DynamicTranslation
	Groups                    []ResolvedGroup
	SSH                       []ResolvedSSH
}

// ResolvedSSH lets a network reach the shell over an interface.
type ResolvedSSH struct {
	From netip.Prefix
	On   *Interface
}

// ResolvedMedia is a media-termination address on its interface.
type ResolvedMedia struct {
	Addr      netip.Addr
	Interface *Interface
}

// ResolvedUCM is a call agent with its translations.
type ResolvedUCM struct {
	UCM
	Interface *Interface
	// Mapped is the address of a whole static translation; zero when there is none.
	Mapped netip.Addr
	// Ports are static translations of single TCP ports.
	Ports []StaticTranslation
	// Source is the address that its outbound connections come from: Mapped, or the address that hides it.
	Source netip.Addr
}

// ResolvedRoute is a route on its interface.
type ResolvedRoute struct {
	Route
	On *Interface
}

// StaticTranslation is a static NAT; ports 0 are the whole address.
type StaticTranslation struct {
	Real, Mapped         *Interface
	RealAddr, MappedAddr netip.Addr
	Proto                string // tcp or udp with ports, else empty
	RealPort, MappedPort uint16
}

// DynamicTranslation hides a prefix behind an address.
type DynamicTranslation struct {
	Real, Mapped *Interface
	RealPrefix   netip.Prefix
	MappedAddr   netip.Addr // zero: the address of the interface Mapped
}

// ResolvedGroup is an access list on an interface, without its remarks. What no rule fits is denied.
type ResolvedGroup struct {
	Interface *Interface
	Direction string // in or out
	ACL       string
	Global    string // the global access list behind it; ACL itself where the interface has none of its own
	Rules     []Rule
}

// Rule is an access-list entry with its objects followed. Its addresses are real ones.
type Rule struct {
	Pos
	Permit             bool
	Proto              string       // ip, tcp, udp or icmp
	Src, Dst           netip.Prefix // invalid: any
	SrcPorts, DstPorts PortRange
	Log                EntryLog
}

// Inspection is a class of SIP that goes through the proxy.
type Inspection struct {
	Pos
	Policy, Class string
	Interface     *Interface // nil: on all interfaces
	TLSProxy      *TLSProxy
	DSCP          []ClassDSCP
	Flows         []Flow
}

// Flow is SIP between one call agent and its peers.
type Flow struct {
	Pos
	UCM  netip.Addr   // real address of the call agent
	Peer netip.Prefix // who is on the other side; invalid: anyone
	// Ports are those of the destination: the call agent's real ones inbound, the peer's outbound.
	Ports PortRange
	// Mapped is the call agent's address on the outside.
	Mapped netip.Addr
	// MappedPorts are, inbound, the ports of Mapped that peers connect to. With a static NAT of the whole address they are Ports.
	MappedPorts PortRange
}

// Resolve follows all names and checks the configuration. Resolved is nil when a diagnostic is an error.
func (c *Config) Resolve() (*Resolved, Diagnostics) {
	k := &checker{c: c, r: &Resolved{UCIME: c.UCIME}}
	k.interfaces()
	k.routes()
	k.translations()
	k.accessLists()
	k.crypto()
	k.tlsProxies()
	k.callAgents()
	k.media()
	k.proxy()
	k.peerServer()
	k.policies()
	k.ssh()
	k.logging()
	k.found.sort()
	// One thing that is used twice is reported once.
	k.found = slices.CompactFunc(k.found, func(a, b Diagnostic) bool {
		return a.Line == b.Line && a.Col == b.Col && a.Severity == b.Severity && a.Message == b.Message
	})
	if k.found.HasErrors() {
		return nil, k.found
	}
	return k.r, k.found
}

// Check compares the commands with each other, as far as that needs no system, and points at the command concerned.
func (c *Config) Check() Diagnostics {
	_, found := c.Resolve()
	return found
}
