package tlsproxy

import (
	"crypto/tls"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Policy is what the configuration says about TLS. The zero value is a good policy: TLS 1.2 and 1.3, suites with forward secrecy.
type Policy struct {
	// ClientMin and ServerMin are the least versions in each role; 0 and everything below TLS 1.2 mean TLS 1.2.
	ClientMin, ServerMin uint16
	// ClientMax and ServerMax are the highest versions; 0 means no bound. A bound below TLS 1.2 is refused.
	ClientMax, ServerMax uint16
	// Ciphers are ASA keywords (see CheckCiphers); empty = the default suites.
	Ciphers []string
	// Trustpoints limits the authorities that count for the peer to those of the trustpoints named; nil = all authenticated ones.
	Trustpoints []string
	// AnyName switches the domain check of ClientConfig off, for a call agent inside that is known by its pinned certificate or its own authority: give
	// Trustpoints with it.
	AnyName bool
	// KeyLog receives the session secrets (SSLKEYLOGFILE format), for test and debugging alone.
	KeyLog io.Writer
}

// aeadSuites are offered with any list: authenticated encryption with forward secrecy.
var aeadSuites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// defaultSuites adds CBC with forward secrecy for peers of TLS 1.2's first years.
var defaultSuites = append(slices.Clone(aeadSuites),
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA)

// keywordSuites maps the ASA's keywords. Naming a suite in tls.Config.CipherSuites is enough for Go 1.26 to use it: 3DES and RSA key
// exchange are missing from the default list only, no GODEBUG setting is needed. Empty: known, never negotiated.
var keywordSuites = map[string][]uint16{
	"aes128-sha1": {
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_128_CBC_SHA,
	},
	"aes256-sha1": {
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA, tls.TLS_RSA_WITH_AES_256_CBC_SHA,
	},
	"3des-sha1": {tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA},
	"des-sha1":  nil,
	"null-sha1": nil,
}

// CheckCiphers judges a list of ASA cipher-suite keywords: aes128-sha1, aes256-sha1, 3des-sha1, des-sha1, null-sha1. des-sha1 and null-sha1
// give a warning each and are never negotiated; a list of nothing else, and an unknown keyword, is an error ([ErrCipherSuite]). An empty list is good: the default suites.
func CheckCiphers(keywords []string) (warnings []string, err error) {
	usable := false
	for _, k := range keywords {
		suites, known := keywordSuites[strings.ToLower(k)]
		switch {
		case !known:
			return nil, fmt.Errorf("%w: unknown keyword %q; aes128-sha1, aes256-sha1, 3des-sha1, des-sha1 and null-sha1 exist", ErrCipherSuite, k)
		case len(suites) == 0:
			warnings = append(warnings, strings.ToLower(k)+" protects nothing and is never negotiated")
		default:
			usable = true
		}
	}
	if len(keywords) > 0 && !usable {
		return warnings, fmt.Errorf("%w: %s are never negotiated; add aes128-sha1 or aes256-sha1", ErrCipherSuite, strings.Join(keywords, " "))
	}
	return warnings, nil
}

// suites returns what to put into tls.Config.CipherSuites (TLS 1.2 alone: those of TLS 1.3 are fixed).
func (p Policy) suites() ([]uint16, error) {
	if _, err := CheckCiphers(p.Ciphers); err != nil {
		return nil, err
	}
	if len(p.Ciphers) == 0 {
		return slices.Clone(defaultSuites), nil
	}
	out := slices.Clone(aeadSuites)
	for _, k := range p.Ciphers {
		for _, id := range keywordSuites[strings.ToLower(k)] {
			if !slices.Contains(out, id) {
				out = append(out, id)
			}
		}
	}
	return out, nil
}

// versions checks one role's bounds.
func versions(least, most uint16) (uint16, uint16, error) {
	least = max(least, tls.VersionTLS12)
	if most != 0 && most < least {
		return 0, 0, fmt.Errorf("%w: highest TLS version %s is below the least one, %s; TLS below 1.2 is refused", ErrCipherSuite, tls.VersionName(most), tls.VersionName(least))
	}
	return least, most, nil
}

// base is what both roles have in common. Renegotiation stays off, which is the zero value.
func (p Policy) base(least, most uint16) (*tls.Config, error) {
	suites, err := p.suites()
	if err != nil {
		return nil, err
	}
	least, most, err = versions(least, most)
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: least, MaxVersion: most, CipherSuites: suites, KeyLogWriter: p.KeyLog}, nil
}
