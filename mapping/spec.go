package mapping

import "net/netip"

const (
	// Mark is the packet mark (and conntrack mark) of intercepted connections. Sockets must not set it with SO_MARK.
	Mark = 0x1e
	// RouteTable is the routing table that delivers packets with Mark locally.
	RouteTable = 30
)

// Interface is a network interface under the appliance's rules.
type Interface struct {
	Link    string       // Linux name
	Name    string       // nameif, for messages
	Level   int          // security level, 0 (Internet) to 100
	Address netip.Prefix // host bits kept; added when absent; the zero value leaves the interface's addresses alone
}

// Route is a static route of the main table.
type Route struct {
	Link    string
	Dst     netip.Prefix // masked; 0.0.0.0/0 is the default route
	Gateway netip.Addr   // zero: directly on the link
	// Priority tells routes to one network apart: the kernel takes the lowest whose interface is up. 0 is the kernel's default.
	Priority int
}

// Address is an address of the appliance besides the interface's own: media termination, mapped address. It is added as /32
// when the interface has it not, and announced by gratuitous ARP. Mapped addresses of Statics and Dynamics need not be
// listed: they are added to their MappedLink.
type Address struct {
	Link string
	Addr netip.Addr
}

// Intercept takes TCP connections of one entry of a class's access list to a local listener.
type Intercept struct {
	Outbound   bool         // from the inside: any destination but the appliance's own addresses
	InLinks    []string     // interfaces on which the connections arrive
	Src, Dst   netip.Prefix // zero = any. Dst is the address on the wire: the mapped address for inbound
	PortLo     uint16       // destination ports, on the wire; 0,0 = any
	PortHi     uint16
	ListenPort uint16 // of the IP_TRANSPARENT listener on 127.0.0.1
	ID         string // under which Hits counts it; "" is not counted, at most MaxID bytes
}

// StaticNAT translates one host both ways, or one of its ports (static PAT).
type StaticNAT struct {
	RealLink, MappedLink string
	Real, Mapped         netip.Addr
	RealPort, MappedPort uint16 // 0 = whole address
	Proto                string // "tcp" or "udp" with ports; "" with ports = both
}

// DynamicNAT translates the sources of a network to one address, ports included (dynamic PAT).
type DynamicNAT struct {
	RealLink, MappedLink string
	Real                 netip.Prefix
	Mapped               netip.Addr // zero = the address of MappedLink (masquerade)
}

// Rule is one entry of an access list. Addresses are real ones, after translation back.
type Rule struct {
	Permit       bool
	Proto        string // "ip", "tcp", "udp" or "icmp"
	Src, Dst     netip.Prefix
	SrcLo, SrcHi uint16 // 0,0 = any; tcp and udp only
	DstLo, DstHi uint16
	Log          bool   // the flows that it decides on are followed and told, see Denials and Flows
	Quiet        bool   // without Log: what it denies is not told
	ID           string // under which Hits counts it; "" is not counted, at most MaxID bytes
}

// AccessGroup binds rules to an interface and a direction: "in" (packets that arrive on it) or "out". Its end is an implicit
// deny.
type AccessGroup struct {
	Link, Direction string
	Name            string // of the access list, for the log
	Rules           []Rule
	layers          []*layer // the rules arranged; nil: not yet, or a short list
}

// MediaRange is the UDP ports of one media-termination address. They are not tracked.
type MediaRange struct {
	Addr   netip.Addr
	Lo, Hi uint16
}

// Steering takes the datagrams for media ports to sockets that each serve many streams. Of n workers, number (port>>1)&(n-1) has a
// destination port: a pair of ports stays together.
type Steering struct {
	Workers []uint16 // ports of IP_TRANSPARENT sockets on 127.0.0.1; none, or a power of two
	// Tapped are the links where the workers read whole datagrams for media ports before any rule is asked: the network layer
	// must not see them again. They are interfaces of the spec.
	Tapped []string
}

// MediaTap is an interface, the media ports that may be reached over it, and the networks behind more trusted ones: a media packet
// with a source in these is forged.
type MediaTap struct {
	Link    string
	Ranges  []MediaRange
	Refused []netip.Prefix
}

// MediaTaps lists the interfaces on which media may be read before the rules are asked.
func (s Spec) MediaTaps() []MediaTap {
	var out []MediaTap
	for _, i := range s.Interfaces {
		if r := s.mediaOn(i); len(r) > 0 {
			out = append(out, MediaTap{Link: i.Link, Ranges: r, Refused: s.above(i)})
		}
	}
	return out
}

// mediaOn are the media ports that senders behind an interface may reach: the inside's media address is not for senders outside.
func (s Spec) mediaOn(i Interface) (out []MediaRange) {
	for _, m := range s.Media {
		if o, ok := s.owner(m.Addr); ok && o.Link != i.Link && s.outside(i) {
			continue
		}
		out = append(out, m)
	}
	return out
}

// OpenPort is a port of the appliance that lower-security interfaces may reach.
type OpenPort struct {
	Link  string       // "" = all lower-security interfaces
	Proto string       // "tcp" or "udp"
	Addr  netip.Addr   // zero = any of the appliance's addresses
	Src   netip.Prefix // zero = any
	Port  uint16
	// PortHi is the last of a range; 0: Port alone.
	PortHi uint16
}

// PortSpan is a range of ports, both ends included; the zero value is none.
type PortSpan struct{ Lo, Hi uint16 }

// Spec is all that the kernel is told. It is a value: Apply and Update keep no reference to its slices.
type Spec struct {
	Interfaces []Interface
	Routes     []Route
	Addresses  []Address
	Intercepts []Intercept
	Statics    []StaticNAT
	Dynamics   []DynamicNAT
	Groups     []AccessGroup
	// DenyFlows is how many denied flows of one access group and protocol are followed at once; 0 is MaxFlows.
	DenyFlows int
	Media     []MediaRange
	Steering  Steering
	Open      []OpenPort
	// SameLevel lets interfaces of one security level reach each other.
	SameLevel bool
	// Reserved ports are given to no socket that asks for any port.
	Reserved PortSpan
}

func (s Spec) link(name string) (Interface, bool) {
	for _, i := range s.Interfaces {
		if i.Link == name {
			return i, true
		}
	}
	return Interface{}, false
}

// owner finds the interface whose network an address belongs to.
func (s Spec) owner(a netip.Addr) (Interface, bool) {
	for _, i := range s.Interfaces {
		if i.Address.IsValid() && i.Address.Contains(a) {
			return i, true
		}
	}
	return Interface{}, false
}

// outside tells a lower-security interface, on which the appliance protects itself: level 0, or any level below the
// highest of the configuration.
func (s Spec) outside(i Interface) bool {
	if i.Level == 0 {
		return true
	}
	for _, o := range s.Interfaces {
		if o.Level > i.Level {
			return true
		}
	}
	return false
}

// above lists the networks behind interfaces that are more secure than i: no packet that arrives on i comes from there.
func (s Spec) above(i Interface) []netip.Prefix {
	var out []netip.Prefix
	for _, o := range s.Interfaces {
		if o.Level <= i.Level {
			continue
		}
		if o.Address.IsValid() {
			out = append(out, o.Address.Masked())
		}
		for _, r := range s.Routes {
			if r.Link == o.Link && r.Dst.Bits() > 0 {
				out = append(out, r.Dst.Masked())
			}
		}
	}
	return out
}

// group finds the access group of an interface and direction.
func (s Spec) group(link, direction string) (AccessGroup, bool) {
	for _, g := range s.Groups {
		if g.Link == link && g.Direction == direction {
			return g, true
		}
	}
	return AccessGroup{}, false
}

// whole tells a translation of all ports from one of a single port.
func (n StaticNAT) whole() bool { return n.RealPort == 0 }

// identity tells a translation that changes nothing ("nat exemption").
func (n StaticNAT) identity() bool { return n.Real == n.Mapped && n.RealPort == n.MappedPort }

// protos lists the protocols of a port translation.
func (n StaticNAT) protos() []string {
	if n.Proto == "" {
		return []string{"tcp", "udp"}
	}
	return []string{n.Proto}
}
