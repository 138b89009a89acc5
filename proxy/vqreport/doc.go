// Package vqreport tells a collector how calls sounded: RFC 6035 session reports, in PUBLISH requests over UDP.
//
// Sources: RFC 6035 (event vq-rtcpxr, application/vq-rtcpxr, section 4.6 for the body's grammar), RFC 3903 (PUBLISH), RFC 3261 section 17.1.2
// (repetition over UDP: timers E and F).
//
// Data in: a Report for each audio stream of a call that has ended. Data out: one PUBLISH each, and counts of what came of them. Metrics that
// were not measured are left out of the body.
//
// A Publisher has one goroutine and one report on its way at a time; Publish never waits. Limits: queueLength reports that wait (more are
// dropped and counted), maxBody bytes a body, giveUp for an answer. The collector is configured, so its answers are taken from its address alone,
// and only for the report that waits for one.
package vqreport
