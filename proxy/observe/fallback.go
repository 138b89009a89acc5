package observe

import "encoding/json"

// FallbackStatistics is the snapshot behind `show uc-ime fallback-notification statistics`. Counters count from the start of the daemon, or from
// when they were set to zero.
type FallbackStatistics struct {
	Monitored int // calls whose quality is watched now
	Suspect   int // of them: bad, and the hold-down runs
	Notified  int // of them: their call agent was told
	Waiting   int // notifications without answer yet

	Sent       uint64 // REFERs
	Accepted   uint64 // answered by 2xx
	Deferred   uint64 // to be repeated when the call is bad still
	Failed     uint64 // not to be repeated
	Unanswered uint64 // of the deferred and failed ones: no answer in 32 s
}

func (f FallbackStatistics) rows() []anyRow {
	return []anyRow{
		{"Calls monitored", f.Monitored},
		{"Calls suspect", f.Suspect},
		{"Calls notified", f.Notified},
		{"Notifications waiting", f.Waiting},
		{"Notifications sent", f.Sent},
		{"Notifications accepted", f.Accepted},
		{"Notifications deferred", f.Deferred},
		{"Notifications failed", f.Failed},
		{"Notifications unanswered", f.Unanswered},
	}
}

// Text gives the layout of `show uc-ime fallback-notification statistics`.
func (f FallbackStatistics) Text() string {
	p := new(page)
	for _, r := range f.rows() {
		p.line(0, "%s: %d", r.label, r.value)
	}
	return p.String()
}

// MarshalJSON gives the printed labels in lower snake case.
func (f FallbackStatistics) MarshalJSON() ([]byte, error) {
	var o object
	for _, r := range f.rows() {
		o = append(o, member{Snake(r.label), r.value})
	}
	return json.Marshal(o)
}
