package testbed

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// secureTrunk turns the default configuration into one with
// `trunk-security-mode secure`, as the guide sets it up: a self-signed identity
// of the appliance for the call agent, and the call agent's certificate pinned.
func secureTrunk(text string) string {
	text = replaceOnce(text, "trunk-security-mode non-secure", "trunk-security-mode secure")
	text = replaceOnce(text, "crypto ca trustpoint lab_ca\n", `crypto key generate rsa label key-local-asa
crypto ca trustpoint local-asa
 enrollment self
 subject-name cn=proxy.a.example
 keypair key-local-asa
crypto ca enroll local-asa
crypto ca trustpoint local-ent-ucm
 enrollment terminal
crypto ca trustpoint lab_ca
`)
	text = replaceOnce(text, "tls-proxy local_to_remote-ent\n", "tls-proxy local_to_remote-ent\n server trust-point local-asa\n")
	return replaceOnce(text, "tls-proxy remote_to_local-ent\n", "tls-proxy remote_to_local-ent\n client trust-point local-asa\n")
}

// secureLab is a lab whose call agent speaks TLS.
type secureLab struct {
	*StubLab
	ucm   *Identity // of the call agent
	local *x509.Certificate
}

// startSecure builds it. The call agent knows the appliance by its exported certificate.
func startSecure(t *testing.T) *secureLab {
	t.Helper()
	s := &secureLab{StubLab: StartStubs(t, func(o *Options) { o.A.Config = secureTrunk })}
	s.ucm = selfSigned(t, s.Dir, "ucm-cluster")
	s.pin(t, s.ucm)
	var err error
	block, _ := pem.Decode([]byte(MustImeproxy(t, "crypto", "export", "--state-dir", s.Proxy.StateDir, "--trustpoint", "local-asa")))
	if block == nil {
		t.Fatal("the appliance's certificate was not exported")
	}
	if s.local, err = x509.ParseCertificate(block.Bytes); err != nil {
		t.Fatal(err)
	}
	s.Agent.Close()
	s.Agent = newStub("call agent", s.A.UCMHost, s.Agent.Addr, "TLS")
	s.Agent.Listen(t, s.agentTLS(s.ucm))
	s.AgentTLS = s.agentTLS(s.ucm)
	return s
}

// selfSigned makes an identity as a call agent has it by default.
func selfSigned(t T, dir, name string) *Identity {
	t.Helper()
	key, public, err := newKey(2048)
	if err != nil {
		t.Fatalf("%v", err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, public, key)
	if err != nil {
		t.Fatalf("%v", err)
	}
	id := &Identity{CertFile: filepath.Join(dir, name+".crt"), TLS: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}
	if err := writePEM(id.CertFile, "CERTIFICATE", der); err != nil {
		t.Fatalf("%v", err)
	}
	return id
}

// pin tells the appliance the call agent's certificate.
func (s *secureLab) pin(t T, id *Identity) {
	t.Helper()
	MustImeproxy(t, "crypto", "authenticate", "--state-dir", s.Proxy.StateDir, "--trustpoint", "local-ent-ucm", "--pem", id.CertFile)
	Until(t, wait, "the daemon knows the call agent's certificate", func() bool {
		text, err := s.Proxy.Shell("show crypto ca certificates")
		return err == nil && strings.Contains(text, "ucm-cluster")
	})
}

// agentTLS is the call agent's end, as server and as client: only the appliance's own certificate is good.
func (s *secureLab) agentTLS(id *Identity) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{id.TLS}, ClientAuth: tls.RequireAnyClientCert, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12,
		VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
			if !bytes.Equal(raw[0], s.local.Raw) {
				return errors.New("not the certificate of local-asa")
			}
			return nil
		},
	}
}

// secureTalk sets up a call with SRTP inside too; inSuite "" is the fall-back to RTP.
func (s *secureLab) secureTalk(t T, out bool, suite, inSuite string) *talk {
	t.Helper()
	k := s.newTalk(t, out, NewStubCrypto(1, suite))
	if inSuite != "" {
		k.phoneKey = NewStubCrypto(1, inSuite)
	}
	inv, seen := k.invite(t, sdp(k.descr(!out)))
	if out {
		k.pick(t, seen.Body)
	} else {
		if n := len(CryptosOf(t, seen.Body)); n != 4 || !strings.Contains(seen.Body, "RTP/SAVP") {
			t.Errorf("%d keys offered inside:\n%s", n, seen.Body)
		}
		if inSuite != "" {
			k.ourPhoneKey = CryptoOf(t, seen.Body, inSuite)
			k.phoneKey.Tag = k.ourPhoneKey.Tag
		}
	}
	k.callee.Respond(t, seen, 200, "OK", sdp(k.descr(out)))
	ok := k.caller.AwaitStatus(t, inv, 200)
	k.answered(t, seen, ok)
	if out && inSuite != "" {
		k.ourPhoneKey = CryptoOf(t, ok.Body, inSuite)
	}
	if plain := out && inSuite == ""; plain == strings.Contains(ok.Body, "SAVP") {
		t.Errorf("answer with the inside suite %q:\n%s", inSuite, ok.Body)
	}
	if inSuite != "" {
		k.phone.SetKeys(t, k.phoneKey, k.ourPhoneKey)
	}
	k.caller.Ack(t)
	k.callee.Expect(t, "ACK")
	return k
}

// A trunk with TLS and SRTP to the call agent as well (guide lines 5425-5560).
func TestSecureTrunk(t *testing.T) {
	s := startSecure(t)
	for _, out := range []bool{true, false} {
		for inSuite, suite := range map[string]string{"": srtpSuites[0], srtpSuites[0]: srtpSuites[2], srtpSuites[3]: srtpSuites[1]} {
			t.Run(fmt.Sprintf("outbound %v/inside %q", out, inSuite), func(t *testing.T) {
				defer checkReturned(t, s.StubLab)
				k := s.secureTalk(t, out, suite, inSuite)
				k.bothWays(t, 10)
				k.reports(t, false)
				if m := k.shown(t); m.Inside.Suite != inSuite || m.Outside.Suite != suite {
					t.Errorf("shown: %+v", m)
				}
				if inSuite != "" {
					// A plain packet of the phone's own is a stranger's now.
					plain := &MediaStub{SSRC: 1, Seq: 1}
					k.refusedPackets(t, "plain RTP inside", 1, func() { k.phone.SendRaw(t, k.in, plain.Seal(t, plain.Packet())) })
				}
				noTrace(t, "the log", s.Proxy.Log(), k.farKey, k.ourKey, k.phoneKey, k.ourPhoneKey)
				k.end(t)
			})
		}
	}
	t.Run("from SRTP to RTP and back", func(t *testing.T) {
		k := s.secureTalk(t, true, srtpSuites[0], srtpSuites[0])
		k.bothWays(t, 3)
		key := k.phoneKey
		k.phoneKey = StubCrypto{}
		k.again(t, false, nil, nil)
		k.phone.mu.Lock()
		k.phone.send, k.phone.recv = nil, nil
		k.phone.mu.Unlock()
		k.bothWays(t, 3)
		k.phoneKey = NewStubCrypto(1, key.Suite)
		_, back := k.again(t, false, nil, nil)
		k.ourPhoneKey = CryptosOf(t, back.Body)[0]
		k.phone.SetKeys(t, k.phoneKey, k.ourPhoneKey)
		k.phone.SSRC++ // the appliance counts its own packets on: a new receiver must not need to know
		k.bothWays(t, 3)
		k.end(t)
	})
	t.Run("headers", func(t *testing.T) { secureHeaders(t, s) })
	t.Run("strangers", func(t *testing.T) { secureStrangers(t, s) })
	Until(t, 3*time.Second, "no media session is left", func() bool { return s.Streams(t) == 0 })
}

// secureHeaders: transport words follow the leg.
func secureHeaders(t *testing.T, s *secureLab) {
	f := s.Inbound(s.FarDial(t))
	inv := f.Request(t, "INVITE", s.WithTicket, sdp(secureOffer(s.B.MediaOut.String(), 20000)))
	seen := s.Agent.Expect(t, InCall(f.CallID, ReqIs("INVITE")), wait)
	if via := seen.Get("Via"); !strings.HasPrefix(via, "SIP/2.0/TLS ") {
		t.Errorf("inside Via: %s", via)
	}
	if c := seen.Get("Contact"); !strings.Contains(c, "transport=tls") {
		t.Errorf("inside Contact: %s", c)
	}
	a := s.Agent.AnswerLeg(seen)
	a.Respond(t, seen, 486, "Busy Here")
	f.AckFailure(t, inv, f.AwaitStatus(t, inv, 486))
}

// secureStrangers: who is not the call agent gets no call, and plain TCP none either.
func secureStrangers(t *testing.T, s *secureLab) {
	nobody := selfSigned(t, s.Dir, "nobody")
	t.Run("another client", func(t *testing.T) {
		before := s.counters(t)
		cfg := s.agentTLS(nobody)
		// Whatever authorities the server names.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &nobody.TLS, nil }
		if c, err := s.Agent.TryDial(s.Far.Addr, cfg); err == nil {
			c.WaitEnd(t, wait) // TLS 1.3: the client learns it after its handshake
		}
		Until(t, wait, "the failed handshake is counted", func() bool { return len(s.counters(t).since(before)) > 0 })
		s.grew(t, before, "handshake_failed_unknown_issuer")
	})
	t.Run("plain TCP", func(t *testing.T) {
		c, err := s.Agent.TryDial(s.Far.Addr, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte("OPTIONS sip:b.example SIP/2.0\r\nVia: SIP/2.0/TCP 192.168.10.30\r\nContent-Length: 0\r\n\r\n"))
		c.WaitEnd(t, wait)
	})
	serve := func(id *Identity) {
		s.Agent.Close()
		s.Agent = newStub("call agent", s.A.UCMHost, s.Agent.Addr, "TLS")
		s.Agent.Listen(t, s.agentTLS(id))
	}
	t.Run("another server", func(t *testing.T) {
		serve(nobody)
		f := s.Inbound(s.FarDial(t))
		inv := f.Request(t, "INVITE", s.WithTicket, sdp(secureOffer(s.B.MediaOut.String(), 20000)))
		f.AckFailure(t, inv, f.AwaitStatus(t, inv, 503))
		nothingCame(t, s.Agent)
	})
	t.Run("again the right one", func(t *testing.T) {
		serve(s.ucm)
		k := s.secureTalk(t, false, srtpSuites[0], srtpSuites[0])
		k.bothWays(t, 2)
		k.end(t)
	})
}
