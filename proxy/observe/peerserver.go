package observe

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"
)

// ErrNoPeerServer says that a command needs a peer server.
var ErrNoPeerServer = errors.New("no peer-server is configured, or it could not start: see show health")

// PeerServer is the co-resident peer server at one moment: what the `show ime` commands print parts of.
type PeerServer struct {
	Running    bool             `json:"running"`
	Why        string           `json:"why,omitempty"` // it does not run
	Domain     string           `json:"domain"`
	Enrollment PeerEnrollment   `json:"enrollment"`
	Addressing PeerAddressing   `json:"addressing"`
	Ring       PeerRing         `json:"ring"`
	Servers    List[VAPServer]  `json:"vap_servers"`
	Clients    List[VAPClient]  `json:"vap_clients"`
	Services   List[VService]   `json:"vservices"`
	Pools      List[PeerPool]   `json:"pools"`
	Perf       List[PerfObject] `json:"perf"`
}

// PeerEnrollment is license and certificate.
type PeerEnrollment struct {
	Licensed  bool         `json:"licensed"`
	Tag       string       `json:"tag,omitempty"`
	PeerCount int          `json:"peer_count,omitempty"`
	Enrolled  bool         `json:"enrolled"`
	NotAfter  time.Time    `json:"not_after,omitzero"`
	Serial    string       `json:"serial,omitempty"`
	PeerIDs   List[string] `json:"peer_ids"`
	Revoked   bool         `json:"own_certificate_revoked"`
	ListUntil time.Time    `json:"revocation_list_until,omitzero"`
	LastError string       `json:"last_error,omitempty"`
}

// PeerAddressing is where others reach the server.
type PeerAddressing struct {
	Public        string `json:"public_address"`
	Private       string `json:"private_address"`
	DHTPort       uint16 `json:"dht_port"`
	ValidatorPort uint16 `json:"validator_port"`
}

// PeerRing is the distributed cache as this server sees it.
type PeerRing struct {
	Health      string              `json:"health"` // RED, YELLOW or GREEN
	Reason      string              `json:"reason,omitempty"`
	IsBootstrap bool                `json:"bootstrap_server"`
	Members     int                 `json:"members"`
	NodeCount   int                 `json:"node_count"`
	Quota       int                 `json:"quota"`
	QuotaUsed   int                 `json:"quota_used"`
	Placed      int                 `json:"placed"` // numbers that lie with all of their holders
	Tokens      uint64              `json:"tokens_received"`
	MOTD        string              `json:"message_of_the_day,omitempty"`
	Bootstraps  List[PeerBootstrap] `json:"bootstraps"`
	Configured  List[string]        `json:"configured_bootstraps"`
}

// PeerBootstrap is a bootstrap server that was heard of.
type PeerBootstrap struct {
	ID          string        `json:"id"`
	LastContact time.Duration `json:"last_contact_ns"` // negative: none yet
	Sequence    uint64        `json:"sequence"`
	Delay       time.Duration `json:"delay_ns"`
	Distance    int           `json:"peer_count_distance"`
}

// VAPServer is a port for call agents.
type VAPServer struct {
	Name           string        `json:"name"`
	Interface      string        `json:"interface"`
	Port           uint16        `json:"port"`
	Encrypted      bool          `json:"encrypted"`
	Enabled        bool          `json:"enabled"`
	Keepalive      time.Duration `json:"keepalive_ns"`
	MaxConnections int           `json:"max_connections"`
	Listening      string        `json:"listening,omitempty"`
}

// VAPClient is a call agent's connection.
type VAPClient struct {
	Registered bool          `json:"registered"`
	Address    string        `json:"address"`
	Handle     uint32        `json:"handle"`
	Sent       uint64        `json:"packets_sent"`
	Received   uint64        `json:"packets_received"`
	Server     string        `json:"server"`
	User       string        `json:"user"`
	Name       string        `json:"name,omitempty"`
	Missed     int           `json:"missed_keep_alives"`
	Up         time.Duration `json:"up_time_ns"`
}

// VService is what a call agent has published.
type VService struct {
	Name    string       `json:"name"`
	ID      string       `json:"id"`
	User    string       `json:"user"`
	Overlay string       `json:"overlay"`
	Domain  string       `json:"domain"`
	MaxDIDs uint32       `json:"did_count_max"`
	Numbers uint64       `json:"numbers"`
	URIs    List[string] `json:"sip_uris"`
}

// PeerPool is what is known of another peer server.
type PeerPool struct {
	Peer    string           `json:"peer"`
	Value   int              `json:"default_bucket"`
	Results int              `json:"default_results"`
	Numbers List[PeerBucket] `json:"number_buckets"` // the penalty box
	Used    time.Time        `json:"used,omitzero"`
}

// PeerBucket is a number's own bucket.
type PeerBucket struct {
	Number string `json:"number"`
	Value  int    `json:"value"`
}

// PerfObject is a table of counters of the guide (tables 35 to 37).
type PerfObject struct {
	Name     string            `json:"object"`
	Counters List[PerfCounter] `json:"counters"`
}

// PerfCounter is one of its counters.
type PerfCounter struct {
	Name  string  `json:"name"`
	Help  string  `json:"-"`
	Gauge bool    `json:"-"` // it may fall
	Value float64 `json:"value"`
}

// down says why nothing more can be shown.
func (p PeerServer) down() string {
	if p.Running {
		return ""
	}
	return "The peer server does not run: " + Clean(p.Why) + "\n"
}

// DHTSummary is the answer to `show ime dht summary` (guide lines 1774-1785).
type DHTSummary struct{ PeerServer }

// Text gives the guide's layout.
func (d DHTSummary) Text() string {
	var b strings.Builder
	for _, id := range d.Enrollment.PeerIDs {
		fmt.Fprintf(&b, "Peer ID = %s\n", Clean(id))
	}
	if !d.Running {
		return b.String() + d.down()
	}
	r := d.Ring
	fmt.Fprintf(&b, "DHT Health....................... = %s\n", Clean(r.Health))
	for _, x := range r.Bootstraps {
		contact := "never"
		if x.LastContact >= 0 {
			contact = fmt.Sprint(int(x.LastContact / time.Second))
		}
		fmt.Fprintf(&b, "BootStrap: %s\nLast Contact (sec).................. = %s\nCurrent Sequence.................... = %d\n"+
			"Num. Tokens Received................ = %d\nDelay from BootStrap................ = %d\nPeer Count Distance................. = %d\n",
			Clean(x.ID), contact, x.Sequence, r.Tokens, int(x.Delay/time.Second), x.Distance)
	}
	// The guide prints no more than this.
	if r.Reason != "" {
		fmt.Fprintf(&b, "Reason........................... = %s\n", Clean(r.Reason))
	}
	fmt.Fprintf(&b, "Members (peer IDs)............... = %d (%d)\n", r.Members, r.NodeCount)
	fmt.Fprintf(&b, "Numbers published (quota)........ = %d (%d), %d with all holders\n", r.QuotaUsed, r.Quota, r.Placed)
	if r.MOTD != "" {
		fmt.Fprintf(&b, "Message of the day............... = %s\n", Clean(r.MOTD))
	}
	return b.String()
}

// VAPStatus is the answer to `show ime vapstatus summary` (guide lines 3880-3890).
type VAPStatus struct{ PeerServer }

// Text gives the guide's layout, a block a connection.
func (v VAPStatus) Text() string {
	if !v.Running {
		return v.down()
	}
	var b strings.Builder
	b.WriteString("VAP Client Connection Details\n")
	if len(v.Clients) == 0 {
		b.WriteString("No call agent is connected\n")
	}
	for i, c := range v.Clients {
		if i > 0 {
			b.WriteString("\n")
		}
		state := "Registered"
		if !c.Registered {
			state = "Not registered"
		}
		up := int(c.Up / time.Second)
		address, port := c.Address, ""
		if i := strings.LastIndexByte(address, ':'); i >= 0 { // the guide has it compared with the call agent's address
			address, port = address[:i], address[i+1:]
		}
		fmt.Fprintf(&b, "Registration Status ...... %s\nClient IP ADDR............ %s\nClient Handle ............ %d\nPackets Sent ............. %d\nPackets Rcvd ............. %d\n"+
			"VAPServer Name ........... %s\nMissed Keep Alive Count .. %d\nConnection Up Time ....... %d hours %d min %d sec\nClient Port .............. %s\nVAP User ................. %s\n",
			state, Clean(address), c.Handle, c.Sent, c.Received, Clean(c.Server), c.Missed, up/3600, up/60%60, up%60, Clean(port), Clean(c.User))
	}
	return b.String()
}

// VServiceDetails is the answer to `show ime vservice details` (guide lines 3921-3930).
type VServiceDetails struct{ PeerServer }

// Text gives the guide's layout, a block a service.
func (v VServiceDetails) Text() string {
	if !v.Running {
		return v.down()
	}
	if len(v.Services) == 0 {
		return "No call agent has published a service\n"
	}
	var b strings.Builder
	for i, s := range v.Services {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "VServiceProfiles: %s\nVServiceId = %s\noverlay = %s\ndomain = %s\nDiDCount (max) = %d\n", Clean(s.Name), Clean(s.ID), Clean(s.Overlay), Clean(s.Domain), s.MaxDIDs)
		for _, u := range s.URIs {
			fmt.Fprintf(&b, "SIPURI = %s\n", Clean(u))
		}
		fmt.Fprintf(&b, "DiDCount = %d\n", s.Numbers)
	}
	return b.String()
}

// IMEAddressing is the answer to `show ime addressing` (guide lines 1849-1856).
type IMEAddressing struct{ PeerServer }

// Text gives the guide's layout.
func (a IMEAddressing) Text() string {
	const rule = "=====================================\n"
	x := a.Addressing
	return fmt.Sprintf("%sPublic IP Address = %s\nPrivate IP Address = %s\nDHT Port = %d\nValidator Port = %d\n%s", rule, Clean(x.Public), Clean(x.Private), x.DHTPort, x.ValidatorPort, rule)
}

// IMEPeerIDs is the answer to `show ime peerid`.
type IMEPeerIDs struct{ PeerServer }

// Text gives an ID a line.
func (p IMEPeerIDs) Text() string {
	if len(p.Enrollment.PeerIDs) == 0 {
		return "No peer ID: there is no certificate (show ime certenrollment)\n"
	}
	var b strings.Builder
	for _, id := range p.Enrollment.PeerIDs {
		fmt.Fprintln(&b, Clean(id))
	}
	return b.String()
}

// IMEBootstraps is the answer to `show ime bootstrap ip`.
type IMEBootstraps struct{ PeerServer }

// Text gives an address a line.
func (p IMEBootstraps) Text() string {
	var b strings.Builder
	if p.Ring.IsBootstrap {
		b.WriteString("This is a bootstrap server\n")
	}
	for _, a := range p.Ring.Configured {
		fmt.Fprintln(&b, Clean(a))
	}
	return b.String()
}

// VAPServers is the answer to `show ime vapserver`.
type VAPServers struct{ PeerServer }

// Text gives a block a server.
func (v VAPServers) Text() string {
	if len(v.Servers) == 0 {
		return "No vapserver is configured\n"
	}
	var b strings.Builder
	for i, s := range v.Servers {
		if i > 0 {
			b.WriteString("\n")
		}
		mode := "authenticated"
		if s.Encrypted {
			mode = "encrypted"
		}
		fmt.Fprintf(&b, "VAPServer Name ........... %s\nPort ..................... %d\nInterface ................ %s\nAuthentication Mode ...... %s\nEnabled .................. %t\n"+
			"Keepalive Interval ....... %d\nMax Connections Allowed .. %d\n", Clean(s.Name), s.Port, Clean(s.Interface), mode, s.Enabled, int(s.Keepalive/time.Second), s.MaxConnections)
	}
	return b.String()
}

// IMEEnrollment is the answer to `show ime certenrollment`.
type IMEEnrollment struct{ PeerServer }

// Text gives a line a fact.
func (e IMEEnrollment) Text() string {
	x := e.Enrollment
	var b strings.Builder
	if !x.Licensed {
		b.WriteString("License ............. none: utils ime license file install FILE\n")
	} else {
		fmt.Fprintf(&b, "License ............. %s\nPeer count .......... %d\n", Clean(x.Tag), x.PeerCount)
	}
	switch {
	case x.NotAfter.IsZero():
		b.WriteString("Certificate ......... none\n")
	case !x.Enrolled:
		fmt.Fprintf(&b, "Certificate ......... expired at %s\n", asaTime(x.NotAfter))
	default:
		fmt.Fprintf(&b, "Certificate ......... valid until %s\n", asaTime(x.NotAfter))
	}
	if x.Serial != "" {
		fmt.Fprintf(&b, "Serial .............. %s\n", Clean(x.Serial))
	}
	if x.Revoked {
		b.WriteString("Revoked ............. yes: no other server speaks to this one\n")
	}
	for _, id := range x.PeerIDs {
		fmt.Fprintf(&b, "Peer ID ............. %s\n", Clean(id))
	}
	if !x.ListUntil.IsZero() {
		fmt.Fprintf(&b, "Revocation list ..... good until %s\n", asaTime(x.ListUntil))
	}
	if x.LastError != "" {
		fmt.Fprintf(&b, "Last error .......... %s\n", Clean(x.LastError))
	}
	return b.String()
}

// IMEPools is the answer to `show ime validator pools`: what each peer has proven, and who is in the penalty box.
type IMEPools struct{ PeerServer }

// Text gives a line a pool and one a number's own bucket.
func (p IMEPools) Text() string {
	if !p.Running {
		return p.down()
	}
	if len(p.Pools) == 0 {
		return "No peer has been validated yet\n"
	}
	var b strings.Builder
	for _, x := range p.Pools {
		fmt.Fprintf(&b, "Peer %s default bucket %d of %s\n", Clean(x.Peer), x.Value, Count(x.Results, "result"))
		for _, n := range x.Numbers {
			fmt.Fprintf(&b, "  penalty box: %s bucket %d\n", Clean(n.Number), n.Value)
		}
	}
	return b.String()
}

// Perf is the answer to `show perf`.
type Perf struct {
	Objects List[PerfObject] `json:"objects"`
}

// Text gives the counters below their object.
func (p Perf) Text() string {
	var b strings.Builder
	for _, o := range p.Objects {
		fmt.Fprintf(&b, "==> %s\n", Clean(o.Name))
		for _, c := range o.Counters {
			fmt.Fprintf(&b, "    %s = %.0f\n", Clean(c.Name), c.Value)
		}
	}
	return b.String()
}

// PeerRoutes is the answer to `show ime routes`: what was learned.
type PeerRoutes struct {
	Routes List[PeerRoute] `json:"routes"`
}

// PeerRoute is a learned route; its ticket is not shown, for who has it may call.
type PeerRoute struct {
	Number  string       `json:"number"`
	Domain  string       `json:"domain"`
	Peer    string       `json:"peer"`
	URIs    List[string] `json:"sip_uris"`
	Learned time.Time    `json:"learned"`
	Expires time.Time    `json:"expires"`
	State   string       `json:"state"` // waiting, stored or forbidden: what the call agent has said
}

// Text gives a line a route.
func (r PeerRoutes) Text() string {
	if len(r.Routes) == 0 {
		return "No route has been learned yet\n"
	}
	var b strings.Builder
	for _, x := range r.Routes {
		fmt.Fprintf(&b, "%s to %s, peer %s, until %s, call agent: %s\n", Clean(x.Number), Clean(x.Domain), Clean(x.Peer), asaTime(x.Expires), Clean(x.State))
		for _, u := range x.URIs {
			fmt.Fprintf(&b, "  %s\n", Clean(u))
		}
	}
	return b.String()
}

// DIDClaims is the answer to `utils ime fetch did`.
type DIDClaims struct {
	Number string         `json:"number"`
	Claims List[DIDClaim] `json:"claims"`
}

// DIDClaim is a peer that has published a number.
type DIDClaim struct {
	Peer    string       `json:"peer"`
	Address string       `json:"validator"`
	Own     bool         `json:"own"`
	Holders List[string] `json:"holders"` // members of the ring that hold the record
	Issued  time.Time    `json:"issued"`
	Expires time.Time    `json:"expires"`
}

// Text gives a block a claim.
func (d DIDClaims) Text() string {
	if len(d.Claims) == 0 {
		return fmt.Sprintf("%s is not published in the distributed cache\n", Clean(d.Number))
	}
	var b strings.Builder
	for _, c := range d.Claims {
		own := ""
		if c.Own {
			own = " (this server)"
		}
		fmt.Fprintf(&b, "%s is published by %s%s, validator %s, until %s\n", Clean(d.Number), Clean(c.Peer), own, Clean(c.Address), asaTime(c.Expires))
		for _, h := range c.Holders {
			fmt.Fprintf(&b, "  held by %s\n", Clean(h))
		}
	}
	return b.String()
}

// peerMetrics gives Prometheus the counters of the peer server: IMEDistributedCacheReads is imeproxy_peer_server_ime_distributed_cache_reads_total. The
// levels of the queue are labels.
func peerMetrics(out chan<- prometheus.Metric, objects []PerfObject) {
	for _, o := range objects {
		for _, c := range o.Counters {
			base, level, leveled := strings.Cut(c.Name, " ")
			name, kind := "imeproxy_peer_server_"+camelToSnake(base), prometheus.GaugeValue
			if !c.Gauge {
				name, kind = name+"_total", prometheus.CounterValue
			}
			var labels, values []string
			if leveled {
				if level == "Total" { // a sum is the reader's
					continue
				}
				labels, values = []string{"priority"}, []string{strings.ToLower(level)}
			}
			out <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, c.Help, labels, nil), kind, c.Value, values...)
		}
	}
}

// camelToSnake writes DaysUntilCertExpiry as days_until_cert_expiry and TerminatingVCRs as terminating_vcrs.
func camelToSnake(s string) string {
	s = strings.NewReplacer("VCRs", "Vcrs", "IME", "Ime", "TLS", "Tls").Replace(s)
	var b strings.Builder
	for i, r := range s {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
