package observe

import (
	"encoding/json"
	"strconv"
	"time"
)

// appendJSON adds the document that json.Marshal makes of a record. That looks at each field by reflection, which took most of what the end of a call
// costs; a test compares the two. What few records have is left to it.
func (r *CallRecord) appendJSON(b []byte) ([]byte, error) {
	d := document{b: append(b, '{')}
	d.text(`"call_id":`, r.CallID)
	d.textIfAny(`,"session_id":`, r.SessionID)
	d.text(`,"direction":`, r.Direction)
	d.text(`,"from":`, r.From)
	d.text(`,"to":`, r.To)
	d.textIfAny(`,"local_domain":`, r.LocalDomain)
	d.textIfAny(`,"peer_domain":`, r.PeerDomain)
	d.textIfAny(`,"peer":`, r.Peer)
	d.textIfAny(`,"ticket_id":`, r.TicketID)
	d.textIfAny(`,"ticket":`, r.Ticket)
	d.timeIfAny(`,"setup_time":`, r.Setup)
	d.timeIfAny(`,"connect_time":`, r.Connect)
	d.timeIfAny(`,"end_time":`, r.End)
	d.number(`,"duration_ms":`, r.DurationMS)
	d.number(`,"setup_ms":`, r.SetupMS)
	d.text(`,"end_reason":`, r.EndReason)
	if r.EndStatus != 0 {
		d.number(`,"end_status":`, int64(r.EndStatus))
	}
	d.text(`,"end_side":`, r.EndSide)
	d.textIfAny(`,"tls_version":`, r.TLSVersion)
	d.textIfAny(`,"cipher_suite":`, r.CipherSuite)
	d.textIfAny(`,"srtp_suite":`, r.SRTPSuite)
	for i := range r.Media {
		if i == 0 {
			d.b = append(d.b, `,"media":[{`...)
		} else {
			d.b = append(d.b, `,{`...)
		}
		d.media(&r.Media[i])
		d.b = append(d.b, '}')
	}
	if len(r.Media) > 0 {
		d.b = append(d.b, ']')
	}
	d.count(`,"packets_sent":`, r.PacketsSent)
	d.count(`,"packets_received":`, r.PacketsRecvd)
	return append(d.b, '}'), d.err
}

func (d *document) media(m *MediaRecord) {
	d.text(`"kind":`, m.Kind)
	d.textIfAny(`,"codec":`, m.Codec)
	d.textIfAny(`,"outside_suite":`, m.OutsideSuite)
	d.textIfAny(`,"inside_suite":`, m.InsideSuite)
	d.textIfAny(`,"outside":`, m.Outside)
	d.textIfAny(`,"inside":`, m.Inside)
	d.count(`,"outside_packets_sent":`, m.OutsideSent)
	d.count(`,"outside_packets_received":`, m.OutsideReceived)
	d.count(`,"inside_packets_sent":`, m.InsideSent)
	d.count(`,"inside_packets_received":`, m.InsideReceived)
	if m.LostOutside != nil {
		d.count(`,"outside_packets_lost":`, *m.LostOutside)
	}
	if m.LostInside != nil {
		d.count(`,"inside_packets_lost":`, *m.LostInside)
	}
	if m.JitterOutsideMS != nil {
		d.other(`,"outside_jitter_ms":`, *m.JitterOutsideMS)
	}
	if m.JitterInsideMS != nil {
		d.other(`,"inside_jitter_ms":`, *m.JitterInsideMS)
	}
	if m.AuthFailures != 0 {
		d.count(`,"auth_failures":`, m.AuthFailures)
	}
	if m.FarOutside != nil {
		d.other(`,"outside_far_report":`, m.FarOutside)
	}
	if m.FarInside != nil {
		d.other(`,"inside_far_report":`, m.FarInside)
	}
	if m.Quality != nil {
		d.other(`,"quality":`, m.Quality)
	}
}

// document is one that is being written; each key brings what stands before it and its colon.
type document struct {
	b   []byte
	err error // the first
}

func (d *document) text(key, v string) {
	for i := range len(v) {
		if c := v[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			d.other(key, v)
			return
		}
	}
	d.b = append(append(append(append(d.b, key...), '"'), v...), '"')
}

func (d *document) textIfAny(key, v string) {
	if v != "" {
		d.text(key, v)
	}
}

func (d *document) timeIfAny(key string, t time.Time) {
	if t.IsZero() {
		return
	}
	var err error
	if d.b, err = t.AppendText(append(append(d.b, key...), '"')); err != nil && d.err == nil {
		d.err = err
	}
	d.b = append(d.b, '"')
}

func (d *document) number(key string, v int64) { d.b = strconv.AppendInt(append(d.b, key...), v, 10) }

func (d *document) count(key string, v uint64) { d.b = strconv.AppendUint(append(d.b, key...), v, 10) }

func (d *document) other(key string, v any) {
	text, err := json.Marshal(v)
	if err != nil && d.err == nil {
		d.err = err
	}
	d.b = append(append(d.b, key...), text...)
}
