package proxy

import (
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"imeproxy/mediaterm"
	"imeproxy/proxy/observe"
	"imeproxy/sipalg/dialog"
)

// This file gives the show commands their snapshots. Each is a copy: nothing in it changes afterwards.

// Hostname is the configured one, for the prompt.
func (a *Appliance) Hostname() string { return a.plan.Load().hostname() }

// Banner is the configured one: motd, login and exec lines in that order, as an ASA shows them to who logs in and gets its prompt.
func (a *Appliance) Banner() string {
	var b strings.Builder
	for _, kind := range []string{"motd", "login", "exec"} {
		for _, x := range a.plan.Load().cfg.Banners {
			if x.Kind == kind {
				b.WriteString(x.Text + "\n")
			}
		}
	}
	return b.String()
}

// SignalingSessions lists the sessions with the calls that last used them.
func (a *Appliance) SignalingSessions() observe.SignalingSessions {
	list, most := a.sessions.snapshot()
	slices.SortFunc(list, func(x, y *session) int { return int(x.id) - int(y.id) })
	bySession := make(map[*session][]observe.Dialog)
	for _, c := range a.calls.snapshot() {
		s, ds := c.describe()
		if s.conn(dialog.Outside) == nil {
			// Its connections were cut: the call lives on, over the next session of the same two ends.
			if next := a.sessions.between(c.agent, s.remote.Addr(), c.domain, dialog.Outside); next != nil {
				s = next
			}
		}
		bySession[s] = append(bySession[s], ds...)
	}
	out := observe.SignalingSessions{InUse: len(list), MostUsed: most}
	now := a.now()
	for _, s := range list {
		o := s.describe(now)
		o.Dialogs = bySession[s]
		out.Sessions = append(out.Sessions, o)
	}
	return out
}

func (s *session) describe(now time.Time) observe.SignalingSession {
	o := observe.SignalingSession{State: "opening", Direction: "outbound", Since: s.since}
	if s.opener == dialog.Outside {
		o.Direction = "inbound"
	}
	var last time.Time
	in, out := s.conn(dialog.Inside), s.conn(dialog.Outside)
	if in != nil {
		o.Inside, o.InsideLocal = in.RemoteAddr().String(), in.LocalAddr().String()
		last = time.Unix(0, in.lastRead.Load())
	}
	if out != nil {
		o.Outside, o.OutsideLocal = out.RemoteAddr().String(), out.LocalAddr().String()
		o.PeerDomains = out.domains
		o.TLSVersion, o.CipherSuite = out.version, out.suite
		if t := time.Unix(0, out.lastRead.Load()); t.After(last) {
			last = t
		}
	}
	if in != nil && out != nil {
		o.State = "active"
	}
	o.Idle = observe.Seconds(-1)
	if !last.IsZero() {
		o.Idle = observe.Seconds(now.Sub(last))
	}
	return o
}

// describe gives the dialogs of a call by INVITE that has not ended.
func (c *call) describe() (*session, []observe.Dialog) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.d.HasInvite() {
		return c.last, nil
	}
	one := observe.Dialog{
		CallID: c.d.ID, SessionID: c.rec.SessionID, From: c.rec.From, To: c.rec.To, State: dialog.Early.String(), Domain: c.domain, FBSensitivity: 3,
	}
	for _, l := range c.media.lines {
		if l.stream != nil {
			one.Media = append(one.Media, l.describe())
		}
	}
	if d := c.d.Confirmed(); d != nil {
		one.State, one.SIPTrunkURI = d.State.String(), d.Ends[dialog.Outside].Target
	}
	return c.last, []observe.Dialog{one}
}

func (l *mediaLine) describe() observe.MediaLine {
	st := l.stream.Stats()
	o := observe.MediaLine{
		Kind: l.kind, LocalInside: st.Inside.Local, RemoteInside: st.Inside.Remote, LocalOutside: st.Outside.Local, RemoteOutside: st.Outside.Remote,
		LocalSRTPSuite: st.Outside.Suite, RemoteSRTPSuite: st.Outside.Suite, LocalInsideSuite: st.Inside.Suite, RemoteInsideSuite: st.Inside.Suite,
		PayloadType: -1,
	}
	o.Codec, _, _ = strings.Cut(l.codec, "/")
	if n, err := strconv.Atoi(l.pt); err == nil {
		o.PayloadType = n
	}
	return o
}

// Statistics gives the counters behind `show uc-ime signaling-sessions statistics`.
func (a *Appliance) Statistics() observe.Statistics {
	n := a.counters
	other := map[string]uint64{
		"acks_without_dialog": n.Counter("sip", "acks_without_dialog", "").Load(),
		"connections_refused": n.Total("tls", "connections_refused"),
		"call_records_lost":   a.records.Dropped(),
	}
	return observe.Statistics{
		Tickets: n.Reasons("ticket", "failures"), TicketsVerified: n.Counter("ticket", "verified", "").Load(),
		Verification:    n.Reasons("sip", "messages_refused"),
		SessionsRefused: n.Total("tls", "sessions_refused"), HandshakeFailures: n.Reasons("tls", "handshake_failures"),
		OptionsAnswered: n.Counter("sip", "options_answered", "").Load(), UnknownDialog: n.Counter("sip", "unknown_dialog", "").Load(),
		DialogsOpened: n.Counter("sip", "dialogs_opened", "").Load(), DialogsEnded: n.Counter("sip", "dialogs_ended", "").Load(),
		Keepalives: n.Counter("sip", "keepalives", "").Load(), Other: other,
	}
}

// ClearStatistics sets the counters to zero.
func (a *Appliance) ClearStatistics() {
	a.counters.Reset()
	a.quality.clear()
}

// FallbackStatistics gives the counters behind `show uc-ime fallback-notification statistics`.
func (a *Appliance) FallbackStatistics() observe.FallbackStatistics {
	out := a.quality.statistics()
	if a.reports != nil {
		out.Reports = observe.QualityReports(a.reports.Counts())
	}
	return out
}

// MediaSessions lists the streams.
func (a *Appliance) MediaSessions() observe.MediaSessions {
	t := a.term.Load()
	if t == nil {
		return observe.MediaSessions{}
	}
	n := t.Counters()
	out := observe.MediaSessions{InUse: n.Streams, MostUsed: n.MostStreams}
	now := a.now()
	for _, c := range a.calls.snapshot() {
		c.locked(func() { out.Sessions = c.mediaSessions(out.Sessions, now) })
	}
	return out
}

// mediaSessions adds the call's streams to a list. The call is locked.
func (c *call) mediaSessions(out []observe.MediaSession, now time.Time) []observe.MediaSession {
	for _, l := range c.media.lines {
		if l.stream == nil {
			continue
		}
		st := l.stream.Stats()
		out = append(out, observe.MediaSession{
			CallID: c.d.ID, SessionID: c.rec.SessionID, Kind: l.kind, Since: st.Opened,
			Outside: mediaConn(st.Outside, now), Inside: mediaConn(st.Inside, now), Monitor: c.media.block(l),
		})
	}
	return out
}

func mediaConn(l mediaterm.LegStats, now time.Time) observe.MediaConn {
	d := l.Drops
	idle := observe.Seconds(-time.Second)
	if !l.LastPacket.IsZero() {
		idle = observe.Seconds(now.Sub(l.LastPacket))
	}
	client := l.Remote
	if l.Source != "" {
		client = l.Source
	}
	return observe.MediaConn{
		Local: l.Local, Client: client, Suite: l.Suite, TxPackets: l.TxRTPPackets, RxPackets: l.RxRTPPackets, TxBytes: l.TxRTPBytes, RxBytes: l.RxRTPBytes,
		TxRTCP: l.TxRTCPPackets, RxRTCP: l.RxRTCPPackets, Lost: l.Lost, JitterMS: l.JitterMS, AuthFailures: d.AuthFailures, Replays: d.Replays, WrongSource: d.WrongSource,
		Dropped: d.NoKey + d.KeyExpired + d.SSRCLimit + d.STUN + d.DTLS + d.Unknown + d.TooShort + d.TooLong + d.Malformed + d.RTCPOff +
			d.TxHeld + d.TxNoKey + d.TxKeyExpired + d.TxSSRCLimit + d.TxRepeated + d.TxTooLong + d.SendErrors,
		Idle: idle, Far: farReport(l.Report, now),
	}
}

// rounded has two decimals.
func rounded(v float64) *float64 {
	v = math.Round(v*100) / 100
	return &v
}

// farReport gives what the far end of a leg told; nil: nothing.
func farReport(r mediaterm.FarReport, now time.Time) *observe.FarReport {
	if r.Reports == 0 && r.VoIP.At.IsZero() {
		return nil
	}
	known := func(v float64, is bool) *float64 {
		if !is {
			return nil
		}
		return rounded(v)
	}
	out := &observe.FarReport{
		LossPercent: *rounded(r.LossPercent), Lost: int(r.Lost), JitterMS: *rounded(r.JitterMS), RoundTripMS: known(r.RoundTripMS, r.RoundTrip), Reports: r.Reports,
		Age: observe.Seconds(now.Sub(r.At)),
	}
	if v := r.VoIP; !v.At.IsZero() {
		out.VoIP = &observe.FarVoIP{
			LossPercent: *rounded(v.LossPercent), DiscardPercent: *rounded(v.DiscardPercent), RoundTripMS: v.RoundTripMS, EndSystemMS: v.EndSystemMS, JitterBufferMS: v.JitterBufferMS,
			R: known(float64(v.R), v.R >= 0), MOSLQ: known(v.MOSLQ, v.MOSLQ >= 0), MOSCQ: known(v.MOSCQ, v.MOSCQ >= 0), Age: observe.Seconds(now.Sub(v.At)),
		}
	}
	return out
}

// recordMedia puts the figures of the streams into the call's record, before they close.
func (c *call) recordMedia(now time.Time) {
	for _, l := range c.media.lines {
		if l.stream == nil {
			continue
		}
		st := l.stream.Stats()
		lostOut, lostIn, jitterOut, jitterIn := st.Outside.Lost, st.Inside.Lost, st.Outside.JitterMS, st.Inside.JitterMS
		m := observe.MediaRecord{
			Kind: l.kind, Codec: l.codec, OutsideSuite: st.Outside.Suite, InsideSuite: st.Inside.Suite, Outside: st.Outside.Remote, Inside: st.Inside.Remote,
			OutsideSent: st.Outside.TxRTPPackets, OutsideReceived: st.Outside.RxRTPPackets, InsideSent: st.Inside.TxRTPPackets, InsideReceived: st.Inside.RxRTPPackets,
			AuthFailures: st.Outside.Drops.AuthFailures + st.Inside.Drops.AuthFailures,
			FarOutside:   farReport(st.Outside.Report, now), FarInside: farReport(st.Inside.Report, now),
		}
		// What was not measured is left out rather than called zero.
		if st.Outside.RxRTPPackets > 0 {
			m.LostOutside, m.JitterOutsideMS = &lostOut, &jitterOut
		}
		if st.Inside.RxRTPPackets > 0 {
			m.LostInside, m.JitterInsideMS = &lostIn, &jitterIn
		}
		m.Quality = c.media.qualityRecord(l)
		if c.rec.SRTPSuite == "" {
			c.rec.SRTPSuite = st.Outside.Suite
		}
		c.rec.PacketsSent += st.Outside.TxRTPPackets
		c.rec.PacketsRecvd += st.Outside.RxRTPPackets
		c.rec.Media = append(c.rec.Media, m)
	}
}

// TLSProxy gives the state behind `show tls-proxy`.
func (a *Appliance) TLSProxy() observe.TLSProxySessions {
	out := observe.TLSProxySessions{
		MaximumSessions: a.plan.Load().maxSessions(), InUse: a.limiter.InUse(), MostUsed: a.limiter.MostUsed(), Refused: a.counters.Total("tls", "sessions_refused"),
	}
	list, _ := a.sessions.snapshot()
	for _, p := range a.plan.Load().cfg.TLSProxies {
		in := observe.TLSProxyInstance{Name: p.Name, ServerTrustpoint: p.ServerTrustpoint, ClientTrustpoint: p.ClientTrustpoint, CipherSuites: p.ClientCipherSuites}
		for _, s := range list {
			if s.class.proxy.Name == p.Name && s.conn(dialog.Outside) != nil {
				in.InUse++
			}
		}
		out.Proxies = append(out.Proxies, in)
	}
	return out
}

// Conns lists the connections of all signaling sessions.
func (a *Appliance) Conns() observe.Conns {
	list, most := a.sessions.snapshot()
	slices.SortFunc(list, func(x, y *session) int { return int(x.id) - int(y.id) })
	var out observe.Conns
	now := a.now()
	p := a.plan.Load()
	for _, s := range list {
		for side := range 2 {
			k := s.conn(dialog.Side(side))
			if k == nil {
				continue
			}
			o := observe.Conn{
				Protocol: "TCP", OutsideInterface: p.Outside.Nameif, InsideInterface: p.Inside.Nameif, Outside: s.remote.String(), Inside: s.agent.real.String(),
				Idle: observe.Seconds(now.Sub(time.Unix(0, k.lastRead.Load()))), Bytes: k.bytes.Load(), Flags: "UIO",
			}
			if dialog.Side(side) == dialog.Outside {
				o.Inside, o.Flags = k.LocalAddr().String(), "UIOT"
			} else {
				o.Inside = k.RemoteAddr().String()
			}
			out.Conns = append(out.Conns, o)
		}
	}
	out.InUse, out.MostUsed = len(out.Conns), max(2*most, len(out.Conns))
	return out
}

// Certificates lists what the trustpoints hold, and the requests that wait for their certificates.
func (a *Appliance) Certificates() observe.Certificates {
	var out observe.Certificates
	now := a.now()
	for _, c := range a.store.Certificates() {
		x := observe.Certificate{
			Trustpoint: c.Trustpoint, CA: c.Kind != "identity", Subject: c.Subject, Issuer: c.Issuer, SerialNumber: c.Serial, KeyType: c.KeyAlgorithm, KeyBits: c.KeyBits,
			NotBefore: c.NotBefore, NotAfter: c.NotAfter, Names: c.Domains, Signature: c.Signature, Fingerprint: c.Fingerprint,
		}
		if !c.NotAfter.IsZero() {
			x.DaysLeft = int(c.NotAfter.Sub(now).Hours() / 24)
		}
		if c.Kind == "request" {
			x.CA, x.Status = false, "Pending terminal enrollment"
		} else if c.Status != "available" && (c.NotAfter.IsZero() || now.Before(c.NotAfter)) {
			x.Status = "Unusable: " + c.Status
		}
		out.Certificates = append(out.Certificates, x)
	}
	return out
}

// Version tells what runs, and since when.
func (a *Appliance) Version() observe.Version {
	var u unix.Utsname
	_ = unix.Uname(&u)
	return observe.Version{
		Hostname: a.Hostname(), Version: a.opt.Version, Commit: a.opt.Commit, GoVersion: runtime.Version(), Kernel: unix.ByteSliceToString(u.Release[:]),
		Started: a.started, Up: observe.Seconds(a.now().Sub(a.started)), Config: a.opt.File,
		Goroutines: runtime.NumGoroutine(),
	}
}

// Logging gives what was logged last.
func (a *Appliance) Logging() observe.Logging {
	if a.opt.Recent == nil {
		return observe.Logging{Lines: []string{}}
	}
	return a.opt.Recent.Logging()
}

// Health lists what is wrong now.
func (a *Appliance) Health() observe.HealthList { return a.health.List() }

// RunningConfig gives the canonical text with secrets masked.
func (a *Appliance) RunningConfig(section string) (string, error) {
	cfg := a.plan.Load().cfg
	if section == "" {
		return cfg.String(), nil
	}
	text, _ := cfg.Section(section)
	return text, nil
}

// ClearConns ends every signaling session and every call (guide line 4531: `clear connection all`).
func (a *Appliance) ClearConns() int {
	for _, c := range a.calls.snapshot() {
		a.clearCall(c, "cleared")
	}
	list, _ := a.sessions.snapshot()
	n := 0
	for _, s := range list {
		for side := range 2 {
			if s.conn(dialog.Side(side)) != nil {
				n++
			}
		}
		s.end("cleared")
	}
	return n
}
