// Package peerserver puts the rooms of the peer server together: call agents (ucime/vap), learning (ucime/learn), what is kept
// (ucime/store), validation (ucime/pvp), and a directory of who claims which number (ucime/ring, or any other [Directory]).
//
// Sources: guide lines 167-318 and 319-371; docs/peerserver.md is for operators.
//
// # Data flow
//
// A call agent uploads VCRs. Those of calls that came in go to the store and into the validator's index, where other peer servers may prove
// them. Those of calls that went out go to the learning engine and to the store in one transaction, and wait. When one is due, the
// directory says who claims its called number, and each claimant is asked for its proof; what that releases is stored with
// the engine's changes in one transaction, and the call agent is told until it has stored the route. Nothing is
// acknowledged to a call agent before it is on the disk.
//
// # Limits
//
// [Config.Workers] validations at a time, [MaxClaims] claimants of a number in one try (the others in the next), 10,000 routes that wait
// for a store which fails, and those of the rooms. A Server may be used by several goroutines.
package peerserver
