package pvp

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"imeproxy/ucime/enroll"
)

// enrolledMember is a member of a ring with a license for peers peer IDs.
func enrolledMember(t *testing.T, dir, url string, trust *enroll.Trust, peers int) *enroll.Member {
	t.Helper()
	key, err := enroll.LicenseKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	license, err := enroll.IssueLicense(key, enroll.LicenseSpec{PeerCount: peers, HostID: "ANY", Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	m, err := enroll.OpenMember(enroll.MemberConfig{Dir: filepath.Join(t.TempDir(), "member"), Trust: trust, URL: url})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.InstallLicense("a.lic", license); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.Enroll(t.Context()), m.FetchList(t.Context())); err != nil {
		t.Fatal(err)
	}
	return m
}

// Members with the certificates of the project's own authority validate a call, until one of them is revoked.
func TestMembersOfTheRing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "authority")
	if err := enroll.InitAuthority(dir, "Ring", enroll.Clock{}); err != nil {
		t.Fatal(err)
	}
	authority, err := enroll.OpenAuthority(dir, enroll.Clock{})
	if err != nil {
		t.Fatal(err)
	}
	server, err := enroll.NewServer(authority, []string{"127.0.0.1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(ctx, ln) }()
	defer func() { cancel(); <-done }()
	text, err := os.ReadFile(filepath.Join(dir, enroll.TrustFile))
	if err != nil {
		t.Fatal(err)
	}
	trust, err := enroll.ParseTrust(text)
	if err != nil {
		t.Fatal(err)
	}
	url := "https://" + ln.Addr().String()
	calling, called := enrolledMember(t, dir, url, trust, 1), enrolledMember(t, dir, url, trust, 3)

	w := newWorld(t, func(c *ServerConfig) { c.Identity = called })
	c, err := NewClient(ClientConfig{Identity: calling, Own: calling.OwnPeerIDs()[0], Domain: "a.example"})
	if err != nil {
		t.Fatal(err)
	}
	for i, peer := range called.OwnPeerIDs() { // under each of its names
		w.add(uint64(i), seenBy(callOf(), 0, 0))
		if r := c.Validate(t.Context(), w.addr, peer, callOf(), WithCaller); r.Outcome != Success {
			t.Fatalf("as %v: %+v", peer, r)
		}
	}
	if err := authority.Revoke(calling.License().Tag); err != nil {
		t.Fatal(err)
	}
	if err := called.FetchList(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.add(9, seenBy(callOf(), 0, 0))
	r := c.Validate(t.Context(), w.addr, called.OwnPeerIDs()[0], callOf(), WithCaller)
	if r.Outcome != Unreachable || w.index.Len() != 1 {
		t.Fatalf("after its revocation: %+v", r)
	}
}
