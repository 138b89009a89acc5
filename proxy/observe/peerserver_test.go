package observe

import (
	"strings"
	"testing"
	"time"
)

// peerSample holds the values of the guide's own samples (lines 1774-1785, 1849-1856, 3880-3930).
func peerSample() PeerServer {
	return PeerServer{
		Running: true, Domain: "cisco.com",
		Enrollment: PeerEnrollment{
			Licensed: true, Tag: "163d18ab727c0fa14fce75c6651b1362", PeerCount: 1, Enrolled: true, NotAfter: noon.Add(365 * 24 * time.Hour), Serial: "5c1f98ab",
			PeerIDs: []string{"514dd001c7553593ebefee2b076ad9d4"}, ListUntil: noon.Add(7 * 24 * time.Hour),
		},
		Addressing: PeerAddressing{Public: "65.65.65.65", Private: "10.10.10.10", DHTPort: 6084, ValidatorPort: 8470},
		Ring: PeerRing{
			Health: "GREEN", Members: 12, NodeCount: 30, Quota: 100, QuotaUsed: 40, Placed: 39, Tokens: 3, MOTD: evil, Configured: []string{"198.51.100.9:6084"},
			Bootstraps: []PeerBootstrap{
				{ID: "5619e12c7a647e1d3364c8a46c9e58f7", LastContact: 48 * time.Second, Sequence: 1250036323, Delay: time.Second, Distance: 5},
				{ID: "6619e12c7a647e1d3364c8a46c9e58f7", LastContact: -1},
			},
		},
		Servers: []VAPServer{
			{Name: "vapuser", Interface: "inside", Port: 5620, Encrypted: true, Enabled: true, Keepalive: 30 * time.Second, MaxConnections: 16, Listening: "10.10.10.10:5620"},
			{Name: "other", Interface: "inside", Port: 5621, Keepalive: time.Minute, MaxConnections: 4},
		},
		Clients: []VAPClient{
			{Registered: true, Address: "10.94.150.96:40112", Handle: 1, Sent: 106, Received: 106, Server: "vapuser", User: "ucm", Up: 3*time.Hour + 7*time.Minute},
			{Address: "10.94.150.97:40112", Server: "vapuser", User: evil, Missed: 2},
		},
		Services: []VService{{
			Name: "Vservice12-ccm18", ID: "3834353762636435", User: "ucm", Overlay: "intercompanymedianetwork", Domain: "cisco.com", MaxDIDs: 100, Numbers: 90,
			URIs: []string{"sip:d954c46b-51b4-ea2d-cda4-8a20134279f6@cisco.com:5082;maddr=10.94.150.96;transport=tcp"},
		}},
		Pools: []PeerPool{
			{Peer: "6619e12c7a647e1d3364c8a46c9e58f7", Value: 12, Results: 1, Used: noon},
			{Peer: "7619e12c7a647e1d3364c8a46c9e58f7", Numbers: []PeerBucket{{Number: "+14085551112"}}},
		},
		Perf: []PerfObject{{Name: "IME Server", Counters: []PerfCounter{
			{Name: "IMEDistributedCacheReads", Help: "Look-ups.", Value: 7}, {Name: "ValidationsPending", Help: "Waiting.", Value: 3, Gauge: true},
		}}},
	}
}

func peerLayouts() map[string]View {
	p, down := peerSample(), PeerServer{Why: "no license is installed"}
	return map[string]View{
		"ime_dht_summary": DHTSummary{p}, "ime_dht_summary_down": DHTSummary{down}, "ime_vapstatus": VAPStatus{p}, "ime_vapstatus_down": VAPStatus{down},
		"ime_vapstatus_none": VAPStatus{PeerServer{Running: true}}, "ime_vservice": VServiceDetails{p}, "ime_vservice_none": VServiceDetails{PeerServer{Running: true}},
		"ime_addressing": IMEAddressing{p}, "ime_peerid": IMEPeerIDs{p}, "ime_peerid_none": IMEPeerIDs{down}, "ime_bootstrap": IMEBootstraps{p}, "ime_vapserver": VAPServers{p},
		"ime_certenrollment": IMEEnrollment{p}, "ime_certenrollment_none": IMEEnrollment{down}, "ime_pools": IMEPools{p}, "perf": Perf{p.Perf},
		"ime_routes": PeerRoutes{Routes: []PeerRoute{{
			Number: "+14085551112", Domain: "b.example", Peer: "6619e12c7a647e1d3364c8a46c9e58f7", URIs: []string{"sip:b.example:5061"}, Learned: noon, Expires: noon.Add(365 * 24 * time.Hour), State: "stored",
		}}},
		"ime_customerinfo": IMECustomer{Company: "Enterprise A", Country: evil, ContactPhone: "+47 22 00 00 00"},
		"ime_routes_none":  PeerRoutes{}, "fetch_did_none": DIDClaims{Number: "+14085551112"},
		"fetch_did": DIDClaims{Number: "+14085551112", Claims: []DIDClaim{{
			Peer: "6619e12c7a647e1d3364c8a46c9e58f7", Address: "198.51.100.7:8470", Own: true, Holders: []string{"514dd001c7553593ebefee2b076ad9d4"}, Issued: noon, Expires: noon.Add(24 * time.Hour),
		}}},
	}
}

// What the guide prints of these commands stands in the answers, line by line and with nothing in between; what it does not print follows.
func TestGuideSamples(t *testing.T) {
	p := peerSample()
	for _, c := range []struct {
		view View
		want string
	}{
		{DHTSummary{p}, "Peer ID = 514dd001c7553593ebefee2b076ad9d4\nDHT Health....................... = GREEN\n" +
			"BootStrap: 5619e12c7a647e1d3364c8a46c9e58f7\nLast Contact (sec).................. = 48\nCurrent Sequence.................... = 1250036323\n" +
			"Num. Tokens Received................ = 3\nDelay from BootStrap................ = 1\nPeer Count Distance................. = 5\n"},
		{VAPStatus{p}, "VAP Client Connection Details\nRegistration Status ...... Registered\nClient IP ADDR............ 10.94.150.96\n" +
			"Client Handle ............ 1\nPackets Sent ............. 106\nPackets Rcvd ............. 106\nVAPServer Name ........... vapuser\n" +
			"Missed Keep Alive Count .. 0\nConnection Up Time ....... 3 hours 7 min 0 sec\n"},
		{VServiceDetails{p}, "VServiceProfiles: Vservice12-ccm18\nVServiceId = 3834353762636435\noverlay = intercompanymedianetwork\ndomain = cisco.com\nDiDCount (max) = 100\n" +
			"SIPURI = sip:d954c46b-51b4-ea2d-cda4-8a20134279f6@cisco.com:5082;maddr=10.94.150.96;transport=tcp\n"},
		{IMEAddressing{p}, "=====================================\nPublic IP Address = 65.65.65.65\nPrivate IP Address = 10.10.10.10\nDHT Port = 6084\nValidator Port = 8470\n====================================="},
	} {
		if !strings.HasPrefix(c.view.Text(), c.want) {
			t.Errorf("%T begins not with\n%s\nbut\n%s", c.view, c.want, c.view.Text())
		}
	}
}

// Counters of the guide are metrics by a name that follows from theirs.
func TestPeerMetrics(t *testing.T) {
	counters, err := NewCounters()
	if err != nil {
		t.Fatal(err)
	}
	objects := append(peerSample().Perf, PerfObject{Name: "IME Server System Performance", Counters: []PerfCounter{
		{Name: "QueueSignalsPresent 2-Normal", Help: "q", Value: 5, Gauge: true},
		{Name: "QueueSignalsProcessed Total", Help: "q", Value: 9, Gauge: true},
		{Name: "TerminatingVCRs", Help: "v", Value: 2, Gauge: true},
		{Name: "BlockedValidationOrigTLSLimit", Help: "b", Value: 1},
	}})
	m, err := NewMetrics(counters, func() Live { return Live{Peer: objects} })
	if err != nil {
		t.Fatal(err)
	}
	e, err := m.Exposition()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"# TYPE imeproxy_peer_server_ime_distributed_cache_reads_total counter\nimeproxy_peer_server_ime_distributed_cache_reads_total 7\n",
		"# TYPE imeproxy_peer_server_validations_pending gauge\nimeproxy_peer_server_validations_pending 3\n",
		"imeproxy_peer_server_queue_signals_present{priority=\"2-normal\"} 5\n", "imeproxy_peer_server_terminating_vcrs 2\n",
		"imeproxy_peer_server_blocked_validation_orig_tls_limit_total 1\n",
	} {
		if !strings.Contains(e.Text(), want) {
			t.Errorf("no %q in\n%s", want, e.Text())
		}
	}
}
