package pvp

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"imeproxy/ucime/learn"
	"imeproxy/ucime/ticket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority signs the certificates of a test's ring.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ring"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

// member is a test's Identity: its certificate names peer IDs as URIs.
type member struct {
	cert     tls.Certificate
	roots    *x509.CertPool
	admitted func(*x509.Certificate) error
}

func (a *authority) member(t testing.TB, ids ...learn.PeerID) *member {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "member"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, id := range ids {
		tmpl.URIs = append(tmpl.URIs, &url.URL{Scheme: "peer", Opaque: id.String()})
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &member{cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, roots: roots}
}

func (m *member) Certificate() (*tls.Certificate, error) { return &m.cert, nil }
func (m *member) Roots() *x509.CertPool                  { return m.roots }
func (m *member) PeerIDs(c *x509.Certificate) ([]learn.PeerID, error) {
	var ids []learn.PeerID
	for _, u := range c.URIs {
		id, err := learn.ParsePeerID(u.Opaque)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func (m *member) Admitted(c *x509.Certificate) error {
	if m.admitted == nil {
		return nil
	}
	return m.admitted(c)
}

// write stores certificate and key for a program.
func (m *member) write(t *testing.T) (cert, key string) {
	t.Helper()
	dir := t.TempDir()
	der, err := x509.MarshalPKCS8PrivateKey(m.cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, b := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: m.cert.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

type trustAll struct{}

func (trustAll) Trusted(string, learn.VCR) bool { return true }

type trustNone struct{}

func (trustNone) Trusted(string, learn.VCR) bool { return false }

var (
	peerA, peerB, peerC = learn.PeerID{0xa}, learn.PeerID{0xb}, learn.PeerID{0xc}
	began               = time.Date(2026, 11, 27, 10, 0, 0, 400e6, time.UTC)
	testKey             = sync.OnceValue(func() ticket.Key { return ticket.DeriveKey("password1234", 7) })
)

// callOf returns the originator's record of the document's example.
func callOf() learn.VCR {
	return learn.VCR{Role: learn.Originating, Called: "+14085551212", Caller: "+13105550100", Start: began, Stop: began.Add(201500 * time.Millisecond)}
}

// seenBy returns the terminator's record of v, with its times off by some difference.
func seenBy(v learn.VCR, start, stop time.Duration) learn.VCR {
	v.Role, v.Start, v.Stop = learn.Terminating, v.Start.Add(start), v.Stop.Add(stop)
	return v
}

// world is two enterprises: a calls, b is called.
type world struct {
	t        testing.TB
	ring     *authority
	index    *Index
	server   *Server
	counters *Counters // of the server
	addr     string
	now      time.Time
	nowMu    sync.Mutex
	proofs   []uint64
}

func (w *world) clock() time.Time {
	w.nowMu.Lock()
	defer w.nowMu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.nowMu.Lock()
	defer w.nowMu.Unlock()
	w.now = w.now.Add(d)
}

// newWorld starts b's server; change may alter its configuration.
func newWorld(t testing.TB, change func(*ServerConfig)) *world {
	t.Helper()
	w := &world{t: t, ring: newAuthority(t), now: time.Now()}
	w.index = NewIndex(1000, func(id uint64, _ learn.PeerID) error { w.proofs = append(w.proofs, id); return nil })
	c := ServerConfig{
		Identity: w.ring.member(t, peerB), Records: w.index, Trust: trustAll{}, Now: w.clock,
		Issuer: &TicketIssuer{Key: testKey(), Domain: "b.example", Routes: []string{"sips:edge.b.example:5061"}},
	}
	if change != nil {
		change(&c)
	}
	var err error
	if w.server, err = NewServer(c); err != nil {
		t.Fatal(err)
	}
	w.counters = w.server.Counters
	w.addr = w.serve(w.server)
	return w
}

func (w *world) serve(s *Server) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Serve: %v", err)
		}
	})
	return ln.Addr().String()
}

func (w *world) add(id uint64, v learn.VCR) {
	w.t.Helper()
	if _, _, err := w.index.Add(id, v); err != nil {
		w.t.Fatal(err)
	}
}

// client returns a's client, or that of another peer.
func (w *world) client(peer learn.PeerID) *Client {
	w.t.Helper()
	c, err := NewClient(ClientConfig{Identity: w.ring.member(w.t, peer), Own: peer, Domain: "a.example", Now: w.clock})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) validate(c *Client, v learn.VCR, methods ...Method) Result {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return c.Validate(ctx, w.addr, peerB, v, methods...)
}

// until waits for what another goroutine is about to count.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// dialTLS opens a connection to w's server with peer's certificate, for tests that speak the protocol by hand.
func (w *world) dialTLS(m *member) *tls.Conn {
	w.t.Helper()
	conn, err := tls.Dial("tcp", w.addr, tlsConfig(m, time.Now))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		w.t.Fatal(err)
	}
	return conn
}

// relay passes bytes between a client and to, and keeps what went by.
type relay struct {
	addr     string
	mu       sync.Mutex // guards what follows
	up, down bytes.Buffer
	ended    int // directions that have come to their end
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{addr: ln.Addr().String()}
	var all sync.WaitGroup
	t.Cleanup(func() { _ = ln.Close(); all.Wait() })
	all.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				return
			}
			all.Go(func() { r.pass(&r.up, out, in) })
			all.Go(func() { r.pass(&r.down, in, out) })
		}
	})
	return r
}

func (r *relay) pass(record *bytes.Buffer, to, from net.Conn) {
	defer func() {
		_ = to.(*net.TCPConn).CloseWrite()
		r.mu.Lock()
		r.ended++
		r.mu.Unlock()
	}()
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		r.mu.Lock()
		record.Write(buf[:n])
		r.mu.Unlock()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "closed") && !strings.Contains(err.Error(), "reset") {
				panic(err)
			}
			return
		}
	}
}
