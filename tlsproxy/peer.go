package tlsproxy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Reason is why a handshake failed: a closed set, fit for a metric's label.
type Reason string

// The reasons of [PeerError] and [HandshakeError].
const (
	ReasonNoCertificate  Reason = "no_certificate"
	ReasonUnknownIssuer  Reason = "unknown_issuer"
	ReasonExpired        Reason = "expired"
	ReasonNotYetValid    Reason = "not_yet_valid"
	ReasonKeyUsage       Reason = "key_usage"
	ReasonWeak           Reason = "weak"
	ReasonWrongDomain    Reason = "wrong_domain"
	ReasonBadCertificate Reason = "bad_certificate"
	ReasonTimeout        Reason = "timeout"
	ReasonClosed         Reason = "closed"
	ReasonNotTLS         Reason = "not_tls"
	ReasonPeerRefused    Reason = "peer_refused"
	ReasonVersion        Reason = "protocol_version"
	ReasonCipherSuite    Reason = "cipher_suite"
	ReasonOwnCertificate Reason = "own_certificate"
	ReasonOther          Reason = "other"
)

// Reasons lists every [Reason], for whoever counts them.
func Reasons() []Reason {
	return []Reason{
		ReasonNoCertificate, ReasonUnknownIssuer, ReasonExpired, ReasonNotYetValid, ReasonKeyUsage, ReasonWeak, ReasonWrongDomain, ReasonBadCertificate,
		ReasonTimeout, ReasonClosed, ReasonNotTLS, ReasonPeerRefused, ReasonVersion, ReasonCipherSuite, ReasonOwnCertificate, ReasonOther,
	}
}

// PeerError says which certificate of the peer was refused and why, in one line for a log.
type PeerError struct {
	Reason      Reason
	Certificate string // subject, issuer and serial; empty when the peer sent none
	Text        string // why, with the values concerned
	Err         error  // the cause; may be nil
}

func (e *PeerError) Error() string {
	if e.Certificate == "" {
		return "peer refused: " + e.Text
	}
	return "peer's " + e.Certificate + " refused: " + e.Text
}

func (e *PeerError) Unwrap() error { return e.Err }

// anchors are the certificates that a peer's chain may end at. all holds every one (its subjects are named in the certificate request); ca those that vouch
// for others; pinned those trusted for themselves alone, by their DER form.
type anchors struct {
	all, ca *x509.CertPool
	pinned  map[string]bool
}

// anchorsOf collects the anchors of the trustpoints named, nil = all.
func (sn *snapshot) anchorsOf(names []string) *anchors {
	if names == nil && sn.anchors != nil {
		return sn.anchors
	}
	a := &anchors{all: x509.NewCertPool(), ca: x509.NewCertPool(), pinned: map[string]bool{}}
	for name, tp := range sn.trustpoints {
		if names != nil && !slices.Contains(names, name) {
			continue
		}
		for _, c := range append(append([]*x509.Certificate{}, tp.authenticated...), tp.bundled...) {
			a.all.AddCert(c)
			if isAuthority(c) {
				a.ca.AddCert(c)
			} else {
				a.pinned[string(c.Raw)] = true
			}
		}
	}
	return a
}

// verify checks a peer's certificate in the given role. It runs in tls.Config.VerifyConnection, which Go calls for resumed sessions too
// (VerifyPeerCertificate is not), so that what was withdrawn since the first handshake no longer passes.
func (a *anchors) verify(cs tls.ConnectionState, role x509.ExtKeyUsage, now time.Time) error {
	if len(cs.PeerCertificates) == 0 {
		return &PeerError{Reason: ReasonNoCertificate, Text: "it sent no certificate"}
	}
	leaf := cs.PeerCertificates[0]
	if err := checkRole(leaf, role, cs.CipherSuite); err != nil {
		return peerError(leaf, err)
	}
	if a.pinned[string(leaf.Raw)] {
		err := checkDates(leaf, now)
		if err == nil {
			err = checkKey(leaf.PublicKey)
		}
		return peerError(leaf, err)
	}
	opts := x509.VerifyOptions{
		Roots: a.ca, Intermediates: x509.NewCertPool(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{role},
	}
	for _, c := range cs.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	chains, err := leaf.Verify(opts)
	if err != nil {
		return peerError(leaf, err)
	}
	for _, chain := range chains {
		if err = strongChain(chain); err == nil {
			return nil
		}
	}
	return peerError(leaf, err)
}

func strongChain(chain []*x509.Certificate) error {
	for _, c := range chain {
		if err := checkKey(c.PublicKey); err != nil {
			return fmt.Errorf("%s in its chain: %w", describe(c), err)
		}
	}
	return nil
}

// checkRole checks key usage and extended key usage of the peer's own certificate. RSA key exchange is the one case where a server
// needs no signature.
func checkRole(leaf *x509.Certificate, role x509.ExtKeyUsage, suite uint16) error {
	if !hasExtUsage(leaf, role) {
		return fmt.Errorf("%w: its extended key usage does not include TLS %s authentication", ErrUsage, roleName(role))
	}
	need, name := x509.KeyUsageDigitalSignature, "digital signature"
	if role == x509.ExtKeyUsageServerAuth && rsaKeyExchange(suite) {
		need, name = x509.KeyUsageKeyEncipherment, "key encipherment"
	}
	if leaf.KeyUsage != 0 && leaf.KeyUsage&need == 0 {
		return fmt.Errorf("%w: its key usage does not include %s", ErrUsage, name)
	}
	return nil
}

func roleName(role x509.ExtKeyUsage) string {
	if role == x509.ExtKeyUsageClientAuth {
		return "client"
	}
	return "server"
}

func rsaKeyExchange(suite uint16) bool {
	return strings.HasPrefix(tls.CipherSuiteName(suite), "TLS_RSA_")
}

// checkDomain is RFC 5922 section 7.2 for a server: its certificate must hold the domain that the request is for.
func checkDomain(leaf *x509.Certificate, domain string) error {
	if HoldsDomain(leaf, domain) {
		return nil
	}
	holds := strings.Join(Domains(leaf), ", ")
	if holds == "" {
		holds = "no SIP domain (wildcards do not count)"
	}
	return &PeerError{
		Reason: ReasonWrongDomain, Certificate: describe(leaf),
		Text: fmt.Sprintf("it is not for the domain %s; it holds %s", domain, holds),
	}
}

// peerError gives a cause of refusal its reason. nil stays nil.
func peerError(leaf *x509.Certificate, err error) error {
	if err == nil {
		return nil
	}
	out := &PeerError{Reason: ReasonBadCertificate, Certificate: describe(leaf), Text: err.Error(), Err: err}
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.Is(err, ErrUsage):
		out.Reason = ReasonKeyUsage
	case errors.Is(err, ErrWeakKey), errors.Is(err, ErrWeakSignature), errors.Is(err, ErrAlgorithm):
		out.Reason = ReasonWeak
	case errors.Is(err, ErrExpired):
		out.Reason = ReasonExpired
	case errors.Is(err, ErrNotYetValid):
		out.Reason = ReasonNotYetValid
	case errors.As(err, &unknown):
		out.Reason, out.Text = ReasonUnknownIssuer, "it leads to no authenticated trustpoint; authenticate its issuer, or let the peer send its intermediate certificates"
		if unknown.Cert != nil && checkSignature(unknown.Cert) != nil {
			out.Reason, out.Text = ReasonWeak, checkSignature(unknown.Cert).Error()
		}
	case errors.As(err, &invalid):
		out.Reason, out.Text = invalidReason(leaf, invalid)
	}
	return out
}

func invalidReason(leaf *x509.Certificate, invalid x509.CertificateInvalidError) (Reason, string) {
	which := ""
	if invalid.Cert != nil && !invalid.Cert.Equal(leaf) {
		which = describe(invalid.Cert) + " in its chain: "
	}
	switch invalid.Reason {
	case x509.Expired:
		// crypto/x509 has one reason for both ends of the validity.
		if strings.Contains(invalid.Detail, "is before") {
			return ReasonNotYetValid, which + ErrNotYetValid.Error() + ": " + invalid.Detail
		}
		return ReasonExpired, which + ErrExpired.Error() + ": " + invalid.Detail
	case x509.IncompatibleUsage:
		return ReasonKeyUsage, which + "its chain does not permit this use (extended key usage)"
	}
	return ReasonBadCertificate, which + invalid.Error()
}
