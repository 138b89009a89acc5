package proxy

import (
	"log/slog"
	"strings"
	"time"

	"imeproxy/proxy/config"
	"imeproxy/proxy/observe"
)

// Caps of the appliance's tables. Each bounds what a peer can make it keep.
const (
	// DefaultMaxSessions is `tls-proxy maximum-sessions` where it is not configured.
	DefaultMaxSessions = config.DefaultTLSProxySessions
	// maxCalls bounds the calls that are remembered at one time, of any method.
	// One that has ended is remembered for 32 s: 2,000 new ones a second are 64,000.
	maxCalls = 120000
	// maxCallsPerID bounds calls that share a Call-ID: forks of one caller.
	maxCallsPerID = 8
	// maxCallsPerSession bounds what one connection can open and leave standing.
	maxCallsPerSession = 20000
	// maxHeld bounds the bytes of large requests (dialog.LargeRequest) that are kept until they have their answer: beyond it large ones get 503.
	maxHeld = 64 << 20
	// maxForked bounds the bytes of forks' answers that are kept of one call beside the one in force, and maxDescribed those of all calls, with the
	// descriptions from largeDescription bytes on that wait for what comes of them (sdp.Session.Size). A fork's answer beyond is not kept: its
	// 2xx must bring it again. A large description beyond is refused.
	maxForked        = 96 << 10
	maxDescribed     = 64 << 20
	largeDescription = 16 << 10
	// maxUser and maxWord bound, in bytes, what is kept of a name as long as a call stands, for its record and the show commands: a user part; a
	// codec or the kind of a medium. Longer ones are cut.
	maxUser = 256
	maxWord = 64
	// maxWaiting is how many bytes may wait for a slow connection before it is closed, beside what its socket holds; keptBuffer is how much
	// memory a connection keeps when nothing waits.
	maxWaiting = 1 << 20
	keptBuffer = 16 << 10
	// maxReaches bounds the BYEs that wait for a new connection to their end.
	maxReaches = 20000
	// ticketFailures within ticketWindow close the connection (ticket.md).
	ticketFailures = 20
)

// word copies at most n bytes of a text that is a part of a message: as long as it is kept, the whole message would be.
func word(s string, n int) string { return strings.Clone(s[:min(n, len(s))]) }

// Times of the signaling path.
const (
	handshakeTimeout = 10 * time.Second       // a TLS handshake
	messageTimeout   = 10 * time.Second       // a first message, and any message from its first byte on
	openTimeout      = 2 * time.Second        // opening the other side for a request
	writeTimeout     = 10 * time.Second       // one write
	closeTimeout     = 500 * time.Millisecond // what is still queued when a connection is shut
	ticketWindow     = 60 * time.Second
	keepaliveEvery   = 95 * time.Second // RFC 5626 4.4.1: 95 to 120 s on connections
	pongTimeout      = 10 * time.Second
	probeEvery       = 30 * time.Second // OPTIONS probe of a call agent, at most
	sessionIdle      = 30 * time.Minute // a session without message and without call
	reachIdle        = time.Minute      // the same of a session that the appliance opened for a BYE
	mediaGone        = time.Hour        // a call with neither connection nor packet for that long is over
	stopGrace        = 6 * time.Second  // BYEs of a stopping daemon
)

// logsPerSecond bounds the log lines of each event that a peer can bring about by what it sends (observe.Event); counters count all of them.
const logsPerSecond = 20

// silenceMessage is said of answered calls to which no audio comes from outside.
const silenceMessage = "no audio comes from the Internet"

// limitedLog keeps what strangers are refused for from filling the log.
func limitedLog(log *slog.Logger, now func() time.Time) *slog.Logger {
	return slog.New(observe.LimitLog(log.Handler(), logsPerSecond, now))
}
