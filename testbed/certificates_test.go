package testbed

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// badCert is a way in which the certificate of the far end is wrong.
type badCert struct {
	name   string
	change func(*CertSpec)
	// alert is how TLS tells the peer (RFC 5246 section 7.2.2, RFC 8446 section 6.2), as crypto/tls words it.
	alert string
	// counter is the reason that grows by one; text is in the Reason header when it is the server's certificate.
	counter, text string
}

func clientOnly(s *CertSpec) { s.Usage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }
func serverOnly(s *CertSpec) { s.Usage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }

func badCerts(t T, s *StubLab) []badCert {
	t.Helper()
	stranger, err := NewCA(s.Dir, "stranger-ca")
	if err != nil {
		t.Fatalf("%v", err)
	}
	return []badCert{
		{"expired", func(c *CertSpec) { c.NotAfter = time.Now().Add(-time.Minute) }, "expired certificate", "expired", "expired"},
		{"not yet valid", func(c *CertSpec) { c.NotBefore = time.Now().Add(time.Hour) }, "expired certificate", "not_yet_valid", "not yet valid"},
		{"unknown issuer", func(c *CertSpec) { c.Issuer = stranger }, "unknown certificate authority", "unknown_issuer", "no authenticated trustpoint"},
		{"weak key", func(c *CertSpec) { c.RSABits = 1024 }, "bad certificate", "weak", "RSA with 1024 bits"},
	}
}

// spec is a good certificate for the far end, of a key that is quickly made, with a change.
func (s *StubLab) spec(change func(*CertSpec)) CertSpec {
	c := EdgeCert(s.B.Domain)
	c.RSABits = 0
	if change != nil {
		change(&c)
	}
	return c
}

func TestCertificates(t *testing.T) {
	s := StartStubs(t)
	for _, x := range []struct {
		name string
		test func(*testing.T, *StubLab)
	}{
		{"of clients", clientCertificates},
		{"of servers", serverCertificates},
		{"names of clients", clientNames},
		{"names of servers", serverNames},
		{"versions and suites", versionsAndSuites},
		{"renewal under load", renewalUnderLoad},
	} {
		t.Run(x.name, func(t *testing.T) { x.test(t, s) })
		s.hangUpAll(t)
	}
}

// handshake runs one towards A's trunk as a client and gives what became of it: with TLS 1.3 a client learns of a
// refusal only when it reads.
func (s *StubLab) handshake(t T, cfg *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	c, err := s.Far.Host.Dial("tcp", s.Far.Addr.Addr().String(), s.Trunk().String(), wait)
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(wait))
	k := tls.Client(c, cfg)
	if err := k.Handshake(); err != nil {
		return tls.ConnectionState{}, err
	}
	if _, err := k.Write([]byte("\r\n\r\n")); err != nil {
		return tls.ConnectionState{}, err
	}
	_, err = k.Read(make([]byte, 2))
	return k.ConnectionState(), err
}

// refusedHandshake demands an alert, its counter, and silence at the call agent.
func (s *StubLab) refusedHandshake(t T, cfg *tls.Config, alert, counter string) {
	t.Helper()
	before := s.counters(t)
	_, err := s.handshake(t, cfg)
	if err == nil || !strings.Contains(err.Error(), "remote error: tls: "+alert) {
		t.Errorf("the client is told %v, want the alert %q", err, alert)
	}
	Until(t, wait, "the failed handshake is counted", func() bool { return len(s.counters(t).since(before)) > 0 })
	s.grew(t, before, "handshake_failed_"+counter)
}

// A client whose certificate cannot be trusted does not get as far as SIP, in either version of TLS.
func clientCertificates(t *testing.T, s *StubLab) {
	wire := s.Capture(t, s.A.UCMHost, "eth0")
	for _, bad := range append(badCerts(t, s),
		badCert{"only for servers", serverOnly, "bad certificate", "key_usage", ""},
		badCert{name: "none", counter: "no_certificate"},
	) {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(bad.name+"/"+tls.VersionName(version), func(t *testing.T) {
				cfg := s.CA.TLSConfig(nil, s.A.Domain)
				cfg.MinVersion, cfg.MaxVersion = version, version
				alert := bad.alert
				if bad.change != nil {
					id := s.Issue(t, "bad-client", s.spec(bad.change)).TLS
					// Whatever authorities the server names.
					cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &id, nil }
				} else if alert = "certificate required"; version == tls.VersionTLS12 {
					alert = "handshake failure"
				}
				s.refusedHandshake(t, cfg, alert, bad.counter)
			})
		}
	}
	t.Run("the log says whose and why", func(t *testing.T) {
		for _, want := range []string{"leads to no authenticated trustpoint", "certificate has expired", "not yet valid", "RSA with 1024 bits", "does not permit this use (extended key usage)", "mutual TLS is required"} {
			s.Proxy.Says(t, want)
		}
	})
	wire.Stop(t)
	for _, p := range wire.Packets(t) {
		if p.Proto == protoTCP {
			t.Errorf("a refused client sent a packet to the call agent: %s > %s", p.Src, p.Dst)
		}
	}
	s.syncInside(t, s.FarDial(t))
	nothingCame(t, s.Agent)
}

// serve lets the far end be a server with another configuration while f runs.
func (s *StubLab) serve(t T, cfg *tls.Config, f func()) {
	t.Helper()
	s.Far.StopListening()
	s.Far.Listen(t, cfg)
	defer func() {
		s.Far.StopListening()
		s.Far.Listen(t, s.FarServer())
	}()
	f()
}

// refusedOutbound makes a call that must fail, for the counters and with a Reason that holds the text.
func (s *StubLab) refusedOutbound(t T, text string, counters ...string) {
	t.Helper()
	c := s.AgentDial(t)
	defer c.Close()
	before := s.counters(t)
	l := s.Outbound(c)
	inv := l.Request(t, "INVITE", sdp(plainOffer(s.A.PhoneIP.String(), 4000)))
	resp := l.AwaitStatus(t, inv, 503)
	if r := resp.Get("Reason"); !strings.HasPrefix(r, "SIP;cause=503;text=\"") || !strings.Contains(r, text) {
		t.Errorf("Reason: %q, want %q in it", r, text)
	}
	s.grew(t, before, counters...)
	l.AckFailure(t, inv, resp)
	nothingCame(t, s.Far)
}

// A server whose certificate cannot be trusted gets no SIP: the call agent is told why.
func serverCertificates(t *testing.T, s *StubLab) {
	for _, bad := range append(badCerts(t, s), badCert{"only for clients", clientOnly, "", "key_usage", "TLS server authentication"}) {
		t.Run(bad.name, func(t *testing.T) {
			id := s.Issue(t, "bad-server", s.spec(bad.change))
			s.serve(t, s.server(id), func() {
				s.refusedOutbound(t, bad.text, "outside_unreachable", "handshake_failed_"+bad.counter)
			})
		})
	}
	t.Run("plain TCP", func(t *testing.T) {
		s.serve(t, nil, func() {
			// It waits for a first message; the proxy does not wait for more than 2 s.
			begin := time.Now()
			s.refusedOutbound(t, "not complete", "outside_unreachable", "handshake_failed_timeout")
			if took := time.Since(begin); took < 1500*time.Millisecond || took > 3*time.Second {
				t.Errorf("refused after %v", took)
			}
		})
	})
	t.Run("nobody there", func(t *testing.T) {
		s.Far.StopListening()
		defer s.Far.Listen(t, s.FarServer())
		s.refusedOutbound(t, "connection refused", "outside_unreachable")
	})
	t.Run("another domain over a standing connection", func(t *testing.T) {
		a, f := s.CallOut(t)
		before := s.counters(t)
		l := s.Outbound(a.Conn)
		l.Target = "sip:+14085551212@c.example"
		resp := l.AwaitStatus(t, l.Request(t, "INVITE", sdp(plainOffer(s.A.PhoneIP.String(), 4100))), 503)
		if !strings.Contains(resp.Get("Reason"), "c.example") {
			t.Errorf("Reason: %q", resp.Get("Reason"))
		}
		s.grew(t, before, "wrong_domain")
		callStands(t, a, f)
		nothingCame(t, s.Far)
		a.Transact(t, f, "BYE", 200)
	})
}

// names are certificates that hold b.example, or do not (RFC 5922 section 7.1 and 7.2).
var names = []struct {
	name   string
	holds  bool
	change func(*CertSpec)
}{
	{"DNS name", true, func(c *CertSpec) { c.Domain = "edge" }},
	{"one of several DNS names", true, func(c *CertSpec) { c.Domain, c.Names = "edge", []string{"x.example", "B.Example"} }},
	{"SIP URI", true, func(c *CertSpec) { c.Domain, c.Names, c.SIPDomains = "edge", nil, []string{"b.example"} }},
	{"SIP URI beside another DNS name", true, func(c *CertSpec) { c.Names, c.SIPDomains = []string{"edge.example.net"}, []string{"b.example"} }},
	{"common name alone", true, func(c *CertSpec) { c.Names = nil }},
	{"DNS name beside another SIP URI", false, func(c *CertSpec) { c.SIPDomains = []string{"c.example"} }},
	{"common name beside another DNS name", false, func(c *CertSpec) { c.Names = []string{"c.example"} }},
	{"SIP URI of a user", false, func(c *CertSpec) { c.Domain, c.Names, c.SIPDomains = "edge", nil, []string{"alice@b.example"} }},
	{"wildcard", false, func(c *CertSpec) { c.Domain, c.Names = "edge", []string{"*.example"} }},
	{"wildcard common name", false, func(c *CertSpec) { c.Domain, c.Names = "*.example", nil }},
	{"parent domain", false, func(c *CertSpec) { c.Domain, c.Names = "edge", []string{"example"} }},
	{"subdomain", false, func(c *CertSpec) { c.Domain, c.Names = "edge", []string{"sip.b.example"} }},
}

// A server must hold the domain that is called.
func serverNames(t *testing.T, s *StubLab) {
	for _, x := range names {
		t.Run(x.name, func(t *testing.T) {
			id := s.Issue(t, "named-server", s.spec(x.change))
			s.serve(t, s.server(id), func() {
				if !x.holds {
					s.refusedOutbound(t, "not for the domain b.example", "wrong_domain", "handshake_failed_wrong_domain")
					return
				}
				c := s.AgentDial(t)
				defer c.Close()
				s.syncOutside(t, c)
			})
		})
	}
}

// What a client's certificate holds is what its ticket must be granted to.
func clientNames(t *testing.T, s *StubLab) {
	for _, x := range names {
		t.Run(x.name, func(t *testing.T) {
			id := s.Issue(t, "named-client", s.spec(x.change))
			c := s.Far.Dial(t, s.Trunk(), s.CA.TLSConfig(id, s.A.Domain))
			defer c.Close()
			if x.holds {
				s.syncInside(t, c)
				return
			}
			before := s.counters(t)
			l := s.Inbound(c)
			l.AwaitStatus(t, l.Request(t, "INVITE", s.WithTicket, sdp(secureOffer(s.B.MediaOut.String(), 20000))), 403)
			s.grew(t, before, "ticket_domain_check_failed")
		})
	}
	nothingCame(t, s.Agent)
}

// suiteConfig is a client's or server's configuration that knows one suite of TLS 1.2 alone.
func suiteConfig(c *tls.Config, suite uint16) *tls.Config {
	c.MinVersion, c.MaxVersion, c.CipherSuites = tls.VersionTLS12, tls.VersionTLS12, []uint16{suite}
	return c
}

// TLS below 1.2 is refused, `ssl encryption` rules where the proxy is the server, `client cipher-suite` where it is the client.
func versionsAndSuites(t *testing.T, s *StubLab) {
	client := func(suite uint16) *tls.Config { return suiteConfig(s.CA.TLSConfig(s.FarID, s.A.Domain), suite) }
	t.Run("TLS 1.1 by OpenSSL", func(t *testing.T) {
		before := s.counters(t)
		out, err := s.Far.Host.Run("timeout", "10", "openssl", "s_client", "-connect", s.Trunk().String(), "-tls1_1", "-cipher", "ALL:@SECLEVEL=0",
			"-cert", s.FarID.CertFile, "-key", s.FarID.KeyFile, "-CAfile", s.CA.File)
		if err == nil || !strings.Contains(out, "alert protocol version") {
			t.Errorf("OpenSSL says %v: %s", err, tail(out, 800))
		}
		s.grew(t, before, "handshake_failed_protocol_version")
	})
	t.Run("a server of TLS 1.1", func(t *testing.T) {
		cfg := s.FarServer()
		cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		s.serve(t, cfg, func() {
			s.refusedOutbound(t, "protocol version", "outside_unreachable", "handshake_failed_protocol_version")
		})
	})
	// ssl encryption 3des-sha1 aes128-sha1 is the lab's configuration.
	for suite, good := range map[uint16]bool{
		tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA:               true,
		tls.TLS_RSA_WITH_AES_128_CBC_SHA:                true,
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:       true,
		tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA:          false,
		tls.TLS_RSA_WITH_AES_256_CBC_SHA:                false,
		tls.TLS_ECDHE_RSA_WITH_RC4_128_SHA:              false,
		tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256:       false,
		tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256: true,
	} {
		t.Run("client with "+tls.CipherSuiteName(suite), func(t *testing.T) {
			if !good {
				s.refusedHandshake(t, client(suite), "handshake failure", "cipher_suite")
				return
			}
			if st, err := s.handshake(t, client(suite)); err != nil || st.CipherSuite != suite {
				t.Errorf("suite %s, %v", tls.CipherSuiteName(st.CipherSuite), err)
			}
		})
	}
	// client cipher-suite aes128-sha1 aes256-sha1 is the lab's configuration.
	for suite, good := range map[uint16]bool{
		tls.TLS_RSA_WITH_AES_256_CBC_SHA:          true,
		tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA:    true,
		tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384: true,
		tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA:         false,
	} {
		t.Run("server with "+tls.CipherSuiteName(suite), func(t *testing.T) {
			s.serve(t, suiteConfig(s.FarServer(), suite), func() {
				if !good {
					s.refusedOutbound(t, "handshake failure", "outside_unreachable", "handshake_failed_peer_refused")
					return
				}
				c := s.AgentDial(t)
				defer c.Close()
				s.syncOutside(t, c)
			})
		})
	}
	t.Run("changed by a reload", func(t *testing.T) {
		s.mustReload(t, s.edit(t, "ssl encryption 3des-sha1 aes128-sha1", "ssl encryption aes256-sha1"))
		defer s.mustReload(t, s.Proxy.DefaultConfig(t))
		s.refusedHandshake(t, client(tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA), "handshake failure", "cipher_suite")
		if _, err := s.handshake(t, client(tls.TLS_RSA_WITH_AES_256_CBC_SHA)); err != nil {
			t.Error(err)
		}
	})
	t.Run("TLS 1.3 alone", func(t *testing.T) {
		s.mustReload(t, s.edit(t, "ssl encryption", "ssl server-version tlsv1.3\nssl client-version tlsv1.3\nssl encryption"))
		defer s.mustReload(t, s.Proxy.DefaultConfig(t))
		s.refusedHandshake(t, client(tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256), "protocol version not supported", "protocol_version")
		if st, err := s.handshake(t, s.CA.TLSConfig(s.FarID, s.A.Domain)); err != nil || st.Version != tls.VersionTLS13 {
			t.Errorf("%s, %v", tls.VersionName(st.Version), err)
		}
		s.serve(t, suiteConfig(s.FarServer(), tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256), func() {
			s.refusedOutbound(t, "protocol version", "outside_unreachable", "handshake_failed_protocol_version")
		})
	})
}

// presented is the certificate that a TLS connection's other end showed.
func presented(t T, c *StubConn) *x509.Certificate {
	t.Helper()
	k, ok := c.Conn.(*tls.Conn)
	if !ok || len(k.ConnectionState().PeerCertificates) == 0 {
		t.Fatalf("no certificate was shown")
	}
	return k.ConnectionState().PeerCertificates[0]
}

// load opens connections, one after another, each with a handshake and a message that the proxy answers, until done is
// closed. It gives how many there were, and the first failure.
func (s *StubLab) load(done <-chan struct{}, to netip.AddrPort, cfg *tls.Config) (n int, failed error) {
	for ; ; n++ {
		select {
		case <-done:
			return n, failed
		default:
		}
		if err := s.once(to, cfg); err != nil && failed == nil {
			failed = fmt.Errorf("connection %d: %w", n+1, err)
		}
	}
}

// once opens a connection and waits for the answer to a keep-alive.
func (s *StubLab) once(to netip.AddrPort, cfg *tls.Config) error {
	c, err := s.Far.Host.Dial("tcp", s.Far.Addr.Addr().String(), to.String(), wait)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(wait))
	k := tls.Client(c, cfg)
	if _, err := k.Write([]byte("\r\n\r\n")); err != nil {
		return err
	}
	if _, err := k.Read(make([]byte, 2)); err != nil {
		return err
	}
	return nil
}

// The certificate is renewed while calls stand and connections come: none is lost, and new handshakes in both
// directions show the new certificate, after an import alone and after SIGHUP.
func renewalUnderLoad(t *testing.T, s *StubLab) {
	type standing struct{ a, b *Leg }
	var calls []standing
	for range 5 {
		f, a := s.CallIn(t)
		calls = append(calls, standing{f, a})
		a, f = s.CallOut(t)
		calls = append(calls, standing{a, f})
	}
	done := make(chan struct{})
	type result struct {
		n   int
		err error
	}
	results := make(chan result, 4)
	for range cap(results) {
		go func() {
			n, err := s.load(done, s.Trunk(), s.CA.TLSConfig(s.FarID, s.A.Domain))
			results <- result{n, err}
		}()
	}
	inUse := func(id *Identity) {
		t.Helper()
		want, err := x509.ParseCertificate(id.TLS.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		Until(t, wait, "new handshakes show the new certificate", func() bool {
			c := s.FarDial(t)
			defer c.Close()
			return presented(t, c).SerialNumber.Cmp(want.SerialNumber) == 0
		})
		c := s.AgentDial(t)
		defer c.Close()
		before := len(s.Far.Conns())
		s.syncOutside(t, c)
		for _, k := range s.Far.Conns()[before:] {
			if server, ok := k.Conn.(*tls.Conn); ok && k.LocalAddr().String() == s.Far.Addr.String() && len(server.ConnectionState().PeerCertificates) > 0 &&
				presented(t, k).SerialNumber.Cmp(want.SerialNumber) != 0 {
				t.Errorf("outbound, certificate %X is shown, want %X", presented(t, k).SerialNumber, want.SerialNumber)
			}
		}
		for _, c := range calls {
			callStands(t, c.a, c.b)
		}
	}
	for i := range 3 {
		id := s.Issue(t, fmt.Sprintf("renewed-%d", i), func() CertSpec { c := EdgeCert(s.A.Domain); c.RSABits = 2048 * (i % 2); return c }())
		MustImeproxy(t, "crypto", "import", "--state-dir", s.Proxy.StateDir, "--trustpoint", "local_ent", "--pkcs12", id.P12File, "--passphrase", P12Pass)
		if i > 0 {
			s.mustReload(t, s.Proxy.DefaultConfig(t))
		}
		inUse(id)
	}
	t.Run("what cannot be used changes nothing", func(t *testing.T) {
		for name, change := range map[string]func(*CertSpec){
			"expired": func(c *CertSpec) { c.NotAfter = time.Now().Add(-time.Minute) },
			"weak":    func(c *CertSpec) { c.RSABits = 1024 },
		} {
			spec := EdgeCert(s.A.Domain)
			change(&spec)
			id := s.Issue(t, "useless-"+name, spec)
			out, err := Imeproxy("crypto", "import", "--state-dir", s.Proxy.StateDir, "--trustpoint", "local_ent", "--pkcs12", id.P12File, "--passphrase", P12Pass)
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v %s", name, err, out)
			}
		}
		s.syncInside(t, s.FarDial(t))
	})
	close(done)
	total := 0
	for range cap(results) {
		r := <-results
		total += r.n
		if r.err != nil {
			t.Errorf("a connection under load failed: %v", r.err)
		}
	}
	if total < 50 {
		t.Errorf("only %d connections came meanwhile", total)
	}
	for _, c := range calls {
		callStands(t, c.a, c.b)
		c.a.Transact(t, c.b, "BYE", 200)
	}
}

// TestRestartPastTheLastDay switches a proxy off and on after its certificate has ended: it serves ordinary traffic, makes no TLS connection, and
// says what is wrong, until another certificate is imported.
func TestRestartPastTheLastDay(t *testing.T) {
	s := StartStubs(t)
	spec := EdgeCert(s.A.Domain)
	spec.NotAfter = time.Now().Add(5 * time.Second)
	importIt := func(name string, spec CertSpec) {
		t.Helper()
		id := s.Issue(t, name, spec)
		MustImeproxy(t, "crypto", "import", "--state-dir", s.Proxy.StateDir, "--trustpoint", "local_ent", "--pkcs12", id.P12File, "--passphrase", P12Pass)
	}
	importIt("short", spec)
	s.Proxy.Stop(t)
	Until(t, 2*wait, "the certificate has ended", func() bool { return time.Now().After(spec.NotAfter.Add(time.Second)) }) // X.509 counts in seconds
	s.Proxy.Start(t)
	if err := s.once(s.Trunk(), s.CA.TLSConfig(s.FarID, s.A.Domain)); err == nil {
		t.Error("a TLS connection came about with a certificate that has ended")
	}
	Until(t, wait, "the health list has it", func() bool {
		out, err := s.Proxy.Shell("show health")
		return err == nil && strings.Contains(out, "certificate_unusable") && strings.Contains(out, "local_ent")
	})
	importIt("good", EdgeCert(s.A.Domain))
	s.mustReload(t, s.Proxy.DefaultConfig(t))
	s.CallIn(t)
}
