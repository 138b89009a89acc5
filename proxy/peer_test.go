package proxy

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imeproxy/proxy/disk"
	"imeproxy/proxy/observe"
	"imeproxy/proxy/peerserver"
	"imeproxy/ucime/enroll"
)

const peerConfig = edgeConfig + `crypto key generate rsa label vap
crypto ca trustpoint vap
 enrollment self
 subject-name cn=a.example
 keypair vap
crypto ca enroll vap
peer-server
 listening-interface outside
 bootstrap host 203.0.113.1
 enrollment url https://198.51.100.10:8443
 enrollment trust-file authority.pem
 vapserver ucm1 interface inside authentication-mode encrypted trust-point vap
 vapuser ucm password correct-horse-battery
`

// Others reach the ring and the validator on the Internet's side, call agents their port on their own; nothing else is opened.
func TestPeerServerPorts(t *testing.T) {
	p := testPlan(t, peerConfig)
	got := map[string]bool{}
	for _, o := range p.peerPorts() {
		if o.Proto != "tcp" || o.Src.IsValid() || o.PortHi != 0 {
			t.Errorf("%+v", o)
		}
		got[fmt.Sprintf("%s %s %d", o.Link, o.Addr, o.Port)] = true
	}
	out, in := p.Outside, p.Inside
	for _, want := range []string{out.Name + " " + out.Address.Addr().String() + " 6084", out.Name + " " + out.Address.Addr().String() + " 8470", in.Name + " " + in.Address.Addr().String() + " 5620"} {
		if !got[want] {
			t.Errorf("%q is not open: %v", want, got)
		}
	}
	if len(got) != 3 {
		t.Errorf("open: %v", got)
	}
	if n := len(testPlan(t, edgeConfig).peerPorts()); n != 0 {
		t.Errorf("%d ports without a peer server", n)
	}
	if n := len(testPlan(t, strings.Replace(peerConfig, " vapuser", " vapserver ucm1 shutdown\n vapuser", 1)).peerPorts()); n != 2 {
		t.Errorf("%d ports with the vapserver shut down", n)
	}
	if tps := p.trustpoints(); len(tps) == 0 || !strings.Contains(strings.Join(tps, " "), "vap") {
		t.Errorf("trustpoints that must have an identity: %v", tps)
	}
}

// What concerns call agents alone keeps the server running, anything else begins it anew.
func TestWhatBeginsThePeerServerAnew(t *testing.T) {
	base := testPlan(t, peerConfig).PeerServer
	for change, same := range map[string]bool{
		" vapuser second password correct-horse-battery":                                           true,
		" vapserver ucm2 interface inside port 5621 authentication-mode encrypted trust-point vap": true,
		" alert webhook https://alerts.example/":                                                   true,
		" bootstrap host 203.0.113.2":                                                              false,
		" public-address 198.51.100.1":                                                             false,
		" domain b.example":                                                                        false,
		" validator bucket-entropy 36":                                                             false,
		" dht-port 6085":                                                                           false,
		" enrollment url https://198.51.100.11:8443":                                               false,
	} {
		if got := samePeer(base, testPlan(t, peerConfig+change+"\n").PeerServer); got != same {
			t.Errorf("%s: goes on %t, want %t", change, got, same)
		}
	}
	if samePeer(base, testPlan(t, strings.Replace(peerConfig, "ticket epoch 1", "ticket epoch 2", 1)).PeerServer) {
		t.Error("tickets of another epoch need another server")
	}
}

// A peer server that cannot run is told and keeps nobody from calling; one that is changed so that it cannot run is refused. A new password is an alert.
func TestPeerServerThatCannotRun(t *testing.T) {
	dir := t.TempDir()
	var log strings.Builder
	a := &Appliance{opt: Options{StateDir: dir}, log: slog.New(slog.NewTextHandler(&log, nil)), now: time.Now}
	a.peers.webhooks = peerserver.NewWebhooks(a.log)
	p := testPlan(t, peerConfig)
	a.plan.Store(p)
	a.startPeer(p)
	if l := a.health.List(); len(l.Problems) != 1 || l.Problems[0].Code != peerNotRunning || !strings.Contains(l.Problems[0].WhatToDo, "authority.pem") {
		t.Fatalf("health: %+v", l)
	}
	if _, err := a.PeerServer(); err != observe.ErrNoPeerServer {
		t.Errorf("show: %v", err)
	}
	changed := testPlan(t, peerConfig+" dht-port 6085\n")
	if err := a.reloadPeer(p, changed); err == nil {
		t.Error("a changed peer server that cannot run is taken")
	}
	if err := a.reloadPeer(p, testPlan(t, peerConfig)); err != nil {
		t.Errorf("what is as it was before keeps other changes out: %v", err)
	}

	authority := filepath.Join(t.TempDir(), "authority")
	if err := enroll.InitAuthority(authority, "Ring", enroll.Clock{}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(authority, enroll.TrustFile))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "authority.pem"), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	a.startPeer(p)
	if l := a.health.List(); len(l.Problems) != 0 {
		t.Fatalf("health with the file there: %+v", l)
	}
	s, err := a.PeerServer()
	if err != nil || s.Running || s.Why != "no license is installed" || len(s.Servers) != 1 {
		t.Errorf("show: %+v, %v", s, err)
	}
	if a.disk, err = disk.Open(dir); err != nil {
		t.Fatal(err)
	}
	defer a.disk.Close()
	for name, text := range map[string]string{"key.pem": "a secret", "a.lic": "no license"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := a.InstallLicense("key.pem"); !errors.Is(err, disk.ErrName) || strings.Contains(err.Error(), "a secret") {
		t.Errorf("another file of the state directory is read as a license: %v", err)
	}
	if _, _, err := a.InstallLicense("disk0:a.lic"); err == nil || !strings.Contains(err.Error(), "no license") {
		t.Errorf("what is no license: %v", err)
	}
	other := testPlan(t, strings.Replace(peerConfig, "ticket epoch 1 password ", "ticket epoch 1 password another-", 1))
	a.plan.Store(other)
	if err := a.reloadPeer(p, other); err != nil {
		t.Fatal(err)
	}
	if err := a.reloadPeer(other, testPlan(t, edgeConfig)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.PeerServer(); err != observe.ErrNoPeerServer {
		t.Errorf("after its end: %v", err)
	}
	if !strings.Contains(log.String(), "alert TicketPasswordChanged") {
		t.Errorf("log: %s", log.String())
	}
}
