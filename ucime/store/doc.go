// Package store keeps what a peer server has learned in one file, so that a kill loses nothing that was acknowledged.
//
// Sources: shared/DESIGN.md (bbolt: one file, ACID, hot backup), guide lines 200-224 (VCRs, routes for a year),
// docs/protocol/vap.md (notifications stay until the call agent has stored them).
//
// # Data in, data out
//
// In: changes of the learning state ([learn.Changes]) together with the routes that they release, VCRs of calls that came in, marks of
// those that were proven, and what call agents have settled. Each method is one transaction and returns when it is on the disk. Out:
// the learning state at start, the VCRs that can still be proven, the notifications that wait, the routes.
//
// # Form
//
// Buckets of keys with JSON values: `engine` and below it `vcr`, `last`, `pool`; `incoming` (VCRs of calls that came in, by ID) and
// `incoming-seen` (their hash, so that a record that is uploaded again is stored once); `outgoing-seen` the same for calls that went
// out; `route` (service, NUL, number), `notice` (service, NUL, ID), and `ended` (the notice that waits of a route's end, by service, NUL, number). The key `form` of bucket `meta` is 1; another one is refused.
//
// # Limits
//
// 200,000 incoming VCRs and as many hashes for each direction (the oldest give way), 200,000 routes and 400,000 notices (refused beyond:
// [ErrFull]; a route that ends by itself does so without a notice then). The file
// is locked: a second process waits a second and fails. A Store may be used by several goroutines; writers go one after the other.
package store
