package pvp

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"imeproxy/ucime/learn"
)

// ALPN is the application protocol, mandatory on both sides: a connection meant for another service never gets this far.
const ALPN = "ime-pvp/1"

// Port is the validator's TCP port (guide line 1854).
const Port = 8470

// Identity is what enrolment knows: our certificate, whom to believe, and which peer IDs a certificate names. It is asked
// for every connection, so a renewal or revocation counts from the next one on. It may be called by several goroutines.
type Identity interface {
	// Certificate is our own, with its key and chain.
	Certificate() (*tls.Certificate, error)
	// Roots are the authorities of the ring.
	Roots() *x509.CertPool
	// PeerIDs are those that the certificate names, one at least.
	PeerIDs(*x509.Certificate) ([]learn.PeerID, error)
	// Admitted says why the holder may not take part (revoked, banned), nil where it may.
	Admitted(*x509.Certificate) error
}

var (
	errALPN   = errors.New("the other side does not speak " + ALPN)
	errPeerID = errors.New("the certificate names another peer ID")
)

// tlsConfig is the same for both sides. Verification is ours alone: host names mean nothing here, peer IDs do.
func tlsConfig(id Identity, now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS13,
		NextProtos: []string{ALPN},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return id.Certificate()
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return id.Certificate()
		},
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // VerifyConnection verifies, on either side
		SessionTicketsDisabled: true, // a resumed session would skip VerifyConnection's view of today's revocations
		VerifyConnection: func(s tls.ConnectionState) error {
			return verifyPeer(id, s, now())
		},
	}
}

func verifyPeer(id Identity, s tls.ConnectionState, now time.Time) error {
	if s.NegotiatedProtocol != ALPN {
		return errALPN
	}
	if len(s.PeerCertificates) == 0 {
		return errors.New("the other side has no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		between.AddCert(c)
	}
	leaf := s.PeerCertificates[0]
	roots := id.Roots()
	if roots == nil { // nil would mean the system's roots
		return errors.New("no authority of the ring is known")
	}
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return fmt.Errorf("verify certificate: %w", err)
	}
	return id.Admitted(leaf)
}

// peerIDs returns the peer IDs of the other side in ascending order: the first is the name under which limits are kept.
func peerIDs(id Identity, s tls.ConnectionState) ([]learn.PeerID, error) {
	ids, err := id.PeerIDs(s.PeerCertificates[0])
	if err != nil {
		return nil, fmt.Errorf("peer IDs of the certificate: %w", err)
	}
	if len(ids) == 0 {
		return nil, errors.New("the certificate names no peer ID")
	}
	ids = slices.Clone(ids)
	slices.SortFunc(ids, func(a, b learn.PeerID) int { return slices.Compare(a[:], b[:]) })
	return ids, nil
}
