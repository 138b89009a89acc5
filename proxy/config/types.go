package config

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"time"
)

// Pos is a place in the text that a Config was parsed from; both count from 1, columns in characters. The zero Pos is unknown.
type Pos struct{ Line, Col int }

// Places holds where the settings of an object stand, by the keyword of the command.
type Places map[string]Pos

// Config is a whole configuration. References between its parts are names; Check says whether they lead anywhere.
type Config struct {
	Hostname, DomainName               string
	Banners                            []Banner
	Interfaces                         []*Interface
	Routes                             []Route
	ObjectGroups                       []*ObjectGroup
	ServiceGroups                      []*ServiceGroup
	SameSecurity                       bool // interfaces of one level reach each other
	Objects                            []*NetworkObject
	AccessLists                        []*AccessList
	AccessGroups                       []AccessGroup
	MediaTerminations                  []*MediaTermination
	UCIME                              *UCIME        // nil: none
	PeerServer                         *PeerServer   // nil: none
	MappingIdle                        time.Duration // timeout uc-ime-mapping; 0: DefaultMappingIdle
	Trustpoints                        []*Trustpoint
	CryptoActions                      []CryptoAction // in the order of the text
	TLSProxies                         []*TLSProxy
	TLSProxyMaxSessions                int      // 0: DefaultMaxSessions
	SSLEncryption                      []string // keywords; empty: every strong algorithm
	SSLClientVersion, SSLServerVersion string   // tlsv1.2, tlsv1.3 or empty: 1.2 and newer
	ClassMaps                          []*ClassMap
	PolicyMaps                         []*PolicyMap
	ServicePolicies                    []ServicePolicy
	Users                              []*User
	ShunDuration                       time.Duration // of sources that fail too often; 0: they are not shunned
	DenyFlowMax                        int           // denied flows that are logged at once; 0: DefaultDenyFlowMax
	AlertInterval                      time.Duration // between two alerts that it is reached; 0: DefaultAlertInterval
	EnablePassword                     Secret        // bcrypt; empty: enable asks for none
	EnableAt                           Pos
	SSH                                SSH
	Logging                            Logging
	Where                              Places // single settings of the whole box

	file   string
	typed  int // lines that came after the text
	kept   printed
	source []string   // the lines as they may be shown: secrets masked
	doubts [][]string // the words of mistaken lines, and of those that a mistaken line took with it; no secrets
}

// Defaults of settings that the text leaves out.
const (
	DefaultMaxSessions     = 10000
	DefaultMinPort         = 16384
	DefaultMaxPort         = 32767
	DefaultBatchWait       = 500 * time.Microsecond
	DefaultMonitoringTimer = 100 * time.Millisecond
	DefaultHoldDownTimer   = 20 * time.Second
	// DefaultNotificationRate is what a PSTN trunk or two take, in calls a second.
	DefaultNotificationRate = 10
	DefaultCollectorPort    = 5060
	DefaultMappingPort      = 8060
	DefaultMappingQuota     = 2000
	DefaultMappingLow       = 20000
	DefaultMappingHigh      = 39999
	DefaultMappingLifetime  = 600 * time.Second
	DefaultMappingIdle      = 10 * time.Minute
	DefaultModulus          = 2048
	DefaultSSHPort          = 2022
	DefaultShunDuration     = time.Hour
	// DefaultTLSProxySessions is `tls-proxy maximum-sessions` where it is not configured.
	DefaultTLSProxySessions = 10000
	DefaultSSHTimeout       = 5 * time.Minute
	// DefaultTLSVersion is the oldest that is spoken, also where a command says nothing else.
	DefaultTLSVersion = "tlsv1.2"
	PrivilegeAll      = 15
)

// Banner is one line of a banner; lines of one kind follow each other in the order of the text.
type Banner struct {
	Pos
	Kind string // motd, login or exec
	Text string
}

// User may log in over SSH.
type User struct {
	Pos
	Name       string
	Password   Secret   // bcrypt; empty: none, ***** where the text held that
	Privilege  int      // 0 to 15; below PrivilegeAll a user looks and changes nothing
	PublicKeys []string // "TYPE BASE64", as in an authorized_keys file
}

// SSH is the access to the shell over SSH.
type SSH struct {
	Port    uint16        // 0: DefaultSSHPort
	Timeout time.Duration // without a key pressed; 0: DefaultSSHTimeout
	Allowed []SSHAccess   // empty: no access
}

// SSHAccess lets a network log in over an interface.
type SSHAccess struct {
	Pos
	From      netip.Prefix
	Interface string // a nameif
}

// Interface is a network interface of the machine.
type Interface struct {
	Pos
	Name          string // of the Linux interface
	Nameif        string // the name that other commands use; empty: none
	Description   string
	SecurityLevel int          // 0 to 100
	Address       netip.Prefix // with its host part; invalid: none
	Shutdown      bool
	Where         Places
}

// Route is a static route.
type Route struct {
	Pos
	Interface string // a nameif
	Dst       netip.Prefix
	Gateway   netip.Addr
	Metric    int // 1 to 255
}

// NetworkObject names an address or a subnet, and may say how it is translated.
type NetworkObject struct {
	Pos
	Name, Description string
	Prefix            netip.Prefix // a host has 32 bits; invalid: not set, or a range
	IsHost            bool
	First, Last       netip.Addr // of a range; invalid: it is none
	NAT               *NAT       // nil: not translated
	Where             Places
}

// Prefixes are the addresses of the object; none: it has no address.
func (o *NetworkObject) Prefixes() []netip.Prefix {
	if o.Prefix.IsValid() {
		return []netip.Prefix{o.Prefix}
	}
	return rangePrefixes(o.First, o.Last)
}

// ends are the first and the last address of an object; invalid: it has none.
func (o *NetworkObject) ends() (first, last netip.Addr) {
	if !o.Prefix.IsValid() {
		return o.First, o.Last
	}
	first = o.Prefix.Masked().Addr()
	return first, plus(first, 1<<(32-o.Prefix.Bits())-1)
}

// size is how many addresses an object has.
func (o *NetworkObject) size() int {
	first, last := o.ends()
	if !first.IsValid() || !last.IsValid() {
		return 0
	}
	return distance(first, last) + 1
}

// number is the place of an address in an object, counted from 0; -1: it is not there.
func (o *NetworkObject) number(a netip.Addr) int {
	first, last := o.ends()
	if !first.IsValid() || !last.IsValid() || a.Less(first) || last.Less(a) {
		return -1
	}
	return distance(first, a)
}

func distance(a, b netip.Addr) int {
	x, y := a.As4(), b.As4()
	return int(binary.BigEndian.Uint32(y[:])) - int(binary.BigEndian.Uint32(x[:]))
}

// plus is the address n behind another.
func plus(a netip.Addr, n int) netip.Addr {
	b := a.As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(n))
	return netip.AddrFrom4(b)
}

// rangePrefixes are the fewest prefixes that hold the addresses from first to last.
func rangePrefixes(first, last netip.Addr) []netip.Prefix {
	if !first.IsValid() || !last.IsValid() {
		return nil
	}
	number := func(a netip.Addr) uint64 { b := a.As4(); return uint64(binary.BigEndian.Uint32(b[:])) }
	lo, hi := number(first), number(last)
	var out []netip.Prefix
	for lo <= hi {
		size := uint64(1)
		for lo%(size*2) == 0 && lo+size*2-1 <= hi && size < 1<<32 {
			size *= 2
		}
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(lo))
		out = append(out, netip.PrefixFrom(netip.AddrFrom4(b), 32-bits.Len64(size)+1))
		lo += size
	}
	return out
}

// ObjectGroup names several objects.
type ObjectGroup struct {
	Pos
	Name, Description string
	Members           []GroupMember
}

// GroupMember is one of Prefix, Object and Group.
type GroupMember struct {
	Pos
	Prefix        netip.Prefix
	Object, Group string
}

// ServiceGroup names several ports of a protocol (tcp, udp or tcp-udp), or with an empty Proto protocols with their ports.
type ServiceGroup struct {
	Pos
	Name, Description, Proto string
	Members                  []ServiceMember
}

// ServiceMember is a Group, or what it stands for: Proto (tcp, udp, tcp-udp, ip, icmp) in a group of protocols, Dst alone in one of ports.
type ServiceMember struct {
	Pos
	Proto    string
	Src, Dst PortRange
	Group    string
}

// NAT is the translation of an object. One of MappedObject, MappedAddr and MappedInterface is set.
type NAT struct {
	Pos
	Real, Mapped    string // nameifs
	Dynamic         bool
	MappedObject    string
	MappedAddr      netip.Addr
	MappedInterface bool        // the address of the mapped interface; only with Dynamic
	Service         *NATService // nil: the whole address; only without Dynamic
}

// NATService limits a static translation to one port.
type NATService struct {
	Proto                string // tcp or udp
	RealPort, MappedPort uint16
}

// AccessList is a list of entries in the order of the text.
type AccessList struct {
	Name    string
	Entries []ACE
}

// ACE is an entry of an access list. With a Remark the rest is empty.
type ACE struct {
	Pos
	Remark             string
	Extended, Permit   bool
	Proto              string // ip, tcp, udp or icmp; empty with Services
	Services           string // a group of protocols with their ports
	Src, Dst           Endpoint
	SrcPorts, DstPorts PortRange
	DstGroup           string // a group of ports, in place of DstPorts
	SrcNeq, DstNeq     bool   // every port but SrcPorts.Lo, DstPorts.Lo
	Log                EntryLog
	Inactive           bool // it stands in the list and does nothing
}

// Endpoint is one side of an access-list entry: any address, a prefix or an object's name.
type Endpoint struct {
	Any    bool
	Prefix netip.Prefix
	Object string
	Group  string
}

// PortRange holds both ends of a range; 0,0 is any port.
type PortRange struct{ Lo, Hi uint16 }

// Any says whether the range holds every port.
func (r PortRange) Any() bool { return r == PortRange{} }

// Contains says whether a port lies in the range.
func (r PortRange) Contains(port uint16) bool { return r.Any() || (port >= r.Lo && port <= r.Hi) }

// AccessGroup binds an access list to an interface.
type AccessGroup struct {
	Pos
	ACL       string
	Direction string // in, out or global
	Interface string // a nameif; empty with global
}

// MediaTermination is the set of addresses that media streams end on.
type MediaTermination struct {
	Pos
	Name             string
	Addresses        []MediaAddress
	MinPort, MaxPort uint16
	Engine           string        // tproxy or sockets; empty: the fastest that the system allows
	BatchWait        time.Duration // of engines xdp and tproxy, 0 to MaxBatchWait
	Where            Places
}

// MediaAddress is one media-termination address.
type MediaAddress struct {
	Pos
	Addr      netip.Addr
	Interface string // a nameif; empty: global
}

// UCIME is the proxy itself.
type UCIME struct {
	Pos
	Name, MediaTermination string
	UCMs                   []UCM
	TicketEpoch            int      // 1 to 255; 0: no ticket command
	TicketPassword         Secret   // 10 to 64 characters
	TicketRejectDrop       bool     // a request with a bad ticket is dropped instead of answered
	Transfers              []string // beginnings of the numbers that other enterprises may have calls transferred to, each with its +
	NoRTCP                 bool     // RTCP is dropped instead of converted
	MonitoringTimer        time.Duration
	HoldDownTimer          time.Duration
	NotificationRate       int            // calls in any second
	Collector              netip.AddrPort // of quality reports; zero: none
	ReportXR               bool           // RTCP XR of our own to the far ends outside
	SensitivityFile        string
	Mapping                *MappingService
	MappingQuota           int           // mappings a call agent
	MappingLow             uint16        // ports of the mappings
	MappingHigh            uint16        // not below MappingLow
	MappingLifetime        time.Duration // whole seconds
	MappingAllowPrivate    bool          // private addresses outside may be called
	Where                  Places
}

// UCM is a call agent of the enterprise, by its real address.
type UCM struct {
	Pos
	Addr   netip.Addr
	Secure bool // TLS and SRTP inside too
}

// MappingService is the service of off-path deployments.
type MappingService struct {
	Pos
	ListenInterface string // a nameif
	ListenPort      uint16
	UCIMEInterface  string // a nameif
}

// Trustpoint is an identity or an authority.
type Trustpoint struct {
	Pos
	Name        string
	Enrollment  string // terminal, self or empty
	SubjectName string // canonical X.500 text
	FQDN        string
	KeyPair     string // label
	Where       Places
}

// CryptoKind is what a CryptoAction does.
type CryptoKind int

// The kinds of CryptoAction.
const (
	GenerateKey CryptoKind = iota + 1
	Authenticate
	ImportCertificate
	Enroll         // self: makes the certificate; terminal: makes a request as long as there is no certificate
	ExportIdentity // puts the identity certificate where it can be picked up
)

// CryptoAction is a line that makes or stores keys or certificates. Keys, self-signed certificates and requests are made where they are
// absent. An Authenticate or ImportCertificate without PEM means what the state directory holds.
type CryptoAction struct {
	Pos
	Kind       CryptoKind
	Algorithm  string // rsa or ecdsa; GenerateKey only
	Label      string // GenerateKey only
	Bits       int    // modulus or curve; GenerateKey only
	Trustpoint string // all but GenerateKey
	PEM        []byte // certificates that follow the command; Authenticate and ImportCertificate only, may be empty
}

// TLSProxy holds the identities and cipher suites of one direction.
type TLSProxy struct {
	Pos
	Name                               string
	ServerTrustpoint, ClientTrustpoint string
	ClientCipherSuites                 []string // keywords; empty: as ssl encryption
	Where                              Places
}

// ClassMap is a class of traffic.
type ClassMap struct {
	Pos
	Name, AccessList string
	Where            Places
}

// PolicyMap gives classes their actions.
type PolicyMap struct {
	Pos
	Name    string
	Classes []*PolicyClass
}

// PolicyClass is a class in a policy map.
type PolicyClass struct {
	Pos
	Class   string
	Inspect *InspectSIP // nil: no action
	DSCP    []ClassDSCP // one a medium at most
}

// ClassDSCP marks the media of a class's calls.
type ClassDSCP struct {
	Pos
	Media string // "audio" or "video"
	Value string // as checkDSCP takes it
}

// InspectSIP sends the class through the proxy.
type InspectSIP struct {
	Pos
	Map, UCIME, TLSProxy string
}

// ServicePolicy enables a policy map on all interfaces or on one.
type ServicePolicy struct {
	Pos
	Policy    string
	Global    bool
	Interface string // a nameif
}
