package pvp

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sClient runs openssl s_client against w's server with stdin as what it sends, and returns what it printed when the server
// has ended the connection.
func sClient(t *testing.T, w *world, stdin []byte, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal("openssl is part of the lab (make deps)")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, append([]string{"s_client", "-connect", w.addr, "-ign_eof"}, args...)...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, _ := cmd.CombinedOutput() // the exit code tells versions of openssl apart, the output what happened
	if ctx.Err() != nil {
		t.Fatalf("the connection did not end:\n%s", out)
	}
	return string(out)
}

// A foreign TLS stack sees what an attacker would try first turned away, and the real thing accepted.
func TestOpenSSL(t *testing.T) {
	w := newWorld(t, func(c *ServerConfig) { c.Limits.Frame = time.Second }) // openssl may be slow to send on a busy machine
	cert, key := w.ring.member(t, peerA).write(t)
	strangerCert, strangerKey := newAuthority(t).member(t, peerA).write(t)
	expiredCert, expiredKey := expired(t, w.ring)
	good := []string{"-tls1_3", "-alpn", ALPN}
	sh := newShare([]byte("x"), nil, nil)
	st := &start{method: WithCaller, originator: peerA, terminator: peerB, public: sh.public}
	var begin bytes.Buffer
	if err := writeFrame(&begin, frameStart, st.encode()); err != nil {
		t.Fatal(err)
	}
	for _, d := range []struct {
		name  string
		stdin []byte
		args  []string
		want  string // in the output
		count func() uint64
	}{
		{"no certificate", nil, good, "alert", w.counters.HandshakeFailed.Load},
		{"another authority's", nil, append(good[:3:3], "-cert", strangerCert, "-key", strangerKey), "alert", w.counters.HandshakeFailed.Load},
		{"expired", nil, append(good[:3:3], "-cert", expiredCert, "-key", expiredKey), "alert", w.counters.HandshakeFailed.Load},
		{"TLS 1.2", nil, []string{"-tls1_2", "-alpn", ALPN, "-cert", cert, "-key", key}, "alert protocol version", w.counters.HandshakeFailed.Load},
		{"no ALPN", nil, []string{"-tls1_3", "-cert", cert, "-key", key}, "alert", w.counters.HandshakeFailed.Load},
		{"another ALPN", nil, []string{"-tls1_3", "-alpn", "http/1.1", "-cert", cert, "-key", key}, "alert no application protocol", w.counters.HandshakeFailed.Load},
		{"garbage in TLS", []byte("GET / HTTP/1.1\r\n\r\n"), append(good[:3:3], "-cert", cert, "-key", key), "closed", w.counters.Malformed.Load},
		{"silence in TLS", nil, append(good[:3:3], "-cert", cert, "-key", key), "closed", w.counters.TimedOut.Load},
		{"half a START", begin.Bytes()[:30], append(good[:3:3], "-cert", cert, "-key", key), "closed", w.counters.TimedOut.Load},
		{"a START and silence", begin.Bytes(), append(good[:3:3], "-cert", cert, "-key", key), "\x02\x0c\x00", w.counters.TimedOut.Load},
	} {
		before := d.count()
		out := sClient(t, w, d.stdin, d.args...)
		if !strings.Contains(out, d.want) {
			t.Errorf("%s: openssl says\n%q\nwant %q", d.name, out, d.want)
		}
		until(t, d.name+" counted", func() bool { return d.count() == before+1 })
		if d.want == "closed" && !strings.Contains(out, "TLSv1.3") {
			t.Errorf("%s: not TLS 1.3:\n%s", d.name, out)
		}
	}
	if n := w.counters.Runs.Load(); n != 1 {
		t.Errorf("%d runs, want the one of the good certificate", n)
	}
	until(t, "all connections ended", func() bool { return w.counters.Terminating.Load() == 0 && w.counters.Pending.Load() == 0 })
}

func expired(t *testing.T, a *authority) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "old"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Minute),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &k.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, b := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// What is no TLS at all, and TLS that comes byte by byte, ends within the time for the handshake.
func TestRawConnections(t *testing.T) {
	w := newWorld(t, func(c *ServerConfig) { c.Limits.Handshake = 300 * time.Millisecond })
	for name, send := range map[string]func(net.Conn){
		"garbage": func(c net.Conn) { _, _ = c.Write([]byte("INVITE sip:b.example SIP/2.0\r\n\r\n")) },
		"silence": func(net.Conn) {},
		"slow": func(c net.Conn) { // one byte of a ClientHello every 20 ms, for as long as the server listens
			for _, b := range append([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, make([]byte, 500)...) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		},
	} {
		before := w.counters.HandshakeFailed.Load()
		conn, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		sent := make(chan struct{})
		go func() { defer close(sent); send(conn) }()
		began := time.Now()
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection did not end", name)
		}
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("%s: ended after %v", name, d)
		}
		_ = conn.Close()
		<-sent
		until(t, name+" counted", func() bool { return w.counters.HandshakeFailed.Load() == before+1 })
	}
}
