package observe

import (
	"maps"
	"net/netip"
	"time"
)

const sec = Seconds(time.Second)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// evil is what a peer may write into any text that it chooses: a terminal escape, a line feed, half a character, a direction override.
const evil = "a\x1b[2Jb\nc\xffd\u202ee\u009bf"

func sampleSignaling() SignalingSessions {
	return SignalingSessions{InUse: 2, MostUsed: 3, Sessions: []SignalingSession{
		{
			Inside: "192.168.10.30:39608", InsideLocal: "209.165.202.129:5070",
			Outside: "209.165.202.129:5070", OutsideLocal: "209.165.200.227:41022",
			Direction: "outbound", State: "active", PeerDomains: []string{"b.example.com", "b.example.net"},
			TLSVersion: "TLS 1.3", CipherSuite: "TLS_AES_128_GCM_SHA256", Since: noon, Idle: 7 * sec,
			Dialogs: []Dialog{
				{
					CallID: "ab6d7980@192.168.10.30", SessionID: "2948-0", From: "+14085550100", To: "+12125550199", State: "confirmed",
					Domain: "b.example.com", FBSensitivity: 3, SIPTrunkURI: "81a985c9@b.example.com;maddr=209.165.202.129",
					Media: []MediaLine{{
						Kind: "audio", LocalInside: "192.168.10.3:30930", RemoteInside: "192.168.10.51:19520",
						LocalOutside: "209.165.200.228:21558", RemoteOutside: "209.165.202.130:29824",
						LocalSRTPSuite: "AES_CM_128_HMAC_SHA1_80", RemoteSRTPSuite: "AES_CM_128_HMAC_SHA1_80", Codec: "G722", PayloadType: 9,
					}},
				},
				{
					CallID: "video@192.168.10.30", SessionID: "2949-0", State: "early", FBSensitivity: 0,
					Media: []MediaLine{
						{
							Kind: "audio", LocalInside: "192.168.10.3:16384", LocalOutside: "209.165.200.228:16384", PayloadType: -1,
							LocalSRTPSuite: "AEAD_AES_256_GCM", LocalInsideSuite: "AES_CM_128_HMAC_SHA1_80", Direction: "sendonly",
						},
						{Kind: "video", Codec: "H264", PayloadType: 97},
					},
				},
			},
		},
		{Inside: "192.168.10.30:5060", Outside: "209.165.202.140:50112", Direction: "inbound", State: "opening", Idle: -1},
	}}
}

func sampleMedia() MediaSessions {
	return MediaSessions{InUse: 2, MostUsed: 5, Sessions: []MediaSession{
		{
			CallID: "ab6d7980@192.168.10.30", SessionID: "2948-0", Kind: "audio", Since: noon, RefCount: 2,
			Outside: MediaConn{
				Local: "209.165.200.228:21558", Client: "209.165.202.130:29824", Suite: "AES_CM_128_HMAC_SHA1_80",
				TxPackets: 20203, RxPackets: 20200, TxBytes: 3676946, RxBytes: 3676400, TxRTCP: 80, RxRTCP: 81, Lost: 3, AuthFailures: 1, Replays: 2,
			},
			Inside: MediaConn{
				Local: "192.168.10.3:30930", Client: "192.168.10.51:19520", TxPackets: 20200, RxPackets: 20203,
				TxBytes: 3474400, RxBytes: 3474916, WrongSource: 4, Dropped: 5, Idle: 3 * sec, JitterMS: 1.25,
				Far: &FarReport{LossPercent: 0.39, Lost: 12, JitterMS: 3.2, RoundTripMS: ptr(1.5), Reports: 80, Age: 2 * sec, VoIP: &FarVoIP{
					LossPercent: 0.39, DiscardPercent: 0.78, RoundTripMS: 80, EndSystemMS: 60, JitterBufferMS: 40, R: ptr(88), MOSLQ: ptr(4.1), Age: 2 * sec,
				}},
			},
			Monitor: &Monitor{
				SumAllPackets: 20196, PayloadType: 9, PtimeMS: 20, MaxPDVUsec: 1000, AvgPDVUsec: 109, TotalSeconds: 403,
				MaxCallIntervalMS: 118,
			},
		},
		{
			CallID: "hold@192.168.10.30", SessionID: "2950-0", Kind: "video",
			Outside: MediaConn{Local: "209.165.200.228:21560", Idle: -1},
			Inside:  MediaConn{Local: "192.168.10.3:30932", Suite: "AEAD_AES_128_GCM", Idle: -1},
		},
	}}
}

func sampleStatistics() Statistics {
	return Statistics{
		Tickets: map[string]uint64{
			"Ticket not found": 1, "Ticket decode failed": 2, "ticket_epoch_mismatch": 3, "Ticket integrity check failed": 4,
			"Ticket timestamp invalid": 5, "Ticket DID mismatch": 6, "Route domain name check failed": 8, "ok": 99,
		},
		TicketsVerified:   9,
		Verification:      map[string]uint64{"max_forwards_zero": 10, "bad_content_length": 11, "keepalives": 12},
		SessionsRefused:   13,
		HandshakeFailures: map[string]uint64{"unknown_authority": 14, "expired": 15},
		OptionsAnswered:   16, UnknownDialog: 17, DialogsOpened: 18, DialogsEnded: 19, Keepalives: 20,
		Other: map[string]uint64{"records_dropped": 21},
	}
}

func sampleCertificates() Certificates {
	return Certificates{Certificates: []Certificate{
		{
			Trustpoint: "remote_ent", CA: true, Subject: "CN=Example CA", Issuer: "CN=Example CA", SerialNumber: "01", KeyType: "RSA", KeyBits: 4096,
			Signature: "SHA256-RSA", NotBefore: noon, NotAfter: noon.AddDate(10, 0, 0), DaysLeft: 3652, Usage: "Signature",
		},
		{
			Trustpoint: "local_ent", Subject: "CN=a.example.com", Issuer: "CN=Example CA", SerialNumber: "1f2e", KeyType: "ECDSA", KeyBits: 256,
			NotBefore: noon.AddDate(-1, 0, 0), NotAfter: noon.AddDate(0, 0, -2), DaysLeft: -2, Names: []string{"a.example.com", "sip:a.example.com"},
			Fingerprint: "00ff",
		},
		{Trustpoint: "next_ent", Status: "Pending terminal enrollment", Subject: "CN=b.example.com", KeyType: "RSA", KeyBits: 2048, Signature: "SHA256-RSA", Names: []string{"b.example.com"}},
	}}
}

// layouts are all views with data, and each with none.
func layouts() map[string]View {
	all := applianceLayouts()
	maps.Copy(all, peerLayouts())
	return all
}

func applianceLayouts() map[string]View {
	return map[string]View{
		"signaling_sessions":       sampleSignaling(),
		"signaling_sessions_empty": SignalingSessions{},
		"statistics":               sampleStatistics(),
		"statistics_empty":         Statistics{},
		"media_sessions":           sampleMedia(),
		"media_sessions_detail":    MediaSessionsDetail{sampleMedia()},
		"media_sessions_empty":     MediaSessionsDetail{},
		"tls_proxy": TLSProxySessions{MaximumSessions: 10000, InUse: 2, MostUsed: 9, Refused: 4, Proxies: []TLSProxyInstance{
			{Name: "local_to_remote-ent", ClientTrustpoint: "local-ent", ServerTrustpoint: "ent_y_proxy", CipherSuites: []string{"aes128-sha1", "aes256-sha1"}, InUse: 2},
			{Name: "remote_to_local-ent", ServerTrustpoint: "local-ent"},
		}},
		"media_termination": MediaTermination{
			Name: "uc-ime-media-term", Addresses: []string{"209.165.200.228 outside", "192.168.10.3 inside"}, MinPort: 16384, MaxPort: 32767, Engine: "tproxy",
			Streams: 2, MostStreams: 9, MaximumStreams: 20000, PortPairs: 16384, PortPairsUsed: 4, PortPairsRest: 6, RefusedForPorts: 1, RefusedForStreams: 2,
			PortConflicts: 3, Withheld: 25, WithheldEver: 26, Fast: &MediaEngine{
				Workers: 2, WorkerNice: -15, Taps: 3, BatchWaitUS: 500, PacketsReceived: 100000, Batches: 4000, DroppedByOverload: 5, DroppedNoStream: 7, DroppedFlood: 17,
				DroppedMalformed: 19, SentDirect: 99000, SentXDP: 88000, SentRouted: 900,
				PacketsFragmented: 11, SendErrors: 13, Stalls: 23, StallsForCore: 21, LongestStall: 29 * time.Millisecond,
			},
		},
		"media_termination_sockets": MediaTermination{
			Name: "m", Addresses: []string{"209.165.200.228"}, MinPort: 2000, MaxPort: 3000, Engine: "sockets", EngineFallback: "packet socket (CAP_NET_RAW): operation not permitted",
		},
		"media_termination_empty": MediaTermination{},
		"quality": Quality{Monitored: 7, Omitted: 4, Calls: List[QualityCall]{
			{CallID: "ab6d7980@192.168.10.30", SessionID: "2948-0", Direction: "outbound", From: "+14085550100", To: "+12125550199", PeerDomain: "b.example", State: "suspect", Level: "nominal", Bad: true, Loss: ptr(6.25), BurstMS: ptr(240), PDVMS: ptr(41), Events: ptr(5), MOS: ptr(2.9), FarLoss: ptr(0.39)},
			{CallID: "good@b.example", Direction: "inbound", From: "+12125550199", To: "+14085550100", PeerDomain: "b.example", State: "good", Level: "aggressive", Loss: ptr(0), BurstMS: ptr(0), PDVMS: ptr(0.5), Events: ptr(0), MOS: ptr(4.4)},
			{CallID: "hold@b.example", Direction: "inbound", From: "+12125550198", To: "+14085550101", State: "good", Level: "disabled"},
		}},
		"quality_empty": Quality{},
		"fallback_statistics": FallbackStatistics{
			Monitored: 9, Suspect: 2, Notified: 3, Queued: 4, Rate: 10, Waiting: 1, Sent: 14, Accepted: 5, Deferred: 6, Failed: 7, Unanswered: 8,
			Reports: QualityReports{Published: 21, Refused: 22, Unanswered: 23, Dropped: 24},
			Agents:  List[FallbackAgent]{{Address: "192.168.10.30", Sent: 12}, {Address: "192.168.10.31", Sent: 2}},
		},
		"mapping_sessions":        mappingSample(),
		"mapping_statistics":      MappingStatistics{mappingSample()},
		"mapping_sessions_none":   MappingSessions{},
		"mapping_statistics_none": MappingStatistics{},
		"tls_proxy_empty":         TLSProxySessions{MaximumSessions: 10000},
		"conn": Conns{InUse: 2, MostUsed: 54, Conns: []Conn{
			{Protocol: "TCP", OutsideInterface: "internet", Outside: "209.165.202.129:5070", InsideInterface: "lan", Inside: "192.168.10.30:39608", Idle: 7 * sec, Bytes: 1039, Flags: "UIOT"},
			{Protocol: "UDP", Outside: "209.165.202.130:29824", Inside: "192.168.10.51:19520", Idle: 90061 * sec, Bytes: 7151346, Flags: "m"},
		}},
		"conn_empty": Conns{},
		"access_list": AccessLists{Lists: []AccessList{
			{Name: "ime-incoming", Use: []string{"access-group in on outside", "class-map ime-inbound-sip"}, Entries: []AccessEntry{
				{Line: 1, Text: "remark what comes in", Remark: true}, {Line: 2, Text: "extended permit tcp any host 192.168.10.30 eq 5070 log informational interval 300", Hits: 12, Hash: "0x5e2e0f5c"},
			}},
			{Name: "spare", Entries: []AccessEntry{{Line: 1, Text: "extended deny ip any any", Hash: "0xd820e56a"}}},
		}, Flows: &AccessFlows{Total: 5, Denied: 3, DenyFlowMax: 4096, AlertInterval: 300}},
		"access_list_flood": AccessLists{Flows: &AccessFlows{Total: 4096, Denied: 4096, DenyFlowMax: 4096, AlertInterval: 300, DeniedBeside: 912345}},
		"access_list_empty": AccessLists{},
		"service_policy": ServicePolicies{Policies: []ServicePolicy{
			{Name: "ime-policy", Classes: []ServiceClass{{Name: "ime-inbound-sip", UCIME: "local-ent-ime", TLSProxy: "remote_to_local-ent", Connections: 12, Sessions: 2}}},
			{Interface: "outside", Name: "another", Classes: []ServiceClass{{Name: "c", UCIME: "u", TLSProxy: "t"}}},
		}},
		"service_policy_empty": ServicePolicies{},
		"tls_sessions": TLSSessions{InUse: 2, MostUsed: 3, Sessions: []TLSSession{
			{Proxy: "local_to_remote-ent", Outside: "209.165.202.129:5061", Inside: "192.168.10.30:39608", InsideTLS: true, PeerDomains: []string{"b.example"}, TLSVersion: "TLS 1.3", CipherSuite: "TLS_AES_128_GCM_SHA256", Bytes: 4711, Idle: 3 * sec},
			{Proxy: "remote_to_local-ent", Outside: "209.165.202.129:40000", TLSVersion: "TLS 1.2"},
		}},
		"tls_sessions_empty": TLSSessions{},
		"sip": SIPCalls{Total: 1, Calls: []SIPCall{
			{CallID: "ab6d7980@192.168.10.30", State: "confirmed", Direction: "outbound", From: "+14085550100", To: "+12125550199", Domain: "b.example", Idle: 7 * sec},
		}},
		"sip_empty": SIPCalls{},
		"xlate": Xlates{Omitted: true, Xlates: []Xlate{
			{RealInterface: "inside", Real: "192.168.10.30", MappedInterface: "outside", Mapped: "209.165.200.227", Static: true},
			{Protocol: "TCP", RealInterface: "inside", Real: "192.168.10.30:5060", MappedInterface: "outside", Mapped: "209.165.200.225:5061", Static: true, Portmap: true},
			{Protocol: "UDP", RealInterface: "inside", Real: "192.168.10.51:1024", MappedInterface: "outside", Mapped: "209.165.200.225:1024", Portmap: true},
		}},
		"xlate_empty": Xlates{},
		"packet_trace": PacketTrace{Input: "outside", Output: "inside", Action: "allow", Outcome: "it leaves from 198.51.100.1:1024 to 192.168.10.30:80", Phases: []TracePhase{
			{Type: "UN-NAT", Result: "ALLOW", Text: "static 209.165.200.227 to 192.168.10.30:80"},
			{Type: "ACCESS-LIST", Result: "ALLOW", Config: "access-list in extended permit tcp any any", Text: "permitted by entry 1 of the access list in on outside"},
		}},
		"packet_trace_empty": PacketTrace{Action: "drop"},
		"captures": Captures{Captures: []Capture{
			{Name: "calls", Type: "sip", Filter: "number 14085550100", State: "Capturing", Packets: 3, Bytes: 1234, Limit: 64 << 20, Lost: 1, File: "calls.pcapng"},
			{Name: "wire", Type: "interface", Filter: "outside port 5061", State: "full", Packets: 5, Bytes: 64 << 20, Limit: 64 << 20, File: "wire.pcapng", KeysUntil: &noon},
		}},
		"captures_empty":  Captures{},
		"shuns":           Shuns{Shuns: []Shun{{Source: "198.51.100.7", Left: 3599 * sec}, {Source: "198.51.100.8", Left: -1 * sec}}},
		"shuns_empty":     Shuns{},
		"directory":       Directory{Files: []DirectoryFile{{Name: "branch.fbs", Size: 1234, Modified: noon}, {Name: "calls.pcapng", Size: 64 << 20, Modified: noon}}},
		"directory_empty": Directory{},
		"capture": CaptureContent{Name: "calls", Omitted: 2, Packets: []CapturedPacket{
			{Number: 3, At: noon, Length: 512, Text: "192.168.10.30:5060 > 209.165.202.129:5061: INVITE sip:+12125550199@b.example SIP/2.0"},
		}},
		"capture_empty":      CaptureContent{},
		"certificates":       sampleCertificates(),
		"certificates_empty": Certificates{},
		"certificates_damaged": Certificates{Certificates: []Certificate{
			{Trustpoint: "remote_ca", CA: true, Status: `Unusable: trustpoint "remote_ca": ca.pem: malformed input`},
		}},
		"version": Version{
			Hostname: "asa-a", Version: "0.1.0", Commit: "c44fc2c", GoVersion: "go1.26.0", Kernel: "6.12.0", Started: noon, Up: 3723 * sec,
			Config: "/etc/imeproxy/startup-config", Goroutines: 31,
		},
		"version_empty":        Version{},
		"running_config":       RunningConfig{Section: "uc-ime", Config: "uc-ime local_uc-ime_proxy\n ticket epoch 1 password *****"},
		"running_config_empty": RunningConfig{},
		"startup_config":       StartupConfig{Config: "hostname asa-a\n"},
		"interfaces": InterfaceStates{Interfaces: []InterfaceState{
			{
				Name: "eout", Nameif: "outside", Address: "209.165.200.225/27", Present: true, Up: true, Link: true, MAC: "02:00:5e:10:00:01", MTU: 1500,
				In: Flow{Packets: 789, Bytes: 123456, Errors: 1, Dropped: 2}, Out: Flow{Packets: 987, Bytes: 654321, Errors: 3, Dropped: 4},
			},
			{Name: "ein", Nameif: "inside", SecurityLevel: 100, Present: true, Up: true, MTU: 1500},
			{Name: "eth9", Nameif: "dmz", SecurityLevel: 50},
		}},
		"interfaces_empty": InterfaceStates{Interfaces: []InterfaceState{}},
		"routes": RouteTable{Routes: []RouteEntry{
			{Network: "0.0.0.0/0", Gateway: "209.165.200.254", Interface: "outside"}, {Network: "192.168.10.0/24", Interface: "inside"},
		}},
		"routes_empty":  RouteTable{Routes: []RouteEntry{}},
		"arp":           ARPTable{Neighbors: []ARPEntry{{Interface: "outside", Address: "209.165.200.254", MAC: "02:00:5e:10:00:01"}}},
		"arp_empty":     ARPTable{Neighbors: []ARPEntry{}},
		"resources":     Resources{CPUSeconds: 12.34, CPUPercent: 3.5, Cores: 2, MemoryBytes: 31457280, HeapBytes: 10485760, Goroutines: 31},
		"logging":       Logging{Lines: []string{"time=2026-11-26T22:21:40.698Z level=INFO msg=serving", "time=2026-11-26T22:21:41.698Z level=WARN msg=\"ticket refused\""}},
		"logging_empty": Logging{Lines: []string{}},
		"ticket_test": TicketTest{
			Result: "Ticket DID mismatch", Meaning: "the called number is none of those that the ticket grants", Assumed: []string{"the caller's domain, taken as a.example"},
			Claims: []string{"epoch 1", "granted to a.example"},
		},
		"ticket_test_empty": TicketTest{Result: "Ticket not found", Meaning: "there is no ticket"},
		"clock":             Clock{Now: noon},
		"cleared":           Cleared{Connections: 4},
		"done":              Done{},
		"health": HealthList{NotListed: 2, Problems: []Problem{
			{Code: "call_agent_unreachable", Object: "192.168.10.30", Severity: Critical, Since: noon, Impact: "inbound calls get 503", WhatToDo: "check the call agent and the inside network"},
			{Code: "certificate_expires", Severity: Warning, Since: noon},
		}},
		"health_empty": HealthList{},
	}
}

func mappingSample() MappingSessions {
	return MappingSessions{
		Configured: true, Listen: netip.MustParseAddrPort("192.168.10.1:8060"), Mappings: 7, Legs: 3, MappingsMade: 11, MappingsEnded: 4, PortsFree: 19990, PortsResting: 2,
		Requests: 1010, Successes: 1000, RefusedSources: 5, RefusedConns: 6, RefusedLegs: 8, Dropped: 9, FramingErrors: 12, ClosedUnwhole: 13, ClosedIdle: 14,
		FailuresByCause: []Cause{{"Bad Request", 3}, {"Forbidden", 7}},
		Sessions: []MappingSession{
			{Client: netip.MustParseAddrPort("192.168.10.30:40001"), Requests: 1000, Responses: 998, Failed: 7, Pending: 2, Idle: 3 * time.Second},
			{Client: netip.MustParseAddrPort("192.168.10.31:55555"), Requests: 10, Responses: 10, Failed: 3, Idle: time.Hour + 2*time.Minute + 3*time.Second},
		},
	}
}

func ptr(v float64) *float64 { return &v }
