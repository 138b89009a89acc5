package tlsproxy

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

var oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// ParseDomain brings a domain into the one form in which domains are compared: lower case, no trailing dot, labels of
// letters, digits and hyphens (internationalized names as A-labels), 1 to 253 characters. Wildcards and anything else are refused with [ErrMalformed].
func ParseDomain(s string) (string, error) {
	d := strings.ToLower(strings.TrimSuffix(s, "."))
	if d == "" || len(d) > 253 {
		return "", fmt.Errorf("%w: domain %.80q: 1 to 253 characters are due", ErrMalformed, s)
	}
	for label := range strings.SplitSeq(d, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return "", fmt.Errorf("%w: domain %.80q: a label has 1 to 63 characters and no hyphen at either end", ErrMalformed, s)
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
				return "", fmt.Errorf("%w: domain %.80q: only letters, digits and hyphens (names in other scripts as xn-- labels)", ErrMalformed, s)
			}
		}
	}
	return d, nil
}

// Domains returns the SIP domain identities of a certificate (RFC 5922 section 7.1): the hosts of the SAN URIs sip:DOMAIN
// without user part where there are any; else the SAN dNSName entries; the common name only where the certificate has no SAN at all.
// Wildcards are left out (section 7.2). In the form of [ParseDomain], without repetitions, in the certificate's order.
func Domains(c *x509.Certificate) []string {
	if c == nil {
		return nil
	}
	var out []string
	add := func(name string) {
		if d, err := ParseDomain(name); err == nil && !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	sipURI := false
	for _, u := range c.URIs {
		if host, ok := sipHost(u); ok {
			sipURI = true
			add(host)
		}
	}
	if sipURI {
		return out
	}
	for _, name := range c.DNSNames {
		add(name)
	}
	if !hasSubjectAltName(c) {
		add(c.Subject.CommonName)
	}
	return out
}

// HoldsDomain says whether domain is one of the certificate's SIP domain identities.
func HoldsDomain(c *x509.Certificate, domain string) bool {
	d, err := ParseDomain(domain)
	return err == nil && slices.Contains(Domains(c), d)
}

// sipHost returns the host part of sip:HOST; a URI with a user part names a user, another scheme is no SIP identity (RFC 5922 section 7.1).
func sipHost(u *url.URL) (string, bool) {
	if !strings.EqualFold(u.Scheme, "sip") || u.User != nil || strings.Contains(u.Opaque, "@") {
		return "", false
	}
	host := u.Opaque
	if host == "" {
		return "", false
	}
	if i := strings.IndexAny(host, ":;?"); i >= 0 {
		host = host[:i]
	}
	return host, true
}

func hasSubjectAltName(c *x509.Certificate) bool {
	for _, e := range c.Extensions {
		if e.Id.Equal(oidSubjectAltName) {
			return true
		}
	}
	return false
}
