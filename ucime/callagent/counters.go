package callagent

import (
	"sync/atomic"
)

// Counters are those of the guide's tables 38 and 39, and what this call agent counts besides.
type Counters struct {
	CallsAccepted           atomic.Uint64 // received by the service and answered
	CallsAttempted          atomic.Uint64 // begun by the service
	CallsReceived           atomic.Uint64 // received by the service
	CallsSetup              atomic.Uint64 // begun by the service and answered
	FallbackCallsFailed     atomic.Uint64
	FallbackCallsSuccessful atomic.Uint64
	IMESetupsFailed         atomic.Uint64 // had a route and went to the PSTN
	RoutesRejected          atomic.Uint64 // not trusted
	RoutesUnusable          atomic.Uint64 // from a peer server: no ticket for that number, and the like
	VCRsWritten             atomic.Uint64
	VCRsLost                atomic.Uint64 // could not be written
	PSTNCallsPlaced         atomic.Uint64
	PSTNCallsReceived       atomic.Uint64
	PSTNCallsRefused        atomic.Uint64 // by the call rate limit
	FallbackRequests        atomic.Uint64 // REFERs taken
	FallbackRequestsRefused atomic.Uint64 // REFERs refused: no such call, disabled, queue full
	FallbackWithoutNumber   atomic.Uint64 // the far side announced no number
	FallbackUnmatched       atomic.Uint64 // fallback calls that fit no call
	InsufficientIdentifiers atomic.Uint64
	RequestsRefused         atomic.Uint64 // from a source that no trunk has, or for a number that is not enrolled
	CallsRefused            atomic.Uint64 // beyond maximum-calls
	SessionsExpired         atomic.Uint64 // calls ended because one end had them no more
}

// Sample is one figure for `show counters` and the Prometheus endpoint.
type Sample struct {
	Name  string `json:"name"` // the guide's, or one like it
	Value uint64 `json:"value"`
	Gauge bool   `json:"-"`
	key   string // of the metric
	help  string
}

// Samples are all figures.
func (a *Agent) Samples() []Sample {
	c := &a.counters
	routes, domains, full := a.routes.Counts()
	waiting, dropped := a.records.Counts()
	link := a.link.Counts()
	n := func(v *atomic.Uint64) uint64 { return v.Load() }
	a.mu.Lock()
	active, queued := uint64(len(a.calls)), uint64(len(a.queue))
	a.mu.Unlock()
	return []Sample{
		{"CallsAccepted", n(&c.CallsAccepted), false, "calls_accepted", "IME calls received and answered."},
		{"CallsAttempted", n(&c.CallsAttempted), false, "calls_attempted", "IME calls begun."},
		{"CallsReceived", n(&c.CallsReceived), false, "calls_received", "IME calls received."},
		{"CallsSetup", n(&c.CallsSetup), false, "calls_setup", "IME calls begun and answered."},
		{"DomainsUnique", uint64(domains), true, "domains", "Domains that learned routes lead to."},
		{"FallbackCallsFailed", n(&c.FallbackCallsFailed), false, "fallback_calls_failed", "Fallbacks that failed; their IP calls went on."},
		{"FallbackCallsSuccessful", n(&c.FallbackCallsSuccessful), false, "fallback_calls_successful", "IME calls that moved to the PSTN, of both roles."},
		{"IMESetupsFailed", n(&c.IMESetupsFailed), false, "ime_setups_failed", "Calls that had a route and went to the PSTN."},
		{"RoutesLearned", uint64(routes), true, "routes", "Learned routes."},
		{"RoutesRejected", n(&c.RoutesRejected), false, "routes_rejected", "Routes refused: domain or number is not trusted."},
		{"RoutesPublished", link.Published, true, "routes_published", "Own numbers that a peer server has published."},
		{"RoutesUnusable", n(&c.RoutesUnusable), false, "routes_unusable", "Routes of a peer server refused: no ticket for that number, and the like."},
		{"RoutesRefusedForRoom", full, false, "routes_refused_for_room", "Routes refused: the table is full."},
		{"VCRUploadRequests", link.Requests, false, "vcr_upload_requests", "Upload requests sent to peer servers, of up to 100 records each."},
		{"VCRsUploaded", link.Uploaded, false, "vcrs_uploaded", "Voice call records that a peer server has stored."},
		{"VCRsRefused", link.Refused, false, "vcrs_refused", "Voice call records dropped: a peer server will never take them."},
		{"VCRsWritten", n(&c.VCRsWritten), false, "vcrs_written", "Voice call records written."},
		{"VCRsWaiting", uint64(waiting), true, "vcrs_waiting", "Voice call records that wait for the peer server."},
		{"VCRsDropped", dropped, false, "vcrs_dropped", "Voice call records dropped: the queue was full."},
		{"VCRsLost", n(&c.VCRsLost), false, "vcrs_lost", "Voice call records that could not be written."},
		{"IMEServiceStatus", uint64(a.link.Health()), true, "ime_service_status", "Connections to the peer servers: 0 unknown, 1 healthy, 2 unhealthy."},
		{"ActiveCalls", active, true, "active_calls", "Calls that stand or are being set up."},
		{"PSTNCallsPlaced", n(&c.PSTNCallsPlaced), false, "pstn_calls_placed", "Calls to the PSTN, fallback calls included."},
		{"PSTNCallsReceived", n(&c.PSTNCallsReceived), false, "pstn_calls_received", "Calls from the PSTN, fallback calls included."},
		{"PSTNCallsRefused", n(&c.PSTNCallsRefused), false, "pstn_calls_refused", "Calls refused: call rate of the trunk."},
		{"FallbackRequests", n(&c.FallbackRequests), false, "fallback_requests", "Notifications taken from the proxy."},
		{"FallbackRequestsRefused", n(&c.FallbackRequestsRefused), false, "fallback_requests_refused", "Notifications refused."},
		{"FallbackWithoutNumber", n(&c.FallbackWithoutNumber), false, "fallback_without_number", "Notifications for calls whose far end announced no number."},
		{"FallbackQueued", queued, true, "fallback_queued", "Fallbacks that wait for the trunk's call rate."},
		{"FallbackUnmatched", n(&c.FallbackUnmatched), false, "fallback_unmatched", "Fallback calls that fit no IME call."},
		{"InsufficientFallbackIdentifiers", n(&c.InsufficientIdentifiers), false, "insufficient_fallback_identifiers", "IME calls that got no correlation digits."},
		{"RequestsRefused", n(&c.RequestsRefused), false, "requests_refused", "Requests from strangers or for numbers not enrolled."},
		{"CallsRefused", n(&c.CallsRefused), false, "calls_refused", "Calls beyond maximum-calls."},
		{"SessionsExpired", n(&c.SessionsExpired), false, "sessions_expired", "Calls ended because one end had them no more."},
	}
}

// quality evaluates IMEQualityAlert every interval (guide lines 3760-3820).
type quality struct {
	attempted, failed uint64 // at the last look
}
