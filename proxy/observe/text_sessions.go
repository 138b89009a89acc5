package observe

import (
	"encoding/json"
	"fmt"
	"strings"
)

// page collects the lines of a layout.
type page struct{ strings.Builder }

func (p *page) line(indent int, format string, args ...any) {
	p.WriteString(strings.Repeat(" ", indent))
	fmt.Fprintf(p, format, args...)
	p.WriteByte('\n')
}

// field prints "Label: value", nothing where the value is empty.
func (p *page) field(indent int, label, value string) {
	if value != "" {
		p.line(indent, "%s: %s", label, Clean(value))
	}
}

func (p *page) use(inUse, mostUsed int) { p.line(0, "%d in use, %d most used", inUse, mostUsed) }

// slash turns "ip:port" into the "ip/port" that an ASA prints for media.
func slash(addr string) string {
	if addr == "" {
		return "none"
	}
	if i := strings.LastIndexByte(addr, ':'); i >= 0 {
		return Clean(addr[:i] + "/" + addr[i+1:])
	}
	return Clean(addr)
}

func set(suite string) string {
	if suite == "" {
		return "not set"
	}
	return "set"
}

// Text gives the layout of `show uc-ime signaling-sessions`.
func (s SignalingSessions) Text() string {
	p := new(page)
	p.use(s.InUse, s.MostUsed)
	for _, x := range s.Sessions {
		x.print(p)
	}
	return p.String()
}

func (x SignalingSession) print(p *page) {
	p.line(8, "inside %s outside %s", Clean(x.Inside), Clean(x.Outside))
	p.field(12, "Inside local", x.InsideLocal)
	p.field(12, "Outside local", x.OutsideLocal)
	p.field(12, "Direction", x.Direction)
	p.field(12, "State", x.State)
	p.field(12, "Peer domains", strings.Join(x.PeerDomains, ", "))
	p.field(12, "TLS version", x.TLSVersion)
	p.field(12, "Cipher suite", x.CipherSuite)
	if !x.Since.IsZero() {
		p.line(12, "Since: %s", asaTime(x.Since))
	}
	p.line(12, "Idle: %s", x.Idle)
	for _, d := range x.Dialogs {
		d.print(p)
	}
}

func (d Dialog) print(p *page) {
	for _, m := range d.Media {
		kind := Clean(m.Kind)
		p.line(12, "Local Media (%s) conn: %s", kind, m.localConn())
		p.line(16, "Local SRTP key %s : Remote SRTP key %s", set(m.LocalSRTPSuite), set(m.RemoteSRTPSuite))
		p.field(16, "Local SRTP suite", m.LocalSRTPSuite)
		p.field(16, "Remote SRTP suite", m.RemoteSRTPSuite)
		p.line(12, "Remote Media (%s) conn: %s", kind, m.remoteConn())
		p.field(16, "Local inside SRTP suite", m.LocalInsideSuite)
		p.field(16, "Remote inside SRTP suite", m.RemoteInsideSuite)
		if m.Direction != "" && m.Direction != "sendrecv" {
			p.field(16, "Media direction", m.Direction)
		}
	}
	p.field(12, "Call-ID", d.CallID)
	p.line(12, "FB Sensitivity: %d", d.FBSensitivity)
	p.field(12, "Session ID", d.SessionID)
	p.field(16, "SIP Trunk URI", d.SIPTrunkURI)
	for _, m := range d.Media {
		kind := ""
		if len(d.Media) > 1 { // with one line only, the original's bare labels
			kind = " (" + m.Kind + ")"
		}
		p.field(12, "Codec-name"+Clean(kind), m.Codec)
		if m.PayloadType >= 0 {
			p.line(12, "Payload type%s: %d", Clean(kind), m.PayloadType)
		}
	}
	// The original prints no more than this.
	p.field(12, "From", d.From)
	p.field(12, "To", d.To)
	p.field(12, "State", d.State)
	p.field(12, "Domain", d.Domain)
}

func (m MediaLine) localConn() string { return slash(m.RemoteOutside) + " to " + slash(m.LocalOutside) }

func (m MediaLine) remoteConn() string { return slash(m.RemoteInside) + " to " + slash(m.LocalInside) }

// MarshalJSON gives the printed labels as keys; the connections stand as printed, "ip/port to ip/port".
func (m MediaLine) MarshalJSON() ([]byte, error) {
	o := object{
		{"kind", m.Kind},
		{"local_media_conn", m.localConn()},
		{"local_srtp_key", set(m.LocalSRTPSuite)},
		{"remote_srtp_key", set(m.RemoteSRTPSuite)},
		{"local_srtp_suite", m.LocalSRTPSuite},
		{"remote_srtp_suite", m.RemoteSRTPSuite},
		{"remote_media_conn", m.remoteConn()},
		{"local_inside_srtp_suite", m.LocalInsideSuite},
		{"remote_inside_srtp_suite", m.RemoteInsideSuite},
		{"media_direction", m.Direction},
		{"codec_name", m.Codec},
	}
	if m.PayloadType >= 0 {
		o = append(o, member{"payload_type", m.PayloadType})
	}
	return json.Marshal(o)
}

// MediaSessionsDetail is MediaSessions printed in full (`show uc-ime media-sessions detail`); the JSON form is the same.
type MediaSessionsDetail struct{ MediaSessions }

// Text gives the short layout: the in-use line and one line a connection.
func (s MediaSessions) Text() string {
	p := new(page)
	p.use(s.InUse, s.MostUsed)
	for _, m := range s.Sessions {
		for _, c := range []MediaConn{m.Outside, m.Inside} {
			p.line(0, "Media-session: %s :: client ip %s", slash(c.Local), slash(c.Client))
		}
	}
	return p.String()
}

// Text gives the layout of `show uc-ime media-sessions detail`.
func (s MediaSessionsDetail) Text() string {
	p := new(page)
	p.use(s.InUse, s.MostUsed)
	for _, m := range s.Sessions {
		m.print(p)
	}
	return p.String()
}

func (m MediaSession) print(p *page) {
	p.line(0, "Media-session: %s :: client ip %s", slash(m.Outside.Local), slash(m.Outside.Client))
	p.field(4, "Call ID", m.CallID)
	p.field(4, "Session ID", m.SessionID)
	p.field(4, "Media", m.Kind)
	m.Outside.print(p)
	p.line(8, "refcnt %d : created by Inspect SIP", max(m.RefCount, 1))
	if m.Monitor == nil {
		p.line(8, "RTP monitoring is not enabled")
	} else {
		p.line(8, "RTP monitoring is enabled")
		m.Monitor.print(p)
	}
	p.line(0, "Media-session: %s :: client ip %s", slash(m.Inside.Local), slash(m.Inside.Client))
	p.field(4, "Call ID", m.CallID)
	m.Inside.print(p)
}

func (c MediaConn) print(p *page) {
	kind := "RTP"
	if c.Suite != "" {
		kind = "SRTP"
	}
	p.line(4, "Lcl %s conn %s to %s tx_pkts %d rx_pkts %d", kind, slash(c.Local), slash(c.Client), c.TxPackets, c.RxPackets)
	p.field(8, "Suite", c.Suite)
	p.line(8, "tx_bytes %d rx_bytes %d tx_rtcp_pkts %d rx_rtcp_pkts %d", c.TxBytes, c.RxBytes, c.TxRTCP, c.RxRTCP)
	p.line(8, "lost %d jitter_ms %.1f auth_failures %d replays %d wrong_source %d dropped %d idle %s",
		c.Lost, c.JitterMS, c.AuthFailures, c.Replays, c.WrongSource, c.Dropped, c.Idle)
	c.Far.print(p)
}

func (m Monitor) print(p *page) {
	for _, f := range []struct {
		label string
		value any
	}{
		{"Failover_state", m.FailoverState},
		{"Sum_all_packets", m.SumAllPackets},
		{"Codec_payload_format", m.PayloadType},
		{"RTP_ptime_ms", m.PtimeMS},
		{"Max_RBLR_pct_x100", m.MaxLossPctX100},
		{"Max_ITE_count_in_8_sec", m.MaxEvents8s},
		{"Max_BLS_ms", m.MaxBurstMS},
		{"Max_PDV_usec", m.MaxPDVUsec},
		{"Min_PDV_usec", m.MinPDVUsec},
		{"Mov_avg_PDV_usec", m.AvgPDVUsec},
		{"Total_ITE_count", m.TotalEvents},
		{"Total_sec_count", m.TotalSeconds},
		{"Concealed_sec_count", m.ConcealedSeconds},
		{"Severely_concealed_sec_count", m.SeverelyConcealed},
		{"Max_call_interval_ms", m.MaxCallIntervalMS},
		{"Total_SequenceNumber_Resets", m.SequenceResets},
	} {
		p.line(12, "%-29s: %v", f.label, f.value)
	}
}
