package observe

import "encoding/json"

// FallbackStatistics is the snapshot behind `show uc-ime fallback-notification statistics`. Counters count from the start of the daemon, or from
// when they were set to zero.
type FallbackStatistics struct {
	Monitored int // calls whose quality is watched now
	Suspect   int // of them: bad, and the hold-down runs
	Notified  int // of them: their call agent was told
	Queued    int // calls that are to be told when the rate allows
	Rate      int // calls that may be told in any second
	Waiting   int // notifications without answer yet

	Agents List[FallbackAgent] // call agents that were sent notifications

	Sent       uint64 // REFERs
	Accepted   uint64 // answered by 2xx
	Deferred   uint64 // to be repeated when the call is bad still
	Failed     uint64 // not to be repeated
	Unanswered uint64 // of the deferred and failed ones: no answer in 32 s

	Reports QualityReports
}

// QualityReports counts the reports to a collector (RFC 6035). They count from the start of the daemon.
type QualityReports struct {
	Published  uint64 // answered 2xx
	Refused    uint64 // answered otherwise
	Unanswered uint64
	Dropped    uint64 // too many waited, or there is no way to the collector
}

// FallbackAgent is what one call agent was sent.
type FallbackAgent struct {
	Address string `json:"ucm_address"`
	Sent    uint64 `json:"total_notifications_sent"`
}

func (f FallbackStatistics) rows() []anyRow {
	return []anyRow{
		{"Calls monitored", f.Monitored},
		{"Calls suspect", f.Suspect},
		{"Calls notified", f.Notified},
		{"Calls queued", f.Queued},
		{"Notifications a second at most", f.Rate},
		{"Notifications waiting", f.Waiting},
		{"Notifications sent", f.Sent},
		{"Notifications accepted", f.Accepted},
		{"Notifications deferred", f.Deferred},
		{"Notifications failed", f.Failed},
		{"Notifications unanswered", f.Unanswered},
		{"Quality reports published", f.Reports.Published},
		{"Quality reports refused", f.Reports.Refused},
		{"Quality reports unanswered", f.Reports.Unanswered},
		{"Quality reports dropped", f.Reports.Dropped},
	}
}

// Text gives the layout of `show uc-ime fallback-notification statistics`.
func (f FallbackStatistics) Text() string {
	p := new(page)
	for _, a := range f.Agents {
		p.field(0, "UCM address", a.Address)
		p.line(4, "Total Notifications Sent: %d", a.Sent)
	}
	for _, r := range f.rows() {
		p.line(0, "%s: %d", r.label, r.value)
	}
	return p.String()
}

// MarshalJSON gives the printed labels in lower snake case.
func (f FallbackStatistics) MarshalJSON() ([]byte, error) {
	o := object{{"ucm_addresses", f.Agents}}
	for _, r := range f.rows() {
		o = append(o, member{Snake(r.label), r.value})
	}
	return json.Marshal(o)
}
