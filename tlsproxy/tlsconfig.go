package tlsproxy

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync/atomic"
)

// ServerConfig is the TLS configuration for accepting connections with a trustpoint's certificate. Mutual TLS: the client must present a certificate
// that leads to an authenticated trustpoint (dates, key usage and extended key usage included). Certificate and authorities are those of
// the moment of each handshake. Sessions may be resumed; the peer is verified again then. Errors: those of [Store.Identity] and [ErrCipherSuite].
// The configuration is safe for concurrent use; do not change it.
func (s *Store) ServerConfig(trustpoint string, p Policy) (*tls.Config, error) {
	if _, err := s.Identity(trustpoint); err != nil {
		return nil, err
	}
	cfg, err := p.base(p.ServerMin, p.ServerMax)
	if err != nil {
		return nil, err
	}
	cfg.Time = s.now
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	// Never nil: nil would mean the machine's own root certificates.
	cfg.ClientCAs = x509.NewCertPool()
	var cache atomic.Pointer[serverOfSnapshot]
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		snap := s.current()
		c := cache.Load()
		if c == nil || c.snap != snap {
			fresh, err := s.serverOf(snap, trustpoint, p)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", errOwnCertificate, err)
			}
			c = fresh
			cache.Store(c)
		}
		if err := checkDates(c.leaf, s.now()); err != nil {
			return nil, fmt.Errorf("%w: trustpoint %q: %w", errOwnCertificate, trustpoint, err)
		}
		return c.cfg, nil
	}
	return cfg, nil
}

// serverOfSnapshot is kept as long as the snapshot is, so that a handshake costs no parsing.
type serverOfSnapshot struct {
	snap *snapshot
	leaf *x509.Certificate
	cfg  *tls.Config
}

// serverOf makes the configuration of one handshake. Its session ticket keys are left empty: Go then takes those of the configuration that carries
// GetConfigForClient, so tickets live on over a reload.
func (s *Store) serverOf(snap *snapshot, trustpoint string, p Policy) (*serverOfSnapshot, error) {
	id, err := snap.identity(trustpoint, s.now())
	if err != nil {
		return nil, err
	}
	cfg, err := p.base(p.ServerMin, p.ServerMax)
	if err != nil {
		return nil, err
	}
	trusted := snap.anchorsOf(p.Trustpoints)
	cfg.Time = s.now
	cfg.Certificates = []tls.Certificate{id.Certificate}
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	cfg.ClientCAs = trusted.all
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		return trusted.verify(cs, x509.ExtKeyUsageClientAuth, s.now())
	}
	return &serverOfSnapshot{snap: snap, leaf: id.Certificate.Leaf, cfg: cfg}, nil
}

// ClientConfig is the TLS configuration for one connection that the appliance opens to a server of domain, which is also the
// server name of the hello. The server's chain must lead to an authenticated trustpoint and its certificate must hold the domain as RFC 5922 says (no wildcards);
// Policy.AnyName lifts the latter. The trustpoint's own certificate is presented when the server asks. Make one for each connection: certificate and authorities are those of this call.
// Sessions are not resumed.
func (s *Store) ClientConfig(trustpoint, domain string, p Policy) (*tls.Config, error) {
	snap := s.current()
	id, err := snap.identity(trustpoint, s.now())
	if err != nil {
		return nil, err
	}
	cfg, err := p.base(p.ClientMin, p.ClientMax)
	if err != nil {
		return nil, err
	}
	if domain != "" || !p.AnyName {
		if domain, err = ParseDomain(domain); err != nil {
			return nil, fmt.Errorf("server's domain: %w", err)
		}
	}
	trusted := snap.anchorsOf(p.Trustpoints)
	cfg.Time = s.now
	cfg.ServerName = domain
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		// Always ours, whichever authorities the server names: many servers name roots only, and our chain ends below them.
		return &id.Certificate, nil
	}
	// Go's own check knows wildcards and ignores common names, RFC 5922 wants the reverse. VerifyConnection below makes the whole check, chain included.
	cfg.InsecureSkipVerify = true
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := trusted.verify(cs, x509.ExtKeyUsageServerAuth, s.now()); err != nil {
			return err
		}
		if p.AnyName {
			return nil
		}
		return checkDomain(cs.PeerCertificates[0], domain)
	}
	return cfg, nil
}
