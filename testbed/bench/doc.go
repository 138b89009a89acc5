// Command bench measures what a call costs: the same short calls through two
// proxies, then through two edges of Kamailio with rtpengine, on the same
// machine. sipp plays the call agents on both sides.
//
// Data in: flags (calls a second, calls in all, length of a call). Data out: a
// Markdown table on standard output. Limits: what one machine carries that
// runs both edges and both call agents.
package main
