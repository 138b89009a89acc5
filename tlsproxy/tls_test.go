package tlsproxy

import (
	"context"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

// tcpPair is a connected pair of TCP sockets: net.Pipe would deadlock where both ends send an alert.
func tcpPair(t testing.TB) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	must(t, err)
	server, err = l.Accept()
	must(t, err)
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// shake runs both handshakes and a byte each way: in TLS 1.3 a client learns of the server's refusal only with its first read.
func shake(t testing.TB, client, server *tls.Config) (cs tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	c, s := tcpPair(t)
	done := make(chan error, 1)
	go func() {
		conn := tls.Server(s, server)
		err := Handshake(context.Background(), conn, 10*time.Second)
		if err == nil {
			_, err = conn.Write([]byte("x"))
		}
		done <- err
	}()
	conn := tls.Client(c, client)
	clientErr = Handshake(context.Background(), conn, 10*time.Second)
	if clientErr == nil {
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			clientErr = explain(err, 0)
		}
	}
	serverErr = <-done
	return conn.ConnectionState(), clientErr, serverErr
}

// always presents a certificate, also where the server names other authorities (Go's own choice would then be none).
func always(c tls.Certificate) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil }
}

func reasonOf(err error) Reason {
	var h *HandshakeError
	if errors.As(err, &h) {
		return h.Reason
	}
	return ""
}

func TestServerJudgesClients(t *testing.T) {
	ca, stranger := newAuthority(t, "CA"), newAuthority(t, "Stranger")
	sub := ca.intermediate("Sub")
	withSub := sub.issue("b.example")
	withSub.chain = []*x509.Certificate{sub.cert}
	pinned := selfSignedPair(t, "pin.example")
	pinnedCA := selfSignedPair(t, "ca.example", func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, 0 })
	noSign := selfSignedPair(t, "nosign.example", func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true })
	// A pinned certificate's key must not vouch for others.
	underPin := (&authority{t: t, cert: pinned.cert, key: pinned.key}).issue("b.example")
	s := storeWith(t, ca.issue("a.example"), ca)
	must(t, s.Authenticate("pin", encodeCertificates(pinned.cert, pinnedCA.cert, noSign.cert)))
	server, err := s.ServerConfig("local-ent", Policy{})
	must(t, err)
	tests := []struct {
		name   string
		client []tls.Certificate
		want   Reason
		text   string
	}{
		{"good ecdsa", []tls.Certificate{ca.issue("b.example").tls()}, "", ""},
		{"good rsa", []tls.Certificate{ca.issueFor(rsaKey(t, 2048), "b.example").tls()}, "", ""},
		{"with intermediate", []tls.Certificate{withSub.tls()}, "", ""},
		{"pinned", []tls.Certificate{pinned.tls()}, "", ""},
		{"pinned, self-signed with CA true", []tls.Certificate{pinnedCA.tls()}, "", ""},
		{"pinned, CA true without certificate signing", []tls.Certificate{noSign.tls()}, "", ""},
		{"no extended key usage", []tls.Certificate{ca.issue("b.example", onlyUsage()).tls()}, "", ""},
		{"any extended key usage", []tls.Certificate{ca.issue("b.example", onlyUsage(x509.ExtKeyUsageAny)).tls()}, "", ""},
		{"none", nil, ReasonNoCertificate, "mutual TLS"},
		{"other authority", []tls.Certificate{stranger.issue("b.example").tls()}, ReasonUnknownIssuer, "CN=b.example, issuer CN=Stranger"},
		{"same name of authority", []tls.Certificate{newAuthority(t, "CA").issue("b.example").tls()}, ReasonUnknownIssuer, "authenticate its issuer"},
		{"intermediate missing", []tls.Certificate{sub.issue("b.example").tls()}, ReasonUnknownIssuer, "intermediate"},
		{"self-signed", []tls.Certificate{selfSignedPair(t, "b.example").tls()}, ReasonUnknownIssuer, "authenticate"},
		{"under a pinned certificate", []tls.Certificate{underPin.tls()}, ReasonUnknownIssuer, ""},
		{"expired", []tls.Certificate{ca.issue("b.example", expired).tls()}, ReasonExpired, "expired"},
		{"not yet valid", []tls.Certificate{ca.issue("b.example", notYet).tls()}, ReasonNotYetValid, "not yet valid"},
		{"server usage only", []tls.Certificate{ca.issue("b.example", onlyUsage(x509.ExtKeyUsageServerAuth)).tls()}, ReasonKeyUsage, "usage"},
		{"may not sign", []tls.Certificate{ca.issue("b.example", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }).tls()}, ReasonKeyUsage, "digital signature"},
		{"weak rsa", []tls.Certificate{ca.issueFor(rsaKey(t, 1024), "b.example").tls()}, ReasonWeak, "2048"},
	}
	for _, tt := range tests {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(tt.name+" "+tls.VersionName(version), func(t *testing.T) {
				client := &tls.Config{RootCAs: poolOf(ca), ServerName: "a.example", MaxVersion: version}
				if tt.client != nil {
					client.GetClientCertificate = always(tt.client[0])
				}
				_, clientErr, serverErr := shake(t, client, server)
				if got := reasonOf(serverErr); got != tt.want || (serverErr == nil) != (tt.want == "") {
					t.Fatalf("server: reason %q, %v; want %q", got, serverErr, tt.want)
				}
				if serverErr != nil && !strings.Contains(serverErr.Error(), tt.text) {
					t.Errorf("server says %q, want %q in it", serverErr, tt.text)
				}
				if (clientErr == nil) != (tt.want == "") {
					t.Errorf("client: %v", clientErr)
				}
			})
		}
	}
}

func TestClientJudgesServers(t *testing.T) {
	ca, stranger := newAuthority(t, "CA"), newAuthority(t, "Stranger")
	sub := ca.intermediate("Sub")
	withSub := sub.issue("b.example")
	withSub.chain = []*x509.Certificate{sub.cert}
	pinned := selfSignedPair(t, "b.example")
	s := storeWith(t, ca.issue("a.example"), ca)
	must(t, s.Authenticate("pin", encodeCertificates(pinned.cert)))
	names := func(n ...string) func(*x509.Certificate) { return func(c *x509.Certificate) { c.DNSNames = n } }
	tests := []struct {
		name   string
		server pair
		want   Reason
		text   string
	}{
		{"good", ca.issue("b.example"), "", ""},
		{"good rsa", ca.issueFor(rsaKey(t, 2048), "b.example"), "", ""},
		{"with intermediate", withSub, "", ""},
		{"pinned", pinned, "", ""},
		{"cn without SAN", ca.issue("b.example", names()), "", ""},
		{"sip URI", ca.issue("x.example", func(c *x509.Certificate) { c.URIs = append(c.URIs, sipURI(t, "sip:b.example")) }), "", ""},
		{"other domain", ca.issue("c.example"), ReasonWrongDomain, "it is not for the domain b.example; it holds c.example"},
		{"wildcard", ca.issue("*.example"), ReasonWrongDomain, "no SIP domain (wildcards do not count)"},
		{"sip URI of another domain", ca.issue("b.example", func(c *x509.Certificate) { c.URIs = append(c.URIs, sipURI(t, "sip:c.example")) }), ReasonWrongDomain, "holds c.example"},
		{"cn beside a SAN", ca.issue("b.example", names("c.example")), ReasonWrongDomain, ""},
		{"other authority", stranger.issue("b.example"), ReasonUnknownIssuer, "issuer CN=Stranger"},
		{"expired", ca.issue("b.example", expired), ReasonExpired, "expired"},
		{"not yet valid", ca.issue("b.example", notYet), ReasonNotYetValid, "not yet"},
		{"client usage only", ca.issue("b.example", onlyUsage(x509.ExtKeyUsageClientAuth)), ReasonKeyUsage, "server authentication"},
		{"weak", ca.issueFor(rsaKey(t, 1024), "b.example"), ReasonWeak, "1024"},
		{"weak curve", ca.issueFor(ecKey(t, elliptic.P224()), "b.example"), "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			client, err := s.ClientConfig("local-ent", "B.example.", Policy{})
			must(t, err)
			server := &tls.Config{Certificates: []tls.Certificate{tt.server.tls()}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: poolOf(ca)}
			cs, clientErr, _ := shake(t, client, server)
			if tt.name == "weak curve" {
				if clientErr == nil {
					t.Error("a P-224 certificate was accepted")
				}
				return
			}
			if got := reasonOf(clientErr); got != tt.want || (clientErr == nil) != (tt.want == "") {
				t.Fatalf("client: reason %q, %v; want %q", got, clientErr, tt.want)
			}
			if clientErr != nil && !strings.Contains(clientErr.Error(), tt.text) {
				t.Errorf("client says %q, want %q in it", clientErr, tt.text)
			}
			if cs.ServerName != "b.example" {
				t.Errorf("server name of the hello is %q", cs.ServerName)
			}
		})
	}
}

func TestBothEndsAreOurs(t *testing.T) {
	ca := newAuthority(t, "CA")
	sub := ca.intermediate("Sub")
	a := storeWith(t, ca.issue("a.example"), ca)
	// b's identity was imported without its intermediate; the trustpoint was authenticated with it.
	b := openStore(t)
	key := ecKey(t, elliptic.P256())
	withKey(t, b, "tp", key)
	must(t, b.ImportCertificate(TrustpointSpec{Name: "tp"}, encodeCertificates(sub.issueFor(key, "b.example").cert)))
	must(t, b.Authenticate("tp", sub.pem()))
	must(t, b.Authenticate("remote", ca.pem()))
	server, err := b.ServerConfig("tp", Policy{})
	must(t, err)
	client, err := a.ClientConfig("local-ent", "b.example", Policy{})
	must(t, err)
	cs, clientErr, serverErr := shake(t, client, server)
	if clientErr != nil || serverErr != nil {
		t.Fatalf("client %v, server %v", clientErr, serverErr)
	}
	if cs.Version != tls.VersionTLS13 || len(cs.PeerCertificates) != 2 {
		t.Errorf("%s with %d certificates, want TLS 1.3 and leaf with intermediate", tls.VersionName(cs.Version), len(cs.PeerCertificates))
	}
}

func TestPolicyLimitsTrustpoints(t *testing.T) {
	inside, internet := newAuthority(t, "Inside"), newAuthority(t, "Internet")
	s := storeWith(t, inside.issue("a.example"), inside, internet)
	p := Policy{Trustpoints: []string{"remote-Inside"}, AnyName: true}
	for _, tt := range []struct {
		ca   *authority
		want Reason
	}{{inside, ""}, {internet, ReasonUnknownIssuer}} {
		client, err := s.ClientConfig("local-ent", "", p)
		must(t, err)
		server := &tls.Config{Certificates: []tls.Certificate{tt.ca.issue("ucm").tls()}}
		if _, err, _ := shake(t, client, server); reasonOf(err) != tt.want {
			t.Errorf("server of %s: %v", tt.ca.cert.Subject, err)
		}
		cfg, err := s.ServerConfig("local-ent", p)
		must(t, err)
		mine := &tls.Config{GetClientCertificate: always(tt.ca.issue("ucm").tls()), InsecureSkipVerify: true}
		if _, _, err := shake(t, mine, cfg); reasonOf(err) != tt.want {
			t.Errorf("client of %s: %v", tt.ca.cert.Subject, err)
		}
	}
	if _, err := s.ClientConfig("local-ent", "", Policy{}); err == nil {
		t.Error("a client configuration without a domain was made although the name is to be checked")
	}
}

func TestOwnCertificateProblems(t *testing.T) {
	ca := newAuthority(t, "CA")
	now := time.Now()
	s, err := OpenStoreWithClock(t.TempDir(), func() time.Time { return now })
	must(t, err)
	p := ca.issue("a.example")
	must(t, s.ImportPKCS12("tp", p.p12(t, "pw", ca.cert), "pw"))
	server, err := s.ServerConfig("tp", Policy{})
	must(t, err)
	client := &tls.Config{Certificates: []tls.Certificate{p.tls()}, RootCAs: poolOf(ca), ServerName: "a.example"}
	if _, clientErr, serverErr := shake(t, client, server); clientErr != nil || serverErr != nil {
		t.Fatalf("before: %v, %v", clientErr, serverErr)
	}
	now = now.Add(25 * time.Hour)
	if _, _, err := shake(t, client, server); reasonOf(err) != ReasonOwnCertificate || !strings.Contains(err.Error(), "expired") {
		t.Errorf("handshake with an expired certificate of our own: %v", err)
	}
	if _, err := s.ServerConfig("tp", Policy{}); !errors.Is(err, ErrExpired) {
		t.Errorf("ServerConfig = %v, want ErrExpired", err)
	}
	if _, err := s.ClientConfig("tp", "b.example", Policy{}); !errors.Is(err, ErrExpired) {
		t.Errorf("ClientConfig = %v, want ErrExpired", err)
	}
	if _, err := s.ServerConfig("none", Policy{}); !errors.Is(err, ErrNoTrustpoint) {
		t.Errorf("ServerConfig = %v, want ErrNoTrustpoint", err)
	}
}

func TestHandshakeEndsInTime(t *testing.T) {
	ca := newAuthority(t, "CA")
	s := storeWith(t, ca.issue("a.example"), ca)
	server, err := s.ServerConfig("local-ent", Policy{})
	must(t, err)
	run := func(ctx context.Context, send string, hangUp bool, d time.Duration) error {
		c, conn := tcpPair(t)
		if send != "" {
			_, err := c.Write([]byte(send))
			must(t, err)
		}
		if hangUp {
			must(t, c.Close())
		}
		return Handshake(ctx, tls.Server(conn, server), d)
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	alert := "\x15\x03\x01\x00\x02\x02\x28" // fatal handshake_failure in place of a hello
	tests := []struct {
		name string
		err  error
		want Reason
	}{
		{"silence", run(context.Background(), "", false, 50*time.Millisecond), ReasonTimeout},
		{"half a hello", run(context.Background(), "\x16\x03\x01\x02\x00\x01", false, 50*time.Millisecond), ReasonTimeout},
		{"hang up", run(context.Background(), "", true, 10*time.Second), ReasonClosed},
		{"cancelled", run(cancelled, "", false, 10*time.Second), ReasonClosed},
		{"plain SIP", run(context.Background(), "OPTIONS sip:a.example SIP/2.0\r\n\r\n", false, 10*time.Second), ReasonNotTLS},
		{"garbage", run(context.Background(), strings.Repeat("\x00", 64), false, 10*time.Second), ReasonNotTLS},
		{"alert", run(context.Background(), alert, false, 10*time.Second), ReasonPeerRefused},
	}
	for _, tt := range tests {
		if reasonOf(tt.err) != tt.want {
			t.Errorf("%s: %v, want reason %q", tt.name, tt.err, tt.want)
		}
	}
}
