package proxy

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"imeproxy/proxy/observe"
	"imeproxy/tlsproxy"
)

// An appliance that trusts nobody, or that was told of an authority whose certificate nobody has brought, says so.
func TestTrustProblems(t *testing.T) {
	p := testPlan(t, edgeConfig+"crypto ca trustpoint remote_ca\n enrollment terminal\n")
	own := tlsproxy.CertificateInfo{Trustpoint: "local_ent", Kind: "identity", Status: "available"}
	theirs := tlsproxy.CertificateInfo{Trustpoint: "remote_ca", Kind: "ca", Status: "available"}
	damaged := tlsproxy.CertificateInfo{Trustpoint: "remote_ca", Kind: "ca", Status: "malformed"}
	for _, tt := range []struct {
		name string
		list []tlsproxy.CertificateInfo
		want string
	}{
		{"all there", []tlsproxy.CertificateInfo{own, theirs}, ""},
		{"their authority was never brought", []tlsproxy.CertificateInfo{own}, "no_authority;trustpoint_empty remote_ca;"},
		{"it is damaged", []tlsproxy.CertificateInfo{own, damaged}, "no_authority;"}, // the damage itself is certificate_unusable
		{"one of two was brought", []tlsproxy.CertificateInfo{own, {Trustpoint: "local_ent", Kind: "ca", Status: "available"}}, "trustpoint_empty remote_ca;"},
	} {
		if got := problems(p, tt.list); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	named := testPlan(t, strings.Replace(edgeConfig, "crypto ca trustpoint local_ent\n", "crypto ca trustpoint local_ent\n subject-name cn=A.example,o=Enterprise A\n", 1))
	for subject, want := range map[string]string{"CN=a.example": "", "O=A,CN=a.example,C=DE": "", "O=A": "", "CN=other.example,O=Enterprise A": "certificate_of_another_name local_ent;"} {
		c := own
		c.Subject = subject
		if got := problems(named, []tlsproxy.CertificateInfo{c, {Trustpoint: "local_ent", Kind: "ca", Status: "available"}}); got != want {
			t.Errorf("certificate of %s: %q, want %q", subject, got, want)
		}
	}
	// Without a policy for them inbound calls pass by their access list alone.
	for _, text := range []string{
		strings.Replace(edgeConfig, "service-policy ime-policy global\n", "", 1), strings.Replace(edgeConfig, " class ime-inbound-sip\n  inspect sip uc-ime ime tls-proxy in\n", "", 1),
	} {
		if got := problems(testPlan(t, text), []tlsproxy.CertificateInfo{own, {Trustpoint: "local_ent", Kind: "ca", Status: "available"}}); !strings.Contains(got, "inbound_not_inspected") {
			t.Errorf("%q of\n%s", got, text)
		}
	}
}

func problems(p *plan, list []tlsproxy.CertificateInfo) (got string) {
	for _, x := range trustProblems(p, list, time.Now()) {
		got += strings.TrimSpace(x.Code+" "+x.Object) + ";"
	}
	return got
}

// A renewed certificate is used without anybody having been asked: the log says which.
func TestRenewedCertificatesAreLogged(t *testing.T) {
	a, log := enrolment(t)
	old := tlsproxy.CertificateInfo{Trustpoint: "local_ent", Kind: "identity", Fingerprint: "aa", Status: "available"}
	fresh := old
	fresh.Fingerprint, fresh.Subject = "bb", "CN=a.example"
	a.logReplaced([]tlsproxy.CertificateInfo{old})
	a.logReplaced([]tlsproxy.CertificateInfo{old})
	if log.Len() > 0 {
		t.Errorf("nothing has changed: %s", log)
	}
	a.logReplaced([]tlsproxy.CertificateInfo{fresh})
	for _, want := range []string{`"another certificate is in use" trustpoint=local_ent kind=identity subject="CN=a.example"`, `"a certificate is in use no more" trustpoint=local_ent kind=identity sha256=aa`} {
		if strings.Count(log.String(), want) != 1 {
			t.Errorf("no %s in %s", want, log)
		}
	}
}

// The operator's page explains every health problem.
func TestOperationNamesEveryHealthProblem(t *testing.T) {
	text, err := os.ReadFile("../docs/operation.md")
	if err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob("*.go")
	found := 0
	for _, f := range files {
		source, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`Code(?:, \w+\.Severity)?\s*(?:=|:)\s*"(\w+)"|peerNotRunning = "(\w+)"`).FindAllStringSubmatch(string(source), -1) {
			found++
			if code := m[1] + m[2]; !strings.Contains(string(text), "| `"+code+"` |") {
				t.Errorf("docs/operation.md does not name the problem %s of %s", code, f)
			}
		}
	}
	if found < 7 {
		t.Errorf("only %d problems are known", found)
	}
}

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
