package proxy

import (
	"testing"
	"time"

	"imeproxy/proxy/observe"
	"imeproxy/tlsproxy"
)

func TestCertificateProblem(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	for _, tt := range []struct {
		name     string
		info     tlsproxy.CertificateInfo
		code     string // "" = nothing is wrong
		severity observe.Severity
	}{
		{"a year left", tlsproxy.CertificateInfo{Kind: "identity", Status: "available", NotAfter: now.Add(365 * day)}, "", ""},
		{"31 days left", tlsproxy.CertificateInfo{Kind: "ca", Status: "available", NotAfter: now.Add(31 * day)}, "", ""},
		{"29 days left", tlsproxy.CertificateInfo{Kind: "identity", Status: "available", NotAfter: now.Add(29 * day)}, "certificate_expiring", observe.Warning},
		{"6 days left", tlsproxy.CertificateInfo{Kind: "identity", Status: "available", NotAfter: now.Add(6 * day)}, "certificate_expiring", observe.Major},
		{"authority, 6 days left", tlsproxy.CertificateInfo{Kind: "ca", Status: "available", NotAfter: now.Add(6 * day)}, "certificate_expiring", observe.Major},
		{"over", tlsproxy.CertificateInfo{Kind: "identity", Status: "expired", NotAfter: now.Add(-day)}, "certificate_unusable", observe.Critical},
		{"damaged", tlsproxy.CertificateInfo{Kind: "ca", Status: "malformed"}, "certificate_unusable", observe.Critical},
	} {
		tt.info.Trustpoint = "local_ent"
		p, ok := certificateProblem(tt.info, now)
		if ok != (tt.code != "") || ok && (p.Code != tt.code || p.Severity != tt.severity) {
			t.Errorf("%s: %v %s %s, want %q %s", tt.name, ok, p.Code, p.Severity, tt.code, tt.severity)
		}
	}
}
