package uplink

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

const (
	maxCertificates = 64
	maxTrust        = 1 << 20 // bytes
)

// trusting makes the settings of a connection to a server whose certificate is in the text of a file, or is signed by one that is and has the name.
// A certificate that stands in the file itself needs no name: that is how the guide's self-signed ones are trusted.
func trusting(file string, text []byte, name string) (*tls.Config, error) {
	var all []*x509.Certificate
	roots := x509.NewCertPool()
	for b, rest := pem.Decode(text); b != nil; b, rest = pem.Decode(rest) {
		if b.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate %d: %w", file, len(all)+1, err)
		}
		all = append(all, c)
		roots.AddCert(c)
	}
	if len(all) == 0 || len(all) > maxCertificates {
		return nil, fmt.Errorf("%s: has %d certificates in PEM form, want 1 to %d", file, len(all), maxCertificates)
	}
	check := func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			return errors.New("the server has no certificate")
		}
		leaf := cs.PeerCertificates[0]
		for _, c := range all {
			if bytes.Equal(c.Raw, leaf.Raw) {
				if now := time.Now(); now.Before(c.NotBefore) || now.After(c.NotAfter) {
					return fmt.Errorf("the server's certificate is good from %s to %s", c.NotBefore.Format(time.DateTime), c.NotAfter.Format(time.DateTime))
				}
				return nil
			}
		}
		between := x509.NewCertPool()
		for _, c := range cs.PeerCertificates[1:] {
			between.AddCert(c)
		}
		_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: name})
		return err
	}
	// The library's own check knows no certificate that is trusted for itself; ours, which is made at every connection, stands in its place.
	return &tls.Config{InsecureSkipVerify: true, VerifyConnection: check, ServerName: name, MinVersion: tls.VersionTLS12}, nil
}
