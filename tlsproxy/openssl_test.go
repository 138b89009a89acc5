package tlsproxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// sClient runs openssl s_client against a server of ours that answers "pong" to a line. It returns what s_client printed and the server's outcome.
func sClient(t *testing.T, server *tls.Config, args ...string) (string, error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		raw, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer raw.Close()
		conn := tls.Server(raw, server)
		err = Handshake(context.Background(), conn, 10*time.Second)
		if err == nil {
			if _, err = bufio.NewReader(conn).ReadString('\n'); err == nil {
				_, err = conn.Write([]byte("pong\n"))
			}
		}
		done <- err
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "openssl", append([]string{"s_client", "-connect", l.Addr().String(), "-servername", "a.example", "-ign_eof"}, args...)...)
	cmd.Stdin = strings.NewReader("ping\n")
	out, _ := cmd.CombinedOutput() // s_client's exit code says little; its text and the server's outcome say it all
	return string(out), <-done
}

func TestOpensslClient(t *testing.T) {
	needOpenssl(t)
	ca, stranger := newAuthority(t, "CA"), newAuthority(t, "Stranger")
	sub := ca.intermediate("Sub")
	dir := t.TempDir()
	root := writeFile(t, dir, "root.pem", ca.pem())
	withSub := sub.issue("b.example")
	withSub.chain = []*x509.Certificate{sub.cert}
	cert := func(name string, p pair) []string {
		file := p.file(t, dir, name+".pem")
		return []string{"-cert", file, "-key", file, "-cert_chain", file}
	}
	good := cert("good", ca.issueFor(rsaKey(t, 2048), "b.example"))
	identities := map[string]*Store{
		"rsa": storeWith(t, sub.issueFor(rsaKey(t, 2048), "a.example"), ca), "ecdsa": storeWith(t, sub.issue("a.example"), ca),
	}
	tests := []struct {
		name    string
		args    []string
		ciphers string
		want    Reason
		text    string // in what s_client prints
	}{
		{"TLS 1.3", append([]string{"-tls1_3"}, good...), "", "", "New, TLSv1.3"},
		{"TLS 1.2", append([]string{"-tls1_2"}, good...), "", "", "New, TLSv1.2"},
		{"ecdsa", cert("ec", ca.issue("b.example")), "", "", "pong"},
		{"intermediate", cert("sub", withSub), "", "", "pong"},
		{"SHA-1 suite of the keyword", append([]string{"-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA"}, good...), "aes128-sha1", "", "pong"},
		{"TLS 1.1", append([]string{"-tls1_1", "-cipher", "ALL:@SECLEVEL=0"}, good...), "", ReasonVersion, "protocol version"},
		{"null cipher", append([]string{"-tls1_2", "-cipher", "eNULL:@SECLEVEL=0"}, good...), "null-sha1 aes128-sha1", ReasonCipherSuite, "handshake failure"},
		{"no certificate", nil, "", ReasonNoCertificate, "alert"},
		{"other authority", cert("other", stranger.issue("b.example")), "", ReasonUnknownIssuer, "unknown ca"},
		{"expired", cert("old", ca.issue("b.example", expired)), "", ReasonExpired, "certificate expired"},
		{"server usage only", cert("usage", ca.issue("b.example", onlyUsage(x509.ExtKeyUsageServerAuth))), "", ReasonKeyUsage, "bad certificate"},
	}
	for kind, s := range identities {
		must(t, s.Authenticate("local-ent", sub.pem()))
		for _, tt := range tests {
			t.Run(kind+" "+tt.name, func(t *testing.T) {
				server, err := s.ServerConfig("local-ent", Policy{Ciphers: strings.Fields(tt.ciphers)})
				must(t, err)
				out, err := sClient(t, server, append([]string{"-CAfile", root, "-verify_return_error"}, tt.args...)...)
				if reasonOf(err) != tt.want || (err == nil) != (tt.want == "") {
					t.Errorf("server: %v, want reason %q\n%s", err, tt.want, out)
				}
				if !strings.Contains(out, tt.text) {
					t.Errorf("s_client does not show %q:\n%s", tt.text, out)
				}
				if tt.want == "" && !strings.Contains(out, "Verify return code: 0 (ok)") {
					t.Errorf("openssl does not verify our certificate:\n%s", out)
				}
			})
		}
	}
}

// sServer runs openssl s_server and dials it with our client configuration.
func sServer(t *testing.T, client *tls.Config, args ...string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "openssl", append([]string{"s_server", "-accept", "127.0.0.1:0", "-naccept", "1"}, args...)...)
	// Open for the whole test: s_server ends when its input does.
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	must(t, cmd.Start())
	defer func() { in.Close(); cancel(); _ = cmd.Wait() }()
	lines := bufio.NewScanner(out)
	var addr string
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "ACCEPT "); ok {
			addr = rest
			break
		}
	}
	if addr == "" {
		t.Fatalf("s_server does not listen: %s", errs.String())
	}
	raw, err := net.Dial("tcp", addr)
	must(t, err)
	defer raw.Close()
	conn := tls.Client(raw, client)
	if err := Handshake(ctx, conn, 10*time.Second); err != nil {
		return err
	}
	// The server's verdict on our certificate comes with the first read in TLS 1.3.
	if _, err := in.Write([]byte("hello\n")); err != nil {
		return err
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		return explain(err, 0)
	}
	return nil
}

func TestOpensslServer(t *testing.T) {
	needOpenssl(t)
	ca, stranger := newAuthority(t, "CA"), newAuthority(t, "Stranger")
	sub := ca.intermediate("Sub")
	withSub := sub.issue("b.example")
	withSub.chain = []*x509.Certificate{sub.cert}
	dir := t.TempDir()
	root := writeFile(t, dir, "root.pem", ca.pem())
	other := writeFile(t, dir, "other.pem", stranger.pem())
	s := storeWith(t, ca.issueFor(rsaKey(t, 2048), "a.example"), ca)
	good := ca.issueFor(rsaKey(t, 2048), "b.example")
	tests := []struct {
		name   string
		server pair
		args   []string
		policy Policy
		want   Reason
	}{
		{"TLS 1.3", good, []string{"-tls1_3"}, Policy{}, ""},
		{"TLS 1.2", good, []string{"-tls1_2"}, Policy{}, ""},
		{"ecdsa", ca.issue("b.example"), nil, Policy{}, ""},
		{"intermediate", withSub, nil, Policy{}, ""},
		{"RSA key exchange with its keyword", good, []string{"-tls1_2", "-cipher", "AES128-SHA"}, Policy{Ciphers: []string{"aes128-sha1"}}, ""},
		{"RSA key exchange without", good, []string{"-tls1_2", "-cipher", "AES128-SHA"}, Policy{}, ReasonPeerRefused},
		{"TLS 1.1", good, []string{"-tls1_1", "-cipher", "ALL:@SECLEVEL=0"}, Policy{}, ReasonVersion},
		{"other authority", stranger.issue("b.example"), nil, Policy{}, ReasonUnknownIssuer},
		{"other name", ca.issue("c.example"), nil, Policy{}, ReasonWrongDomain},
		{"wildcard", ca.issue("*.example"), nil, Policy{}, ReasonWrongDomain},
		{"expired", ca.issue("b.example", expired), nil, Policy{}, ReasonExpired},
		{"client usage only", ca.issue("b.example", onlyUsage(x509.ExtKeyUsageClientAuth)), nil, Policy{}, ReasonKeyUsage},
		{"it does not trust us", good, []string{"-CAfile", other}, Policy{}, ReasonPeerRefused},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := tt.server.file(t, dir, string(rune('a'+i))+".pem")
			client, err := s.ClientConfig("local-ent", "b.example", tt.policy)
			must(t, err)
			args := append([]string{"-cert", file, "-key", file, "-cert_chain", file, "-Verify", "3", "-verify_return_error"}, tt.args...)
			if tt.name != "it does not trust us" {
				args = append(args, "-CAfile", root)
			}
			err = sServer(t, client, args...)
			if reasonOf(err) != tt.want || (err == nil) != (tt.want == "") {
				t.Errorf("client: %v, want reason %q", err, tt.want)
			}
		})
	}
}
