package vqreport

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// maxBody keeps a PUBLISH within what RFC 3261 section 18.1.1 allows over UDP (1300 bytes): longer identifiers are cut.
const (
	maxBody       = 900
	maxIdentifier = 128
)

// Metrics are the figures of one direction. A nil one was not measured.
type Metrics struct {
	Loss      *float64 // percent of the packets, NLR
	Discard   *float64 // percent, JDR
	RoundTrip *float64 // ms, RTD
	EndSystem *float64 // ms, ESD
	Jitter    *float64 // ms, IAJ: RFC 3550 section 6.4.1
	R         *float64 // listening quality, RLQ
	MOSLQ     *float64
	MOSCQ     *float64
	Algorithm string // of R and MOS, QoEEstAlg; "": not told
}

// Report is one audio stream of a call. Local is what this appliance received, Remote what the far end says of what it received.
type Report struct {
	CallID            string
	LocalID, RemoteID string // URIs: who is inside, who is outside
	Caller            string // URI of the one who called
	LocalAddr         netip.AddrPort
	RemoteAddr        netip.AddrPort
	LocalSSRC         uint32 // of what was sent to the far end
	RemoteSSRC        uint32
	Start, Stop       time.Time
	PayloadType       int
	Codec             string
	ClockRate         int
	Local             Metrics
	Remote            *Metrics // nil: it told nothing
}

// Body writes the report (RFC 6035 section 4.6.1). Text from the network cannot add a line to it.
func (r *Report) Body() []byte {
	var b strings.Builder
	line := func(name, format string, args ...any) { fmt.Fprintf(&b, name+format+"\r\n", args...) }
	line("VQSessionReport: ", "CallTerm")
	line("CallID: ", "%s", word(r.CallID))
	line("LocalID: ", "<%s>", word(r.LocalID))
	line("RemoteID: ", "<%s>", word(r.RemoteID))
	line("OrigID: ", "<%s>", word(r.Caller))
	line("LocalAddr: ", "IP=%s PORT=%d SSRC=0x%08x", r.LocalAddr.Addr(), r.LocalAddr.Port(), r.LocalSSRC)
	line("RemoteAddr: ", "IP=%s PORT=%d SSRC=0x%08x", r.RemoteAddr.Addr(), r.RemoteAddr.Port(), r.RemoteSSRC)
	line("LocalMetrics:", "")
	r.session(&b)
	r.Local.write(&b)
	if r.Remote != nil {
		line("RemoteMetrics:", "")
		r.session(&b)
		r.Remote.write(&b)
	}
	return []byte(b.String())
}

func (r *Report) session(b *strings.Builder) {
	const stamp = "2006-01-02T15:04:05Z"
	fmt.Fprintf(b, "Timestamps: START=%s STOP=%s\r\n", r.Start.UTC().Format(stamp), r.Stop.UTC().Format(stamp))
	if r.Codec != "" {
		fmt.Fprintf(b, "SessionDesc: PT=%d PD=%s SR=%d\r\n", r.PayloadType, word(r.Codec), r.ClockRate)
	}
}

// write gives each group of metrics a line, none where nothing of it was measured.
func (m *Metrics) write(b *strings.Builder) {
	group := func(name string, list ...metric) {
		begun := false
		for _, x := range list {
			if x.value == nil {
				continue
			}
			if !begun {
				b.WriteString(name + ":")
				begun = true
			}
			fmt.Fprintf(b, " %s="+x.format, x.name, *x.value)
		}
		if begun && name == "QualityEst" && m.Algorithm != "" {
			b.WriteString(" QoEEstAlg=" + word(m.Algorithm))
		}
		if begun {
			b.WriteString("\r\n")
		}
	}
	group("PacketLoss", metric{"NLR", "%.2f", m.Loss}, metric{"JDR", "%.2f", m.Discard})
	group("Delay", metric{"RTD", "%.0f", m.RoundTrip}, metric{"ESD", "%.0f", m.EndSystem}, metric{"IAJ", "%.0f", m.Jitter})
	group("QualityEst", metric{"RLQ", "%.0f", m.R}, metric{"MOSLQ", "%.1f", m.MOSLQ}, metric{"MOSCQ", "%.1f", m.MOSCQ})
}

type metric struct {
	name, format string
	value        *float64
}

// word keeps what came from the network on its line, and short.
func word(s string) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f || r == '<' || r == '>' {
			return '_'
		}
		return r
	}, s)
	return s[:min(len(s), maxIdentifier)]
}
