package tlsproxy

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"sort"
	"time"
)

// CertificateInfo is one certificate of the store, for show crypto ca certificates and crypto list --json.
type CertificateInfo struct {
	Trustpoint string `json:"trustpoint"`
	// Kind is "identity", "intermediate" (sent with the identity), "ca" (vouches for others), "pinned" (trusted for itself), or "request": no certificate
	// yet, its request waits for one. A request has no issuer, serial number, dates and fingerprint.
	Kind         string    `json:"kind"`
	Status       string    `json:"status"` // "available", "pending" of a request, or why it cannot be used
	Subject      string    `json:"subject"`
	Issuer       string    `json:"issuer"`
	Serial       string    `json:"serial"` // hexadecimal
	NotBefore    time.Time `json:"not_before,omitzero"`
	NotAfter     time.Time `json:"not_after,omitzero"`
	KeyAlgorithm string    `json:"key_algorithm"`
	KeyBits      int       `json:"key_bits"`
	Signature    string    `json:"signature"`
	Domains      []string  `json:"domains"`            // SIP domain identities (RFC 5922)
	KeyPair      string    `json:"key_pair,omitempty"` // label, identity certificates and requests only
	Fingerprint  string    `json:"fingerprint_sha256"` // hexadecimal
}

// Certificates lists all certificates, by trustpoint, identity first, then the request that waits for the next one. A trustpoint whose files are damaged has an entry with the damage as its status.
func (s *Store) Certificates() []CertificateInfo {
	snap, now := s.current(), s.now()
	var out []CertificateInfo
	for _, name := range sortedNames(snap.trustpoints) {
		tp := snap.trustpoints[name]
		if tp.leaf != nil {
			info := certificateInfo(name, "identity", tp.leaf, checkIdentity(tp.leaf, now))
			info.KeyPair = tp.meta.KeyPair
			out = append(out, info)
			for _, c := range tp.sentChain() {
				out = append(out, certificateInfo(name, "intermediate", c, checkDates(c, now)))
			}
		}
		if tp.request != nil {
			out = append(out, requestInfo(name, tp.request, tp.meta.KeyPair))
		}
		for _, c := range append(append([]*x509.Certificate{}, tp.authenticated...), tp.bundled...) {
			kind := "pinned"
			if isAuthority(c) {
				kind = "ca"
			}
			err := checkKey(c.PublicKey)
			if err == nil {
				err = checkDates(c, now)
			}
			out = append(out, certificateInfo(name, kind, c, err))
		}
		for kind, err := range map[string]error{"identity": tp.idErr, "ca": tp.caErr} {
			if err != nil {
				out = append(out, CertificateInfo{Trustpoint: name, Kind: kind, Status: err.Error(), Domains: []string{}})
			}
		}
	}
	return out
}

func certificateInfo(name, kind string, c *x509.Certificate, problem error) CertificateInfo {
	sum := sha256.Sum256(c.Raw)
	info := CertificateInfo{
		Trustpoint: name, Kind: kind, Status: "available",
		Subject: c.Subject.String(), Issuer: c.Issuer.String(), Serial: fmt.Sprintf("%X", c.SerialNumber),
		NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(), Signature: c.SignatureAlgorithm.String(),
		Domains: Domains(c), Fingerprint: hex.EncodeToString(sum[:]),
	}
	if info.Domains == nil {
		info.Domains = []string{}
	}
	info.KeyAlgorithm, info.KeyBits = keySize(c.PublicKey)
	if problem != nil {
		info.Status = problem.Error()
	}
	return info
}

func requestInfo(name string, r *x509.CertificateRequest, keyPair string) CertificateInfo {
	info := CertificateInfo{
		Trustpoint: name, Kind: "request", Status: "pending", Subject: r.Subject.String(), Signature: r.SignatureAlgorithm.String(), Domains: append([]string{}, r.DNSNames...), KeyPair: keyPair,
	}
	info.KeyAlgorithm, info.KeyBits = keySize(r.PublicKey)
	return info
}

func sortedNames[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
