package config

import (
	"net/netip"
	"time"
)

// Sensitivity is a fallback QOS sensitivity level, 0 (disabled) to 5 (aggressive), as the proxy is told of it
// (protocol/fallback.md).
type Sensitivity int

// The levels, from the least to the most sensitive.
const (
	Disabled Sensitivity = iota
	Utility
	Accommodative
	Nominal
	Moderate
	Aggressive
)

var sensitivities = []string{"disable", "utility", "accommodative", "nominal", "moderate", "aggressive"}

// String is the word of the configuration.
func (s Sensitivity) String() string { return sensitivities[s] }

// Listener is where a trunk takes SIP.
type Listener struct {
	Transport string // "udp" or "tcp"
	Addr      netip.AddrPort
}

// Trunk leads to a PBX or to the PSTN.
type Trunk struct {
	Name           string
	Listen         []Listener // one a transport at most
	Peer           Listener   // where calls go, and the one host from which they come
	CallRate       int        // calls begun a second at most, 0: no limit (PSTN trunks)
	Transformation string     // E.164 transformation (PSTN trunks)
	FallbackCalled string     // transformation of a fallback number to what the PSTN trunk dials, "" for none
}

// IMETrunk leads to the proxy.
type IMETrunk struct {
	Name                         string
	Listen                       Listener
	InboundCalled, InboundCaller string // number transformations towards the PBX, "" for none
}

// ExternalAddress is how other enterprises reach this call agent.
type ExternalAddress struct {
	Host string
	Port int
}

// Service is an intercompany media service (guide table 12).
type Service struct {
	Name, Description, Domain  string
	TrustGroup, ExclusionGroup string // "" for none
	Firewall                   string // off-path mapping service, "" in line
	EnrolledGroups             []string
	External                   []ExternalAddress
	Primary, Secondary         string // peer servers, "" for none
	Activated                  bool
}

// EnrolledGroup is a set of own numbers (guide table 6).
type EnrolledGroup struct {
	Name, Description string
	FallbackProfile   string // "" for none: its calls do not fall back
	Aliases           bool
	Patterns          []string
}

// TrustGroup trusts, or does not trust, domains and prefixes (guide tables 10 and 11).
type TrustGroup struct {
	Name, Description string
	Trusted           bool
	Domains, Prefixes []string
}

// ExclusionGroup holds own numbers that do not use the service (guide tables 8 and 9).
type ExclusionGroup struct {
	Name, Description string
	Numbers           []string
}

// Rule rewrites a number that Pattern matches: Strip digits go, then Prefix comes before the rest.
type Rule struct {
	Pattern string
	Strip   int
	Prefix  string
}

// Transformation is a list of rules; the first one that matches is applied, and a number that none matches stays as it is.
type Transformation struct {
	Name  string
	Rules []Rule
}

// E164Transformation turns the numbers of a PSTN access trunk into +E.164 (guide table 15). "" leaves a number alone.
type E164Transformation struct {
	Name                                                             string
	OutgoingCalling, OutgoingCalled, IncomingCalling, IncomingCalled string
}

// FallbackProfile is a fallback profile (guide table 17).
type FallbackProfile struct {
	Name, Description string
	AdvertisedNumber  string      // +E.164, dialled by the originating side
	DirectoryNumber   string      // how that number arrives on the PSTN trunk; "" as advertised
	Sensitivity       Sensitivity // default: the feature's
	AnswerTimer       time.Duration
	CallerIDDigits    int // that must match at least
}

// FallbackFeature holds the fallback feature parameters (guide table 18).
type FallbackFeature struct {
	Enable          bool
	Sensitivity     Sensitivity
	Digits          int
	CollectionTimer time.Duration
	AnswerTimer     time.Duration
}

// Feature holds the feature parameters that have a meaning outside of the original product (guide table 16).
type Feature struct {
	ConnectionTimer         time.Duration
	ProgressTimer           time.Duration // not of the guide
	SessionTimer            time.Duration // not of the guide; 0: none
	FirewallConnectionTimer time.Duration
	FirewallMappingTimer    time.Duration
	FirewallIdleTimer       time.Duration
	FailedCallThreshold     int // percent
	FallbackThreshold       int // percent
	QualityInterval         time.Duration
	OutboundCalls           bool
	Intradomain             bool
}

// Firewall is an off-path mapping service (guide table 19).
type Firewall struct {
	Name, Description string
	Addr              netip.AddrPort
}

// Media is where correlation digits are sent and collected.
type Media struct {
	Addr      netip.Addr
	Low, High int // UDP ports, even ones are used
}

// Config is a whole configuration.
type Config struct {
	StateDir        string
	Control         string // Unix socket
	Metrics         string // address of the Prometheus endpoint, "" for none
	VCRQueue        int
	MaximumCalls    int
	Media           Media
	PBX             *Trunk
	PSTN            []*Trunk // in the order of their use
	IME             *IMETrunk
	Service         *Service
	EnrolledGroups  map[string]*EnrolledGroup
	TrustGroups     map[string]*TrustGroup
	ExclusionGroups map[string]*ExclusionGroup
	Transformations map[string]*Transformation
	E164            map[string]*E164Transformation
	Profiles        map[string]*FallbackProfile
	Firewalls       map[string]*Firewall
	Servers         map[string]*Server
	Fallback        FallbackFeature
	Feature         Feature
}
