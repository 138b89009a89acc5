package observe

import "time"

// TicketLabels are the counters of the ticket check in the order of the check, exactly as printed.
var TicketLabels = [8]string{
	"Ticket not found",
	"Ticket decode failed",
	"Ticket epoch mismatch",
	"Ticket integrity check failed",
	"Ticket timestamp invalid",
	"Ticket DID mismatch",
	"Ticket domain check failed",
	"Route domain name check failed",
}

// Statistics is the snapshot behind `show uc-ime signaling-sessions statistics`. All values count from the start of the daemon (or the
// last `clear uc-ime statistics`). Its JSON form is one flat object.
type Statistics struct {
	Tickets           map[string]uint64 // by label of TicketLabels or its snake case; a missing one is 0, any other is ignored
	TicketsVerified   uint64            // requests whose ticket passed every check
	Verification      map[string]uint64 // messages refused, by cause in snake case
	SessionsRefused   uint64            // signaling sessions refused at tls-proxy maximum-sessions
	HandshakeFailures map[string]uint64 // TLS handshakes that failed, by reason in snake case
	OptionsAnswered   uint64            // OPTIONS from the Internet that the proxy answered itself
	UnknownDialog     uint64            // requests answered 481
	DialogsOpened     uint64
	DialogsEnded      uint64
	Keepalives        uint64            // RFC 5626 pings answered
	Other             map[string]uint64 // further counters, snake case, printed last
}

// TLSProxySessions is the snapshot behind `show tls-proxy`.
type TLSProxySessions struct {
	MaximumSessions int                    `json:"maximum_sessions"`
	InUse           int                    `json:"in_use"`
	MostUsed        int                    `json:"most_used"`
	Refused         uint64                 `json:"refused"`
	Proxies         List[TLSProxyInstance] `json:"proxies"`
}

// TLSProxyInstance is one `tls-proxy NAME` of the configuration.
type TLSProxyInstance struct {
	Name             string       `json:"name"`
	ServerTrustpoint string       `json:"server_trust_point"` // "" = not configured
	ClientTrustpoint string       `json:"client_trust_point"`
	CipherSuites     List[string] `json:"cipher_suites"` // as configured; empty = the default list
	InUse            int          `json:"in_use"`
}

// Conns is the snapshot behind `show conn`.
type Conns struct {
	InUse    int        `json:"in_use"`
	MostUsed int        `json:"most_used"`
	Conns    List[Conn] `json:"connections"`
}

// Conn is one connection through the appliance. Addresses are "ip:port".
type Conn struct {
	Protocol         string  `json:"protocol"`          // "TCP", "UDP"
	OutsideInterface string  `json:"outside_interface"` // nameif, "outside"
	Outside          string  `json:"outside"`
	InsideInterface  string  `json:"inside_interface"`
	Inside           string  `json:"inside"`
	Idle             Seconds `json:"idle"`
	Bytes            uint64  `json:"bytes"` // both directions
	Flags            string  `json:"flags"` // "UIOT": see `show conn` in docs/show.md
}

// Certificates is the snapshot behind `show crypto ca certificates`.
type Certificates struct {
	Certificates List[Certificate] `json:"certificates"`
}

// Certificate is one certificate of a trustpoint, or the request for it: without an end date the Status must be given, and what only a certificate has is
// not printed, and its dates are not in the JSON.
type Certificate struct {
	Trustpoint   string       `json:"associated_trustpoints"`
	CA           bool         `json:"ca"`     // a CA certificate; else the identity
	Status       string       `json:"status"` // "Available", "Pending terminal enrollment", "Expired", "Unusable: WHY"; "" is worked out from the dates
	Subject      string       `json:"subject_name"`
	Issuer       string       `json:"issuer_name"`
	SerialNumber string       `json:"certificate_serial_number"` // hexadecimal
	Usage        string       `json:"certificate_usage"`         // "General Purpose", "Signature"; "" = General Purpose
	KeyType      string       `json:"public_key_type"`           // "RSA", "ECDSA"
	KeyBits      int          `json:"public_key_bits"`
	Signature    string       `json:"signature_algorithm"` // "SHA256-RSA"
	NotBefore    time.Time    `json:"start_date"`
	NotAfter     time.Time    `json:"end_date"`           // zero: a request, or a certificate that cannot be read
	Names        List[string] `json:"names"`              // DNS names and SIP URIs
	DaysLeft     int          `json:"days_left"`          // whole days rounded down: negative after the end
	Fingerprint  string       `json:"sha256_fingerprint"` // hexadecimal; "" is not printed
}

// Version is the snapshot behind `show version`.
type Version struct {
	Hostname  string    `json:"hostname"`
	Version   string    `json:"version"`
	Commit    string    `json:"commit"` // "" is not printed
	GoVersion string    `json:"go_version"`
	Kernel    string    `json:"kernel"` // release of the Linux kernel
	Started   time.Time `json:"started"`
	Up        Seconds   `json:"up"`
	Config    string    `json:"configuration_file"` // "" is not printed
	// Goroutines is how many the daemon runs: it grows with connections and calls and falls back when they end. 0 is not printed.
	Goroutines int `json:"goroutines"`
}

// RunningConfig is the text behind `show running-config [SECTION]`; secrets are already masked.
type RunningConfig struct {
	Section string `json:"section,omitempty"`
	Config  string `json:"running_config"`
}

// StartupConfig is the text behind `show startup-config`; secrets are already masked.
type StartupConfig struct {
	Config string `json:"startup_config"`
}

// Clock is the answer to `show clock`.
type Clock struct {
	Now time.Time `json:"clock"`
}

// Cleared is the answer to `clear conn all`.
type Cleared struct {
	Connections int `json:"connections_deleted"`
}

// Done is the answer of a command that prints nothing; its document says {"done": true}.
type Done struct{}
