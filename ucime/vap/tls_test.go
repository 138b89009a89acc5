package vap

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"imeproxy/ucime/learn"
)

// certificate makes a self-signed one for 127.0.0.1 and vap.example.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spec := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "vap.example"}, DNSNames: []string{"vap.example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, spec, spec, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// pipes is a program's standard input and output.
type pipes struct {
	io.Reader
	io.WriteCloser
}

// OpenSSL's client carries a raw client's messages to an encrypted instance.
func TestEncryptedModeWithOpenSSL(t *testing.T) {
	cert := certificate(t)
	inst := instance()
	inst.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s := startServer(t, newMemory(), 5000, inst)
	s.handler.add(keyA, Notification{ID: 1, Routes: []learn.Route{theRoute}})
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		cmd := exec.CommandContext(within(t), "openssl", "s_client", "-connect", s.addr(), "-CAfile", ca, "-verify_return_error", "-verify_hostname", "vap.example", "-quiet", "-no_ign_eof", version)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = t.Output()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		c := &rawConn{t: t, rw: pipes{out, in}}
		c.register("vapuser", "node1", password)
		if m := c.publish(101, 0, rawService, 1, rawVservice); m.code() != 0 {
			t.Errorf("%s: Publish %d", version, m.code())
		}
		if m := c.ask(7, rawIdentity(100, 0, rawService)); m.code() != 0 {
			t.Errorf("%s: Subscribe %d", version, m.code())
		}
		if m := c.request(); m.typ != 10 { // not acknowledged: it comes again in the next round
			t.Errorf("%s: %x", version, m.bytes)
		}
		if st := s.Clients(); len(st) != 1 || !st[0].Encrypted {
			t.Errorf("%s: %+v", version, st)
		}
		_ = in.Close()
		_ = cmd.Wait()
		eventually(t, "the client is gone", func() bool { return len(s.Clients()) == 0 })
	}
	if s.handler.waiting(keyA) != 1 {
		t.Error("acknowledged by nobody")
	}
	// TLS 1.1 is not spoken.
	cmd := exec.CommandContext(within(t), "openssl", "s_client", "-connect", s.addr(), "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")
	if out, err := cmd.CombinedOutput(); err == nil {
		t.Errorf("TLS 1.1: %s", out)
	}
}

// The package's client verifies the server's certificate before it says anything.
func TestClientVerifiesTheCertificate(t *testing.T) {
	cert := certificate(t)
	inst := instance()
	inst.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s := startServer(t, newMemory(), 5000, inst)
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	good, _ := startClient(t, ClientConfig{Addr: s.addr(), TLS: &tls.Config{RootCAs: roots}})
	if err := good.WaitRegistered(within(t)); err != nil {
		t.Fatal(err)
	}
	for _, cfg := range []*tls.Config{{}, {RootCAs: roots, ServerName: "other.example"}} {
		c, clock := startClient(t, ClientConfig{Addr: s.addr(), TLS: cfg, Name: "node2"})
		eventually(t, "given up", func() bool { return clock.armed(DefaultRetry) == 1 })
		if c.Registration().Registered {
			t.Errorf("%+v registered", cfg)
		}
	}
	eventually(t, "both counted", func() bool { return s.Stats().FailedHandshakes == 2 })
	if st := s.Stats(); st.Registrations != 1 {
		t.Errorf("%+v", st)
	}
}
