package tlsproxy

import (
	"crypto/x509"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestDomains(t *testing.T) {
	ca := newAuthority(t, "CA")
	uri := func(texts ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			for _, s := range texts {
				c.URIs = append(c.URIs, sipURI(t, s))
			}
		}
	}
	dns := func(names ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.DNSNames = names }
	}
	noSAN := dns()
	address := func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1)} }
	tests := []struct {
		name string
		edit []func(*x509.Certificate)
		want []string
	}{
		{"dns names, not the cn", []func(*x509.Certificate){dns("b.example", "c.example")}, []string{"b.example", "c.example"}},
		{"cn where there is no SAN", []func(*x509.Certificate){noSAN}, []string{"cn.example"}},
		{"no cn where the SAN holds an address only", []func(*x509.Certificate){noSAN, address}, nil},
		{"no cn where the SAN holds a foreign URI only", []func(*x509.Certificate){noSAN, uri("https://x.example/")}, nil},
		{"sip URI wins", []func(*x509.Certificate){dns("b.example"), uri("sip:U.example")}, []string{"u.example"}},
		{"sip URI of a user does not count", []func(*x509.Certificate){dns("b.example"), uri("sip:alice@u.example")}, []string{"b.example"}},
		{"sips does not count", []func(*x509.Certificate){dns("b.example"), uri("sips:u.example")}, []string{"b.example"}},
		{"port and parameters are left out", []func(*x509.Certificate){uri("sip:u.example:5061;transport=tls")}, []string{"u.example"}},
		{"scheme in capitals", []func(*x509.Certificate){uri("SIP:u.example")}, []string{"u.example"}},
		{"wildcards do not count", []func(*x509.Certificate){dns("*.example", "b.example")}, []string{"b.example"}},
		{"wildcard alone gives nothing", []func(*x509.Certificate){dns("*.example")}, nil},
		{"case, dot, repetition", []func(*x509.Certificate){dns("B.Example", "b.example.", "b.example")}, []string{"b.example"}},
		{"A-label", []func(*x509.Certificate){dns("xn--bcher-kva.example")}, []string{"xn--bcher-kva.example"}},
	}
	for _, tt := range tests {
		p := ca.issue("cn.example", tt.edit...)
		if got := Domains(p.cert); !slices.Equal(got, tt.want) {
			t.Errorf("%s: Domains = %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestHoldsDomain(t *testing.T) {
	ca := newAuthority(t, "CA")
	p := ca.issue("a.example", func(c *x509.Certificate) { c.DNSNames = []string{"a.example", "*.w.example"} })
	for domain, want := range map[string]bool{
		"a.example": true, "A.EXAMPLE": true, "a.example.": true,
		"b.example": false, "x.w.example": false, "*.w.example": false, "a.example..": false, "": false, ".": false,
		"sub.a.example": false, "example": false, "a.example:5061": false, "a.example\x00": false,
	} {
		if got := HoldsDomain(p.cert, domain); got != want {
			t.Errorf("HoldsDomain(%q) = %v, want %v", domain, got, want)
		}
	}
	if HoldsDomain(nil, "a.example") {
		t.Error("no certificate holds a domain")
	}
}

func TestParseDomain(t *testing.T) {
	long := strings.Repeat("a", 63)
	for in, want := range map[string]string{
		"Example.COM.": "example.com", "localhost": "localhost", "10.99.0.4": "10.99.0.4", long + ".example": long + ".example",
		"": "", "..": "", "a..b": "", "-a.example": "", "a-.example": "", "a_b.example": "", "bücher.example": "", "*.example": "",
		"a b": "", long + "a": "", strings.Repeat("a.", 127): "", "[::1]": "",
	} {
		got, err := ParseDomain(in)
		if want == "" && in == strings.Repeat("a.", 127) {
			// 253 characters without the trailing dot: the longest name there is.
			want = strings.TrimSuffix(in, ".")
		}
		if got != want || (err == nil) != (want != "") {
			t.Errorf("ParseDomain(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	if _, err := ParseDomain(strings.Repeat("a.", 127) + "b"); err == nil {
		t.Error("255 characters are no domain")
	}
}

func FuzzDomains(f *testing.F) {
	for _, s := range []string{"sip:a.example", "sip:a@b", "a.example.", "*.x", "xn--a", "SIP:[::1]:5"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, name, uri string) {
		c := &x509.Certificate{DNSNames: []string{name}}
		c.Subject.CommonName = name
		if u, err := url.Parse(uri); err == nil {
			c.URIs = []*url.URL{u}
		}
		for _, d := range Domains(c) {
			if again, err := ParseDomain(d); err != nil || again != d {
				t.Errorf("domain %q of %q, %q is not in its one form (%q, %v)", d, name, uri, again, err)
			}
			if !HoldsDomain(c, strings.ToUpper(d)+".") {
				t.Errorf("HoldsDomain denies %q", d)
			}
		}
	})
}
