// Package fallback judges the quality of the audio that arrives from the Internet and
// decides when a call should move to the PSTN.
//
// # Purpose
//
// Guide lines 5043-5088 give the timers and the sensitivity file; what they do is
// published nowhere, so the project's protocol file "fallback" (version 1) fixes it and
// this package does what that file says. Three stages: a Stream turns packets into
// Figures, a Monitor turns the figures of a call's streams into one decision, a Notifier
// repeats the REFER that tells of it.
//
// # Documents
//
//   - the protocol file "fallback", version 1: measures, file format, states, REFER
//   - RFC 3550 appendix A.1: the limits beyond which a sequence number is odd
//   - RFC 3551 section 6: static payload types and their clocks; RFC 3389: comfort noise
//   - RFC 4733: telephone-events; RFC 4538: Target-Dialog; RFC 4488: Refer-Sub
//   - ITU-T G.107: the E-model, R to MOS in annex B
//   - RFC 3611 section 4.7.2 and appendix A.2: burst and gap metrics
//
// # Data in, data out
//
// In: authenticated packets (Stream.Packet), what the descriptions in force say
// (Stream.SetFormats, Stream.SetHold), the call agent's level (ParseSensitivity,
// Monitor.SetLevel), the text of a file (ParseFile), answers to a REFER
// (Notifier.Answer). Out: Figures and Totals for show commands and call records, Result
// with the decision, the value of the REFER's quality header (Figures.Quality), how losses
// lie over the whole call (Stream.Bursts, nothing is decided by it). A Pace
// keeps the REFERs of many calls apart.
//
// Nothing here has a socket, a goroutine or a clock. An instant is a time.Duration since
// a point that the caller chose once for all calls, never negative, monotonic.
//
// # Threads
//
// Stream and Monitor each have a mutex of their own and are safe for concurrent use. The
// packet path takes the stream's once a packet and shares it with the sampler alone,
// ten times a second for a tenth of a microsecond, so that it is practically never
// contended: two atomic instructions on a line that the packet touches anyway. A
// monitor's mutex is never taken by the packet path; a stream belongs to one monitor.
// Instants that go back, as they do when two readers take the time before they take the
// lock, count as the latest one. A Notifier belongs to one goroutine.
//
// # How the window is kept
//
//   - Numbers are counted by turn in steps of 50 ms, received and lost. The old edge of
//     the window, and those of its seconds, lie up to one step late: an instant T that
//     is a multiple of 50 ms finds the window exact. A packet in sequence only notes
//     itself, in a ring and in the step that it belongs to of the three latest; a sample
//     counts what packets have noted and takes off what has left the window (Stream.tally,
//     window.expire), so that neither of them touches much memory: with thousands of calls
//     that is what they cost. Of the losses a sample looks at the steps that have any.
//   - A hole in the numbering waits 200 ms in a queue of maxGaps. Beyond these (more
//     than 160 holes a second) the oldest counts as lost early. Numbers 100 and more
//     behind cannot come any more, so that 128 bits remember what has.
//   - Each received number has an entry of 32 bits in a ring: its transit in bins of
//     125 us and the timestamp step to its successor, as a place in a list of the steps
//     of which the window has any. That has 31 places; while all are taken, another step
//     is counted for none. 32 bins around the 95th percentile are counted, so that it is
//     found without looking at the ring until it leaves them. A sample that finds the
//     ring nearly full doubles it, up to maxRing (512 packets a second); beyond that pdv
//     and packet time see the newest maxRing numbers, while loss, events and burst see all.
//
// A stream of 20 ms packets takes 5.5 KB, of which those without loss touch 3 KB; the
// largest takes 20 KB.
//
// # Choices where the protocol file leaves one
//
//   - Numbers before the first of a window are no part of it: packets that carry them
//     count as late.
//   - A timestamp step is an advance: steps of zero (telephone-events) and backwards are
//     none.
//   - A payload type without rtpmap and without static meaning has a clock of 8000 Hz.
//   - An odd packet counts for nothing at all: it does not end a silence either. Late
//     copies do, since they are authenticated packets. Packets on hold count only as the
//     last packet (silence announced or not).
//   - The worst stream of a sample is a bad one before a good one, then the one with the
//     lowest MOS, then the highest loss, burst and pdv.
package fallback
