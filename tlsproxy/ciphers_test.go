package tlsproxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestCheckCiphers(t *testing.T) {
	tests := []struct {
		list     string
		warnings int
		bad      bool
	}{
		{"", 0, false},
		{"aes128-sha1 aes256-sha1 3des-sha1 null-sha1", 1, false},
		{"AES128-SHA1", 0, false},
		{"3des-sha1 aes128-sha1", 0, false},
		{"des-sha1 aes128-sha1", 1, false},
		{"null-sha1", 1, true},
		{"des-sha1 null-sha1", 2, true},
		{"rc4-md5", 0, true},
	}
	for _, tt := range tests {
		warnings, err := CheckCiphers(strings.Fields(tt.list))
		if len(warnings) != tt.warnings || errors.Is(err, ErrCipherSuite) != tt.bad {
			t.Errorf("CheckCiphers(%q) = %q, %v", tt.list, warnings, err)
		}
	}
}

// TestNegotiation: what each keyword gives with a peer that knows one suite alone.
func TestNegotiation(t *testing.T) {
	ca := newAuthority(t, "CA")
	s := storeWith(t, ca.issueFor(rsaKey(t, 2048), "a.example"), ca)
	peerCert := ca.issue("b.example").tls()
	all := append(slices.Clone(defaultSuites), keywordSuites["aes128-sha1"]...)
	all = append(append(all, keywordSuites["aes256-sha1"]...), keywordSuites["3des-sha1"]...)
	all = append(all, tls.TLS_RSA_WITH_RC4_128_SHA, tls.TLS_ECDHE_RSA_WITH_RC4_128_SHA, tls.TLS_RSA_WITH_AES_128_GCM_SHA256)
	names := func(list ...uint16) string {
		var out []string
		for _, id := range list {
			out = append(out, strings.TrimPrefix(tls.CipherSuiteName(id), "TLS_"))
		}
		slices.Sort(out)
		return strings.Join(slices.Compact(out), " ")
	}
	// An RSA certificate works with the RSA suites of each list.
	aead := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256}
	cbc128 := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_128_CBC_SHA}
	cbc256 := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA, tls.TLS_RSA_WITH_AES_256_CBC_SHA}
	des3 := []uint16{tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA}
	tests := []struct {
		keywords string
		want     []uint16
	}{
		{"", append(slices.Clone(aead), cbc128[0], cbc256[0])},
		{"aes128-sha1", append(slices.Clone(aead), cbc128...)},
		{"aes256-sha1 null-sha1 des-sha1", append(slices.Clone(aead), cbc256...)},
		{"3des-sha1", append(slices.Clone(aead), des3...)},
	}
	for _, tt := range tests {
		server, err := s.ServerConfig("local-ent", Policy{Ciphers: strings.Fields(tt.keywords)})
		must(t, err)
		var got []uint16
		for _, id := range all {
			peer := &tls.Config{
				Certificates: []tls.Certificate{peerCert}, RootCAs: poolOf(ca), ServerName: "a.example",
				MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{id},
			}
			cs, err, serverErr := shake(t, peer, server)
			if err == nil {
				got = append(got, cs.CipherSuite)
			} else if r := reasonOf(serverErr); r != ReasonCipherSuite {
				t.Errorf("%q, %s: reason %q (%v), want cipher_suite", tt.keywords, tls.CipherSuiteName(id), r, serverErr)
			}
		}
		if names(got...) != names(tt.want...) {
			t.Errorf("keywords %q negotiate\n%s\nwant\n%s", tt.keywords, names(got...), names(tt.want...))
		}
	}
}

func TestVersions(t *testing.T) {
	ca := newAuthority(t, "CA")
	s := storeWith(t, ca.issue("a.example"), ca)
	peer := ca.issue("b.example").tls()
	tests := []struct {
		name          string
		policy        Policy
		least, most   uint16 // of the peer
		want          uint16
		serverReason  Reason
		configRefused bool
	}{
		{name: "default meets new", want: tls.VersionTLS13},
		{name: "default meets 1.2", most: tls.VersionTLS12, want: tls.VersionTLS12},
		{name: "default meets 1.1", least: tls.VersionTLS10, most: tls.VersionTLS11, serverReason: ReasonVersion},
		{name: "any still refuses 1.1", policy: Policy{ServerMin: tls.VersionTLS10}, least: tls.VersionTLS10, most: tls.VersionTLS11, serverReason: ReasonVersion},
		{name: "1.3 only", policy: Policy{ServerMin: tls.VersionTLS13}, most: tls.VersionTLS12, serverReason: ReasonVersion},
		{name: "1.2 only", policy: Policy{ServerMax: tls.VersionTLS12}, want: tls.VersionTLS12},
		{name: "1.1 at most", policy: Policy{ServerMax: tls.VersionTLS11}, configRefused: true},
	}
	for _, tt := range tests {
		server, err := s.ServerConfig("local-ent", tt.policy)
		if (err != nil) != tt.configRefused {
			t.Errorf("%s: ServerConfig: %v", tt.name, err)
		}
		if err != nil {
			continue
		}
		client := &tls.Config{Certificates: []tls.Certificate{peer}, RootCAs: poolOf(ca), ServerName: "a.example", MinVersion: tt.least, MaxVersion: tt.most}
		cs, clientErr, serverErr := shake(t, client, server)
		if tt.serverReason != "" {
			if reasonOf(serverErr) != tt.serverReason {
				t.Errorf("%s: server %v, want reason %s", tt.name, serverErr, tt.serverReason)
			}
			continue
		}
		if clientErr != nil || cs.Version != tt.want {
			t.Errorf("%s: %s, %v", tt.name, tls.VersionName(cs.Version), clientErr)
		}
	}
	client, err := s.ClientConfig("local-ent", "a.example", Policy{ClientMin: tls.VersionTLS13})
	must(t, err)
	old := &tls.Config{Certificates: []tls.Certificate{peer}, MaxVersion: tls.VersionTLS12}
	if _, err, _ := shake(t, client, old); reasonOf(err) != ReasonVersion {
		t.Errorf("client that wants TLS 1.3 meets TLS 1.2: %v", err)
	}
	if _, err := s.ClientConfig("local-ent", "a.example", Policy{Ciphers: []string{"null-sha1"}}); !errors.Is(err, ErrCipherSuite) {
		t.Errorf("null-sha1 alone: %v, want ErrCipherSuite", err)
	}
}

func TestKeyLog(t *testing.T) {
	ca := newAuthority(t, "CA")
	s := storeWith(t, ca.issue("a.example"), ca)
	var log bytes.Buffer
	server, err := s.ServerConfig("local-ent", Policy{KeyLog: &log})
	must(t, err)
	client, err := s.ClientConfig("local-ent", "a.example", Policy{})
	must(t, err)
	if _, err, _ := shake(t, client, server); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "CLIENT_TRAFFIC_SECRET_0") {
		t.Errorf("key log: %q", log.String())
	}
}
