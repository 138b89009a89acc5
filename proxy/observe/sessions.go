package observe

import "time"

// SignalingSessions is the snapshot behind `show uc-ime signaling-sessions`.
type SignalingSessions struct {
	InUse    int                    `json:"in_use"`    // sessions that stand now
	MostUsed int                    `json:"most_used"` // highest number that stood at one time since the start
	Sessions List[SignalingSession] `json:"sessions"`
}

// SignalingSession is one pair of an inside and an outside connection. Addresses are "ip:port".
type SignalingSession struct {
	Inside       string       `json:"inside"`        // the call agent's end of the inside connection
	InsideLocal  string       `json:"inside_local"`  // our end of the inside connection
	Outside      string       `json:"outside"`       // the peer's end of the outside connection
	OutsideLocal string       `json:"outside_local"` // our end of the outside connection
	Direction    string       `json:"direction"`     // "inbound" or "outbound": who opened the session
	State        string       `json:"state"`         // "opening", "active", "closing"
	PeerDomains  List[string] `json:"peer_domains"`  // SIP domains of the peer's certificate (RFC 5922)
	TLSVersion   string       `json:"tls_version"`   // "TLS 1.2", "TLS 1.3"; "" before the handshake ends
	CipherSuite  string       `json:"cipher_suite"`  // name of the IANA registry
	Since        time.Time    `json:"since"`         // when the session opened
	Idle         Seconds      `json:"idle"`          // time without a message in either direction
	Dialogs      List[Dialog] `json:"dialogs"`
}

// Dialog is one SIP dialog (a call, early or confirmed) of a signaling session.
type Dialog struct {
	CallID        string          `json:"call_id"`
	SessionID     string          `json:"session_id"` // our own number of the call, as in logs and call records
	From          string          `json:"from"`       // user part of From
	To            string          `json:"to"`         // user part of To
	State         string          `json:"state"`      // "early", "confirmed", "ending"
	Domain        string          `json:"domain"`     // peer domain that was verified when the dialog opened
	FBSensitivity int             `json:"fb_sensitivity"`
	SIPTrunkURI   string          `json:"sip_trunk_uri"` // "" is not printed
	Media         List[MediaLine] `json:"media"`
}

// MediaLine is one m= line of a dialog that carries media. Addresses are "ip:port"; "" prints as "none" (rejected line or hold).
// The original calls the connection on the Internet side "Local Media" (it ends at the local SRTP endpoint) and the one to the phone
// "Remote Media"; the layout keeps those words.
type MediaLine struct {
	Kind              string // "audio", "video", "application"
	LocalInside       string // our inside media-termination address
	RemoteInside      string // the phone
	LocalOutside      string // our outside media-termination address
	RemoteOutside     string // the peer's media-termination address
	LocalSRTPSuite    string // suite under which we send outside; "" = no key set
	RemoteSRTPSuite   string // suite under which the peer sends; "" = no key set
	LocalInsideSuite  string // secure trunk: suite under which we send inside; "" = plain RTP
	RemoteInsideSuite string // secure trunk: suite under which the phone sends; "" = plain RTP
	Codec             string // encoding name, "PCMU"
	PayloadType       int    // 0-127; -1 = not known yet
	Direction         string // "sendrecv", "sendonly", "recvonly", "inactive" as seen from inside; "" = sendrecv
}

// MediaSessions is the snapshot behind `show uc-ime media-sessions [detail]`.
type MediaSessions struct {
	InUse    int                `json:"in_use"`
	MostUsed int                `json:"most_used"`
	Sessions List[MediaSession] `json:"sessions"`
}

// MediaSession is one stream: the outside (SRTP) connection and the inside (RTP, on a secure trunk SRTP) connection of one m= line.
type MediaSession struct {
	CallID    string    `json:"call_id"`
	SessionID string    `json:"session_id"`
	Kind      string    `json:"kind"`
	RefCount  int       `json:"refcnt"` // dialogs that use the stream (forked early dialogs share one); 0 prints as 1
	Since     time.Time `json:"since"`
	Outside   MediaConn `json:"outside"`
	Inside    MediaConn `json:"inside"`
	Monitor   *Monitor  `json:"rtp_monitoring,omitempty"` // nil = RTP monitoring is not enabled for this stream
}

// MediaConn is one side of a stream. Local and Client are "ip:port"; packets and bytes count from the stream's start.
type MediaConn struct {
	Local        string  `json:"local"`
	Client       string  `json:"client"` // "" = nothing is sent there (hold, or not known yet)
	Suite        string  `json:"suite"`  // "" = plain RTP
	TxPackets    uint64  `json:"tx_pkts"`
	RxPackets    uint64  `json:"rx_pkts"`
	TxBytes      uint64  `json:"tx_bytes"`
	RxBytes      uint64  `json:"rx_bytes"`
	TxRTCP       uint64  `json:"tx_rtcp_pkts"`
	RxRTCP       uint64  `json:"rx_rtcp_pkts"`
	Lost         uint64  `json:"lost"`          // by sequence number
	JitterMS     float64 `json:"jitter_ms"`     // of what came, RFC 3550 section 6.4.1
	AuthFailures uint64  `json:"auth_failures"` // packets that failed SRTP authentication
	Replays      uint64  `json:"replays"`
	WrongSource  uint64  `json:"wrong_source"` // packets from an address that the source lock refused
	Dropped      uint64  `json:"dropped"`      // for every other cause
	Idle         Seconds `json:"idle"`         // since the last packet that was accepted; negative = none came yet

	Far *FarReport `json:"far_report,omitempty"` // nil = the far end has sent none
}

// Monitor holds the figures of RTP monitoring (quality windows) of the stream that comes from the Internet.
type Monitor struct {
	FailoverState     int    `json:"failover_state"` // 0 good, 1 suspect, 2 notified
	SumAllPackets     uint64 `json:"sum_all_packets"`
	PayloadType       int    `json:"codec_payload_format"`
	PtimeMS           int    `json:"rtp_ptime_ms"`
	MaxLossPctX100    int    `json:"max_rblr_pct_x100"`
	MaxEvents8s       int    `json:"max_ite_count_in_8_sec"`
	MaxBurstMS        int    `json:"max_bls_ms"`
	MaxPDVUsec        int64  `json:"max_pdv_usec"`
	MinPDVUsec        int64  `json:"min_pdv_usec"`
	AvgPDVUsec        int64  `json:"mov_avg_pdv_usec"`
	TotalEvents       uint64 `json:"total_ite_count"`
	TotalSeconds      uint64 `json:"total_sec_count"`
	ConcealedSeconds  uint64 `json:"concealed_sec_count"`
	SeverelyConcealed uint64 `json:"severely_concealed_sec_count"`
	MaxCallIntervalMS int    `json:"max_call_interval_ms"`
	SequenceResets    uint64 `json:"total_sequencenumber_resets"`
}
