package config

import (
	"fmt"
	"io"
	"net/netip"
	"time"
)

// Defaults of a peer server.
const (
	DefaultRingPort        = 6084
	DefaultValidatorPort   = 8470
	DefaultVAPPort         = 5620
	DefaultBucketEntropy   = 24
	DefaultCallInterval    = time.Hour
	DefaultDelayMin        = time.Minute
	DefaultDelayMax        = 5 * time.Minute
	DefaultRecordLifetime  = 72 * time.Hour
	DefaultVAPKeepalive    = 30 * time.Second
	DefaultVAPConnections  = 16
	maxPeerServerBootstrap = 16
	maxVAPServers          = 16
	maxVAPUsers            = 64
)

// CustomerFields are what `customer-info` tells about whom to call when the server is seen to be set up wrongly (guide lines 1807-1815).
var CustomerFields = [7]string{"company", "unit", "state", "country", "contact-name", "contact-email", "contact-phone"}

// maxCustomerText bounds each of them in bytes.
const maxCustomerText = 128

// PeerServer is the co-resident peer server: what the guide calls the IME server (guide lines 1678-1859).
type PeerServer struct {
	Pos
	Domain         string // of the enterprise; empty: Config.DomainName
	Interface      string // a nameif: where the ring and the validator are reached
	RingPort       uint16
	ValidatorPort  uint16
	PublicAddress  netip.Addr // what others are told; zero: the address of Interface
	BootstrapSelf  bool       // it is a bootstrap server of the ring
	Bootstraps     []BootstrapHost
	EnrollmentURL  string // of the authority that gives certificates
	TrustFile      string // of the state directory: the authority's authority.pem
	TicketEpoch    int    // 1 to 255; 0: those of the uc-ime
	TicketPassword Secret
	VAPServers     []*VAPServer
	VAPUsers       []*VAPUser
	BucketEntropy  int           // what a bucket must be worth before its routes are learned
	CallInterval   time.Duration // between two validated calls of one number
	DelayMin       time.Duration // of the random wait before a validation
	DelayMax       time.Duration
	RecordLifetime time.Duration // how long a call that came in can be proven
	Webhook        string        // URL that alerts are sent to; empty: none
	Customer       [7]string     // by CustomerFields; empty: not told
	Where          Places
}

// BootstrapHost is where a bootstrap server of the ring is reached.
type BootstrapHost struct {
	Pos
	Host string // address or name
	Port uint16
}

// VAPServer is a port at which call agents register (guide line 1686).
type VAPServer struct {
	Pos
	Name           string
	Interface      string // a nameif; empty: the line that says so is missing
	Port           uint16
	Encrypted      bool
	Trustpoint     string // identity of an encrypted one
	Keepalive      time.Duration
	MaxConnections int
	Shutdown       bool
}

// VAPUser is a call agent's user (guide line 1731).
type VAPUser struct {
	Pos
	Name     string
	Password Secret
}

// Format writes the canonical text, so that no verb shows a password (see UCIME.Format).
func (s *PeerServer) Format(f fmt.State, _ rune) {
	var w writer
	writePeerServer(&Config{PeerServer: s}, &w)
	_, _ = io.WriteString(f, w.b.String())
}

// Format writes the user without the password.
func (u *VAPUser) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "vapuser %s password %s", u.Name, stars)
}

// VAPServer finds a VAP server by its name; nil: there is none.
func (s *PeerServer) VAPServer(name string) *VAPServer {
	return find(s.VAPServers, func(x *VAPServer) bool { return x.Name == name })
}
