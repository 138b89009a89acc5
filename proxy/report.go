package proxy

import (
	"net/netip"
	"strconv"
	"strings"

	"imeproxy/fallback"
	"imeproxy/mediaterm"
	"imeproxy/proxy/vqreport"
)

// reportQuality tells the collector, where one is configured, how the audio of a call that ends sounded. The call is locked, its streams stand.
func (a *Appliance) reportQuality(c *call) {
	p := a.plan.Load()
	if p.UCIME == nil || !p.UCIME.Collector.IsValid() || c.rec.Connect.IsZero() {
		return
	}
	self := p.hostname()
	if p.Inside != nil {
		self = p.Inside.Address.Addr().String()
	}
	for _, l := range c.media.lines {
		if l.stream == nil || l.kind != "audio" {
			continue
		}
		st := l.stream.Stats()
		a.reports.Publish(p.UCIME.Collector, "sip:uc-ime@"+self, c.qualityReport(l, &st))
	}
}

// qualityReport is what RFC 6035 wants to know of one audio line. Loss, jitter and MOS are those of the whole call.
func (c *call) qualityReport(l *mediaLine, st *mediaterm.Stats) *vqreport.Report {
	from, to := "sip:"+c.rec.From+"@", "sip:"+c.rec.To+"@"
	r := &vqreport.Report{CallID: c.d.ID, LocalSSRC: st.Inside.SSRC, RemoteSSRC: st.Outside.SSRC, Start: c.rec.Connect, Stop: c.rec.End, PayloadType: -1}
	if c.rec.Direction == "outbound" {
		r.LocalID, r.RemoteID = from+c.rec.LocalDomain, to+c.rec.PeerDomain
		r.Caller = r.LocalID
	} else {
		r.LocalID, r.RemoteID = to+c.rec.LocalDomain, from+c.rec.PeerDomain
		r.Caller = r.RemoteID
	}
	r.LocalAddr, _ = netip.ParseAddrPort(st.Outside.Local)
	if r.RemoteAddr, _ = netip.ParseAddrPort(st.Outside.Source); !r.RemoteAddr.IsValid() {
		r.RemoteAddr, _ = netip.ParseAddrPort(st.Outside.Remote)
	}
	name, rest, _ := strings.Cut(l.codec, "/")
	clock, _, _ := strings.Cut(rest, "/")
	if pt, err := strconv.Atoi(l.pt); err == nil {
		r.PayloadType, r.Codec = pt, name
		if r.ClockRate, err = strconv.Atoi(clock); err != nil {
			r.ClockRate = 8000
		}
	}
	if got, lost := float64(st.Outside.RxRTPPackets), float64(st.Outside.Lost); got > 0 {
		loss := 100 * lost / (got + lost)
		rating, mos := fallback.MOS(name, loss)
		r.Local = vqreport.Metrics{Loss: &loss, Jitter: &st.Outside.JitterMS, R: &rating, MOSLQ: &mos, Algorithm: "G.107"}
	}
	far := st.Outside.Report
	if far.RoundTrip {
		r.Local.RoundTrip = &far.RoundTripMS
	}
	r.Remote = farMetrics(far)
	return r
}

// farMetrics are those that the far end told by RTCP; nil: none.
func farMetrics(far mediaterm.FarReport) *vqreport.Metrics {
	v := far.VoIP
	if far.Reports == 0 && v.At.IsZero() {
		return nil
	}
	m := &vqreport.Metrics{}
	if far.Reports > 0 {
		m.Loss, m.Jitter = &far.LossPercent, &far.JitterMS
	}
	if v.At.IsZero() {
		return m
	}
	known := func(f float64) *float64 {
		if f < 0 {
			return nil
		}
		return &f
	}
	m.Loss, m.Discard, m.R, m.MOSLQ, m.MOSCQ = &v.LossPercent, &v.DiscardPercent, known(float64(v.R)), known(v.MOSLQ), known(v.MOSCQ)
	m.RoundTrip, m.EndSystem = known(float64(v.RoundTripMS)), known(float64(v.EndSystemMS))
	return m
}
