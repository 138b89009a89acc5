package proxy

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"time"

	"imeproxy/proxy/observe"
	"imeproxy/proxy/peerserver"
	"imeproxy/ucime/learn"
	"imeproxy/ucime/ring"
)

// PeerServer is the state of the co-resident peer server.
func (a *Appliance) PeerServer() (observe.PeerServer, error) {
	n, err := a.peerNode()
	if err != nil {
		return observe.PeerServer{}, err
	}
	return a.shownPeerServer(n.Status()), nil
}

func (a *Appliance) shownPeerServer(s peerserver.Status) observe.PeerServer {
	e := s.Enrollment
	out := observe.PeerServer{
		Running: s.Running, Domain: s.Domain,
		Enrollment: observe.PeerEnrollment{
			Licensed: e.Licensed, Tag: e.Tag, PeerCount: e.PeerCount, Enrolled: e.Enrolled, NotAfter: e.NotAfter, Serial: e.Serial, PeerIDs: e.PeerIDs,
			Revoked: e.OwnRevoked, ListUntil: e.ListUntil, LastError: e.LastError,
		},
		Addressing: observe.PeerAddressing{Public: s.Setup.Public.String(), Private: s.Setup.Address.String(), DHTPort: s.Setup.RingPort, ValidatorPort: s.Setup.Validator},
		Ring:       shownRing(s),
	}
	switch {
	case s.Failed != "":
		out.Why = s.Failed
	case !e.Licensed:
		out.Why = "no license is installed"
	case !e.Enrolled:
		out.Why = "there is no certificate yet"
		if e.LastError != "" {
			out.Why += ": " + e.LastError
		}
	}
	if p := a.plan.Load().PeerServer; p != nil {
		for _, v := range p.PeerServer.VAPServers {
			out.Servers = append(out.Servers, observe.VAPServer{
				Name: v.Name, Interface: v.Interface, Port: v.Port, Encrypted: v.Encrypted, Enabled: !v.Shutdown, Keepalive: v.Keepalive, MaxConnections: v.MaxConnections,
				Listening: s.VAPAddresses[v.Name],
			})
		}
	}
	for _, c := range s.Clients {
		out.Clients = append(out.Clients, observe.VAPClient{
			Registered: c.Registered, Address: c.Client.String(), Handle: c.Handle, Sent: c.Sent, Received: c.Received, Server: c.Server, User: c.User, Name: c.Name,
			Missed: c.MissedKeepAlives, Up: c.UpTime,
		})
	}
	for _, v := range s.Services {
		out.Services = append(out.Services, observe.VService{
			Name: v.Service.Name, ID: v.Key.Service.String(), User: v.Key.User, Overlay: v.Service.Overlay, Domain: v.Service.Domain, MaxDIDs: v.Service.MaxDIDs,
			Numbers: v.Numbers, URIs: v.Service.URIs,
		})
	}
	out.Pools = shownPools(s.Pools)
	out.Perf = perf(s, a.now())
	return out
}

func shownRing(s peerserver.Status) observe.PeerRing {
	r := s.Ring
	out := observe.PeerRing{
		Health: strings.ToUpper(r.Health.String()), Reason: r.Reason, IsBootstrap: s.Setup.Bootstrap, Members: r.Members, NodeCount: r.NodeCount, Quota: r.Quota,
		QuotaUsed: r.QuotaUsed, Placed: r.Placed, Tokens: r.TokensReceived, MOTD: r.MOTD, Configured: s.Setup.Bootstraps,
	}
	for _, b := range r.Bootstraps {
		out.Bootstraps = append(out.Bootstraps, observe.PeerBootstrap{ID: b.Name.String(), LastContact: b.LastContact, Sequence: b.Sequence, Delay: b.Delay, Distance: b.Distance})
	}
	return out
}

func shownPools(pools map[learn.PeerID]learn.Pool) []observe.PeerPool {
	var out []observe.PeerPool
	for peer, p := range pools {
		x := observe.PeerPool{Peer: peer.String(), Value: p.Default.Value, Results: len(p.Default.Results), Used: p.Used}
		for n, b := range p.Numbers {
			x.Numbers = append(x.Numbers, observe.PeerBucket{Number: string(n), Value: b.Value})
		}
		sort.Slice(x.Numbers, func(i, j int) bool { return x.Numbers[i].Number < x.Numbers[j].Number })
		out = append(out, x)
	}
	slices.SortFunc(out, func(x, y observe.PeerPool) int { return strings.Compare(x.Peer, y.Peer) })
	return out
}

// PeerRoutes are the routes that were learned, of all services.
func (a *Appliance) PeerRoutes() (observe.PeerRoutes, error) {
	n, err := a.peerNode()
	if err != nil {
		return observe.PeerRoutes{}, err
	}
	routes, err := n.Routes()
	if err != nil {
		return observe.PeerRoutes{}, err
	}
	var out observe.PeerRoutes
	for _, r := range routes {
		state := "waiting"
		switch {
		case r.Forbidden:
			state = "forbidden"
		case r.Settled:
			state = "stored"
		}
		out.Routes = append(out.Routes, observe.PeerRoute{
			Number: string(r.Number), Domain: r.Domain, Peer: r.Peer.String(), URIs: r.URIs, Learned: r.Learned, Expires: r.Expires, State: state,
		})
	}
	return out, nil
}

// FetchDID asks the ring who has published a number.
func (a *Appliance) FetchDID(ctx context.Context, number string) (observe.DIDClaims, error) {
	n, err := a.peerNode()
	if err != nil {
		return observe.DIDClaims{}, err
	}
	if !learn.Number(number).Valid() {
		return observe.DIDClaims{}, fmt.Errorf("%q is no number in +E.164 form, such as +14085551112", number)
	}
	claims, err := n.Lookup(ctx, learn.Number(number))
	if err != nil {
		return observe.DIDClaims{}, err
	}
	out := observe.DIDClaims{Number: number}
	own := n.Status().Enrollment.PeerIDs
	for _, c := range claims {
		x := observe.DIDClaim{Peer: c.Peer.String(), Address: c.Address, Own: slices.Contains(own, c.Peer.String()), Issued: c.Issued, Expires: c.Expires}
		for _, h := range c.Holders {
			x.Holders = append(x.Holders, h.String())
		}
		out.Claims = append(out.Claims, x)
	}
	return out, nil
}

// maxLicense bounds what is read of a license file; enroll refuses less.
const maxLicense = 64 << 10

// InstallLicense installs a license file of disk0:.
func (a *Appliance) InstallLicense(name string) (tag string, peers int, err error) {
	n, err := a.peerNode()
	if err != nil {
		return "", 0, err
	}
	f, err := a.disk.Read(name) // nothing else: a mistake in a license is told with its line
	if err != nil {
		return "", 0, fmt.Errorf("license file: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxLicense))
	if err != nil {
		return "", 0, fmt.Errorf("license file: %w", err)
	}
	l, err := n.InstallLicense(name, text)
	if err != nil {
		return "", 0, err
	}
	return l.Tag.String(), l.PeerCount, nil
}

// EnrollPeer gets a certificate of the ring.
func (a *Appliance) EnrollPeer(ctx context.Context) error {
	n, err := a.peerNode()
	if err != nil {
		return err
	}
	return n.Enroll(ctx)
}

// SetRing changes a global setting of the ring, on a bootstrap server alone: the storage quota where it is not 0, else the message of the day.
func (a *Appliance) SetRing(quota uint32, motd string) error {
	n, err := a.peerNode()
	if err != nil {
		return err
	}
	return n.ChangeSettings(func(s *ring.Settings) {
		if quota > 0 {
			s.StorageQuota = quota
		} else {
			s.MOTD = motd
		}
	})
}

// perf are the counters of the guide's tables 35 to 37 (lines 8638-8900).
func perf(s peerserver.Status, now time.Time) []observe.PerfObject {
	days := 0.0
	if s.Enrollment.Enrolled {
		days = float64(int(s.Enrollment.NotAfter.Sub(now) / (24 * time.Hour)))
	}
	count := func(name string, v float64, help string) observe.PerfCounter {
		return observe.PerfCounter{Name: name, Help: help, Value: v}
	}
	gauge := func(name string, v float64, help string) observe.PerfCounter {
		return observe.PerfCounter{Name: name, Help: help, Value: v, Gauge: true}
	}
	v := func(name string) float64 { return float64(s.Validation[name]) }
	health := 0.0
	if s.Running {
		health = float64(s.Ring.Health)
	}
	out := []observe.PerfObject{
		{Name: "IME Configuration Manager", Counters: []observe.PerfCounter{gauge("DaysUntilCertExpiry", days, "Days until the certificate of the distributed cache expires.")}},
		{Name: "IME Server", Counters: []observe.PerfCounter{
			count("BlockedValidationOrigTLSLimit", v("BlockedValidationOrigTLSLimit"), "Validations that did not begin because too many ran, ours."),
			count("BlockedValidationTermTLSLimit", v("BlockedValidationTermTLSLimit"), "Validations that did not begin because too many ran, of others."),
			gauge("ClientsRegistered", float64(s.VAP.Registered), "Call agents that are registered."),
			gauge("IMEDistributedCacheHealth", health, "Health of the distributed cache: 0 red, 1 yellow, 2 green."),
			gauge("IMEDistributedCacheNodeCount", float64(s.Ring.NodeCount), "Peer IDs in the distributed cache."),
			gauge("IMEDistributedCacheQuota", float64(s.Ring.Quota), "Numbers that call agents of this server may publish."),
			gauge("IMEDistributedCacheQuotaUsed", float64(s.Ring.QuotaUsed), "Numbers that they are to publish."),
			count("IMEDistributedCacheReads", float64(s.Ring.Reads), "Look-ups in the distributed cache."),
			gauge("IMEDistributedCacheStoredData", float64(s.Ring.StoredData), "Bytes that this server holds for the distributed cache."),
			count("IMEDistributedCacheStores", float64(s.Ring.Stores), "Numbers that were stored or tried to be."),
			gauge("InternetBandwidthRecv", s.BitsIn/1000, "What the distributed cache takes in, in kbit/s."),
			gauge("InternetBandwidthSend", s.BitsOut/1000, "What the distributed cache sends, in kbit/s."),
			gauge("TerminatingVCRs", float64(s.Terminating), "Records of calls that came in and can be proven."),
			count("ValidationAttempts", v("ValidationAttempts"), "Validations that were attempted because somebody claimed the number."),
			gauge("ValidationsAwaitingConfirmation", float64(s.AwaitingConfirming), "Validated numbers that await further calls."),
			gauge("ValidationsPending", float64(s.Pending), "Calls that wait for their validation."),
			count("ValidationsBlocked", v("ValidationsBlocked")+float64(s.Learning.ValidationsBlocked), "Validations refused for a trust group."),
		}},
	}
	q := observe.PerfObject{Name: "IME Server System Performance"}
	names := [4]string{"1-High", "2-Normal", "3-Low", "4-Lowest"}
	total := 0
	for i, n := range names {
		q.Counters = append(q.Counters, gauge("QueueSignalsPresent "+n, float64(s.Queue.Present[i]), "Work that waits, by urgency."))
	}
	for i, n := range names {
		total += s.Queue.Processed[i]
		q.Counters = append(q.Counters, gauge("QueueSignalsProcessed "+n, float64(s.Queue.Processed[i]), "Work done in the last second, by urgency."))
	}
	q.Counters = append(q.Counters, gauge("QueueSignalsProcessed Total", float64(total), "Work done in the last second, by urgency."))
	return append(out, q)
}
