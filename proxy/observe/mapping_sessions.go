package observe

import (
	"encoding/json"
	"net/netip"
	"time"
)

// MappingSessions is the snapshot behind `show uc-ime mapping-service-sessions`: the connections of call agents to the off-path mapping
// service. Counters count from the start of the service.
type MappingSessions struct {
	Configured bool
	Listen     netip.AddrPort
	Sessions   []MappingSession

	Mappings        int // that live
	Legs            int // signaling connections over them
	MappingsMade    uint64
	MappingsEnded   uint64
	PortsFree       int
	PortsResting    int
	Requests        uint64
	Successes       uint64
	RefusedSources  uint64 // connections of hosts that are no `ucm address`
	RefusedConns    uint64 // connections over the maximum of a call agent
	RefusedLegs     uint64 // connections to mapped ports that are another's, or over the maximum
	Dropped         uint64 // indications and responses
	FramingErrors   uint64
	ClosedUnwhole   uint64 // because a request did not come whole in time
	ClosedIdle      uint64
	FailuresByCause []Cause
}

// Cause is a count under a name.
type Cause struct {
	Name  string
	Count uint64
}

// MappingSession is one connection of a call agent.
type MappingSession struct {
	Client    netip.AddrPort
	Requests  uint64
	Responses uint64
	Failed    uint64
	Pending   uint64
	Idle      time.Duration
}

// Text gives the layout of `show uc-ime mapping-service-sessions`.
func (m MappingSessions) Text() string {
	p := new(page)
	if !m.Configured {
		p.line(0, "No mapping-service is configured")
		return p.String()
	}
	p.line(0, "Total active sessions: %d", len(m.Sessions))
	if len(m.Sessions) > 0 {
		p.line(0, "%-22s %s", "Session client", "Idle time")
	}
	for _, s := range m.Sessions {
		p.line(0, "%-22s %s", s.Client, Seconds(s.Idle).String())
	}
	return p.String()
}

// MarshalJSON gives the sessions as objects, in printed order.
func (m MappingSessions) MarshalJSON() ([]byte, error) {
	o := object{{"total_active_sessions", len(m.Sessions)}}
	if m.Configured {
		o = append(o, member{"listen", m.Listen.String()})
	}
	list := List[object]{}
	for _, s := range m.Sessions {
		list = append(list, object{{"session_client", s.Client.String()}, {"idle_time", Seconds(s.Idle).String()}, {"idle_seconds", int64(s.Idle / time.Second)}})
	}
	return json.Marshal(append(o, member{"sessions", list}))
}

// MappingStatistics is `show uc-ime mapping-service-sessions statistics`.
type MappingStatistics struct{ MappingSessions }

func (m MappingStatistics) rows() []anyRow {
	rows := []anyRow{
		{"Mappings", m.Mappings},
		{"Mappings made", m.MappingsMade},
		{"Mappings ended", m.MappingsEnded},
		{"Signaling connections", m.Legs},
		{"Ports free", m.PortsFree},
		{"Ports resting", m.PortsResting},
		{"Total requests", m.Requests},
		{"Successful requests", m.Successes},
	}
	for _, c := range m.FailuresByCause {
		rows = append(rows, anyRow{"Failed " + Clean(c.Name), c.Count})
	}
	return append(rows, anyRow{"Refused sources", m.RefusedSources}, anyRow{"Refused connections", m.RefusedConns}, anyRow{"Refused signaling connections", m.RefusedLegs},
		anyRow{"Dropped messages", m.Dropped}, anyRow{"Framing errors", m.FramingErrors}, anyRow{"Closed request not whole", m.ClosedUnwhole}, anyRow{"Closed idle", m.ClosedIdle})
}

// Text gives the layout of `show uc-ime mapping-service-sessions statistics`.
func (m MappingStatistics) Text() string {
	p := new(page)
	if !m.Configured {
		p.line(0, "No mapping-service is configured")
		return p.String()
	}
	p.line(0, "Total active sessions: %d", len(m.Sessions))
	if len(m.Sessions) > 0 {
		p.line(0, "%-22s %14s %14s %15s %17s %9s", "Session client", "Total requests", "Responses sent", "Failed requests", "Pending responses", "Idle time")
	}
	for _, s := range m.Sessions {
		p.line(0, "%-22s %14d %14d %15d %17d %9s", s.Client, s.Requests, s.Responses, s.Failed, s.Pending, Seconds(s.Idle).String())
	}
	for _, r := range m.rows() {
		p.line(0, "%s: %d", r.label, r.value)
	}
	return p.String()
}

// MarshalJSON gives the sessions and the printed labels in lower snake case.
func (m MappingStatistics) MarshalJSON() ([]byte, error) {
	o := object{{"total_active_sessions", len(m.Sessions)}}
	list := List[object]{}
	for _, s := range m.Sessions {
		list = append(list, object{
			{"session_client", s.Client.String()},
			{"total_requests", s.Requests},
			{"responses_sent", s.Responses},
			{"failed_requests", s.Failed},
			{"pending_responses", s.Pending},
			{"idle_time", Seconds(s.Idle).String()},
			{"idle_seconds", int64(s.Idle / time.Second)},
		})
	}
	o = append(o, member{"sessions", list})
	if m.Configured {
		for _, r := range m.rows() {
			o = append(o, member{Snake(r.label), r.value})
		}
	}
	return json.Marshal(o)
}
