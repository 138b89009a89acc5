package pvp

import "sync/atomic"

// Counters of validation. A Server and a Client may share one. All but the gauges only grow.
type Counters struct {
	// The guide's counters of table 36, under their names there.
	BlockedValidationOrigTLSLimit atomic.Uint64
	BlockedValidationTermTLSLimit atomic.Uint64
	ValidationAttempts            atomic.Uint64
	ValidationsBlocked            atomic.Uint64

	// Results of our own validations.
	OrigSuccess, OrigRefused, OrigFailed, OrigUnreachable atomic.Uint64
	// TargetLimited are validations that were not begun because their peer's host had been tried too often in vain.
	TargetLimited atomic.Uint64

	// Called side: connections that ended before a run could begin.
	SourceLimited, PendingEvicted, HandshakeFailed, PeerRefused, PeerLimited atomic.Uint64
	// Called side: runs answered, runs that proved nothing, proofs, grants, refusals, no ticket, malformed or forged frames.
	Runs, WrongGuesses, Proofs, Granted, TermRefused, Unavailable, Malformed atomic.Uint64
	// Called side: connections that took longer than a limit.
	TimedOut atomic.Uint64

	// Gauges: connections in the TLS handshake, validations under way on either side.
	Pending, Terminating, Originating atomic.Int64
}

// Values returns all counters and gauges by name, the guide's where it has one.
func (c *Counters) Values() map[string]int64 {
	v := map[string]int64{"Pending": c.Pending.Load(), "Terminating": c.Terminating.Load(), "Originating": c.Originating.Load()}
	for name, n := range map[string]*atomic.Uint64{
		"BlockedValidationOrigTLSLimit": &c.BlockedValidationOrigTLSLimit, "BlockedValidationTermTLSLimit": &c.BlockedValidationTermTLSLimit,
		"ValidationAttempts": &c.ValidationAttempts, "ValidationsBlocked": &c.ValidationsBlocked,
		"OrigSuccess": &c.OrigSuccess, "OrigRefused": &c.OrigRefused, "OrigFailed": &c.OrigFailed, "OrigUnreachable": &c.OrigUnreachable,
		"TargetLimited": &c.TargetLimited, "SourceLimited": &c.SourceLimited, "PendingEvicted": &c.PendingEvicted, "HandshakeFailed": &c.HandshakeFailed, "PeerRefused": &c.PeerRefused,
		"PeerLimited": &c.PeerLimited, "Runs": &c.Runs, "WrongGuesses": &c.WrongGuesses, "Proofs": &c.Proofs, "Granted": &c.Granted,
		"TermRefused": &c.TermRefused, "Unavailable": &c.Unavailable, "Malformed": &c.Malformed, "TimedOut": &c.TimedOut,
	} {
		v[name] = int64(n.Load())
	}
	return v
}
