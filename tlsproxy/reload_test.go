package tlsproxy

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// echoServer accepts with cfg until the test ends; each connection returns what it receives.
func echoServer(t *testing.T, cfg *tls.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer raw.Close()
				conn := tls.Server(raw, cfg)
				if Handshake(context.Background(), conn, 10*time.Second) != nil {
					return
				}
				buf := make([]byte, 64)
				for {
					n, err := conn.Read(buf)
					if err != nil {
						return
					}
					if _, err := conn.Write(buf[:n]); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

func ping(conn net.Conn) error {
	if _, err := conn.Write([]byte("ping")); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 4))
	return err
}

func TestReloadUnderLoad(t *testing.T) {
	ca := newAuthority(t, "CA")
	s := storeWith(t, ca.issue("a.example"), ca)
	cfg, err := s.ServerConfig("local-ent", Policy{})
	must(t, err)
	addr := echoServer(t, cfg)
	peer := &tls.Config{Certificates: []tls.Certificate{ca.issue("b.example").tls()}, RootCAs: poolOf(ca), ServerName: "a.example"}
	standing := make([]*tls.Conn, 20)
	for i := range standing {
		standing[i], err = tls.Dial("tcp", addr, peer)
		must(t, err)
		defer standing[i].Close()
		must(t, ping(standing[i]))
	}
	var stop atomic.Bool
	var made atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				conn, err := tls.Dial("tcp", addr, peer)
				if err != nil {
					t.Errorf("handshake during a reload: %v", err)
					return
				}
				if err := ping(conn); err != nil {
					t.Errorf("connection made during a reload: %v", err)
				}
				conn.Close()
				made.Add(1)
			}
		})
	}
	var last pair
	for i := 0; i < 20 || made.Load() < 40; i++ {
		last = ca.issue("a.example")
		must(t, s.ImportPKCS12("local-ent", last.p12(t, "pw"), "pw"))
		for _, conn := range standing {
			must(t, ping(conn))
		}
	}
	stop.Store(true)
	wg.Wait()
	conn, err := tls.Dial("tcp", addr, peer)
	must(t, err)
	defer conn.Close()
	if !conn.ConnectionState().PeerCertificates[0].Equal(last.cert) {
		t.Error("a new handshake does not get the certificate imported last")
	}
}

func TestWithdrawnAuthorityEndsResumption(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		old, other := newAuthority(t, "Old"), newAuthority(t, "New")
		s := storeWith(t, old.issue("a.example"), old, other)
		cfg, err := s.ServerConfig("local-ent", Policy{})
		must(t, err)
		addr := echoServer(t, cfg)
		peer := &tls.Config{
			Certificates: []tls.Certificate{old.issue("b.example").tls()}, RootCAs: poolOf(old), ServerName: "a.example",
			MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(4),
		}
		connect := func() (resumed bool, err error) {
			conn, err := tls.Dial("tcp", addr, peer)
			if err != nil {
				return false, err
			}
			defer conn.Close()
			return conn.ConnectionState().DidResume, ping(conn)
		}
		if _, err := connect(); err != nil {
			t.Fatal(err)
		}
		// An unrelated change must not end resumption: tickets outlive a reload.
		must(t, s.Authenticate("third", newAuthority(t, "Third").pem()))
		if resumed, err := connect(); err != nil || !resumed {
			t.Errorf("%s: resumed %v, %v; want a resumed session", tls.VersionName(version), resumed, err)
		}
		must(t, s.RemoveTrustpoint("remote-Old"))
		if _, err := connect(); err == nil {
			t.Errorf("%s: a session of a peer whose authority was removed was resumed", tls.VersionName(version))
		}
	}
}
