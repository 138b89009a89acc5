package tlsproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"
)

var errOwnCertificate = errors.New("own certificate cannot be used")

// HandshakeError is a failed handshake with its reason, in one line for a log.
type HandshakeError struct {
	Reason Reason
	Text   string
	Err    error
}

func (e *HandshakeError) Error() string { return "TLS handshake: " + e.Text }

func (e *HandshakeError) Unwrap() error { return e.Err }

// Handshake runs the handshake of conn within d and ctx. On an error, always a *[HandshakeError], the connection is closed. It returns at once when either ends.
func Handshake(ctx context.Context, conn *tls.Conn, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	err := conn.HandshakeContext(ctx)
	if err == nil {
		return nil
	}
	conn.Close()
	return explain(err, d)
}

// explain finds the reason in what crypto/tls reports. Alerts and refusals of the protocol have no exported types there; their texts are stable.
func explain(err error, d time.Duration) *HandshakeError {
	var peer *PeerError
	var chain *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var op *net.OpError
	text := err.Error()
	out := func(r Reason, format string, args ...any) *HandshakeError {
		return &HandshakeError{Reason: r, Text: fmt.Sprintf(format, args...), Err: err}
	}
	switch {
	case errors.As(err, &peer):
		return out(peer.Reason, "%s", peer.Error())
	case errors.As(err, &chain) && len(chain.UnverifiedCertificates) > 0:
		if errors.As(peerError(chain.UnverifiedCertificates[0], chain.Err), &peer) {
			return out(peer.Reason, "%s", peer.Error())
		}
	case errors.Is(err, errOwnCertificate):
		return out(ReasonOwnCertificate, "%s", text)
	case errors.As(err, &record):
		return out(ReasonNotTLS, "the peer does not speak TLS (first bytes % x)", record.RecordHeader)
	case errors.Is(err, context.DeadlineExceeded):
		return out(ReasonTimeout, "not complete after %s", d)
	case errors.Is(err, context.Canceled):
		return out(ReasonClosed, "given up by this side")
	case errors.As(err, &op) && op.Op == "remote error":
		return out(alertReason(text), "the peer refused: %s%s", op.Err, alertHint(text))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		return out(ReasonClosed, "the connection was closed before the end")
	case strings.Contains(text, "didn't provide a certificate"):
		return out(ReasonNoCertificate, "the peer sent no certificate; mutual TLS is required")
	case strings.Contains(text, "unsupported versions"), strings.Contains(text, "unsupported protocol version"):
		return out(ReasonVersion, "no common TLS version; 1.2 is the least here (%s)", text)
	case strings.Contains(text, "no cipher suite supported"):
		return out(ReasonCipherSuite, "no common cipher suite")
	case strings.Contains(text, "first record does not look like a TLS handshake"):
		return out(ReasonNotTLS, "the peer does not speak TLS")
	}
	return out(ReasonOther, "%s", text)
}

func alertReason(text string) Reason {
	if strings.Contains(text, "protocol version") {
		return ReasonVersion
	}
	return ReasonPeerRefused
}

// alertHint: what a peer's alert about certificates usually means for the one who reads the log here.
func alertHint(text string) string {
	switch {
	case strings.Contains(text, "unknown certificate authority"):
		return "; it does not trust the issuer of our certificate"
	case strings.Contains(text, "expired certificate"):
		return "; it holds our certificate for expired"
	case strings.Contains(text, "certificate required"):
		return "; it wants a certificate from us"
	case strings.Contains(text, "certificate"):
		return "; it does not accept our certificate"
	}
	return ""
}
