// Package observe holds what the appliance tells about itself: the snapshots behind the show commands with their printed layouts and JSON
// forms, the counters, the call records, the health list and the log set-up.
//
// Data in: plain values that the proxy fills in (strings, numbers, times); nothing here looks into a room but backlog. Data out: text in the
// layouts of an ASA, JSON documents whose keys are the printed labels in lower snake case, JSON lines of call records, slog records on
// standard error. Lines and records of a busy time wait to be written together, where a crash does not lose them (package backlog); the next
// start finds them (OpenLog, NewRecordWriter).
//
// Standards: none of its own. Addresses are printed as ip:port (signaling) or ip/port (media), as an ASA does. RFC 6035 terms name the
// quality figures of a call record (loss, jitter).
//
// Limits: the record queue is bounded and counts what it drops; label sets of counters are closed, a value outside the set is counted as
// "other"; call identifiers are cut to MaxCallID bytes in logs; text from the network never reaches a terminal with control characters in
// it (Clean).
package observe
