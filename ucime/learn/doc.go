// Package learn turns finished PSTN calls into routes: voice call records (VCRs) from call agents, validations of them
// against the peers that claim the called numbers, pools and buckets that say when enough of them have succeeded, and the
// routes that come out.
//
// Sources: guide lines 167-318 (the rules), 2948-3121 (trust groups), 8620-9007 (counters), shared/reference/pvp.md (facts,
// gaps and the choices made for these).
//
// # Data in, data out
//
// A pure state machine: no sockets, no goroutines, no clock of its own. [Engine.Add] takes a VCR of a call that our user made;
// [Engine.Due] says which of them are to be validated now; the caller finds the peers that claim the number, validates and tells
// each outcome by [Engine.Report] and the end by [Engine.Finish]; what comes back are the routes that are learned. State goes
// out and comes in as a value ([Engine.State], [Restore]), for a store that keeps it.
//
// # Rules
//
//   - Two VCRs of one called number that are less than [Config.Interval] apart are never both validated (an hour). One that began before
//     the last one of its number is not validated at all.
//   - A VCR waits for a random time before it is validated, so that the far side's record has arrived and that the time of the
//     call does not show in the time of the validation.
//   - A VCR proves once: with one peer, and never again. No peer is asked twice for it unless it was not reached; as long as one that
//     claims the number was not reached, or not asked, it is tried again ([Config.Tries]), whatever others have answered.
//   - The called number is learned, and no other that the peer names: nothing was proven of those.
//   - A success goes to the number's own bucket of the peer's pool, if there is one, else to the default bucket, and adds 12 (with
//     the caller's number) or 8. A bucket that reaches the threshold (24, `bucketentropy`) is emptied, and its routes are learned.
//     With "reaches", three results of 8 or two of 12 are needed: the guide's default of three.
//   - A failed proof empties every bucket of that peer's pool and makes a bucket for the number, if it has none: the penalty box.
//   - A peer that is unreachable, or refuses after a good proof, has not failed.
//   - A number or domain that the trust group of the service refuses is not learned.
//
// # Limits
//
// [Config.MaxPending] VCRs (the latest is refused), [Config.MaxPeers] pools (the one that is unused longest gives way, those with
// number buckets last), 64 number buckets a pool and 32 results a bucket (the oldest gives way), [Config.MaxNumbers] called numbers
// remembered (the oldest gives way; when that is within the interval, the VCR is refused). Each has a counter. An Engine is not safe for concurrent use.
package learn
