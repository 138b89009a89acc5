package testbed

import (
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// Whoever guesses passwords over SSH is turned away, from the inside too, a call agent's address alone is not; and a session ends with its user.
func TestSSHGuessersAndUsersWhoAreGone(t *testing.T) {
	s := StartStubs(t, func(o *Options) {
		o.A.Config = func(text string) string { return text + "threat-detection scanning-threat shun duration 60\n" }
	})
	a, dir := s.A, t.TempDir()
	key := filepath.Join(dir, "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	s.Proxy.typeAt(t, "conf t", "username admin password correct-horse-battery", "username admin publickey "+strings.TrimSpace(readAll(key+".pub")),
		"ssh "+a.Inside.Masked().Addr().String()+" "+mask(a.Inside)+" inside")

	cmd := a.PhoneHost.Command("ssh", "-tt", "-F", "none", "-p", "2022", "-i", key, "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no",
		"-o", "UserKnownHostsFile="+filepath.Join(dir, "known"), "admin@"+a.InsideIP.String())
	k := sit(t, cmd.Args...)
	k.expect(t, "# ")
	s.Proxy.typeAt(t, "conf t", "no username admin publickey "+strings.TrimSpace(readAll(key+".pub")))
	ended := make(chan error, 1)
	go func() { ended <- k.cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(wait):
		t.Errorf("the session of a key that is gone still stands:\n%q", tail(k.screen(), 500))
	}
	s.Proxy.Says(t, "ssh session ended: the user was removed or changed")

	guess := func(h *Host, times int) {
		t.Helper()
		for range times {
			c, err := h.Dial("tcp", "", net.JoinHostPort(a.InsideIP.String(), "2022"), time.Second)
			if err != nil {
				t.Fatalf("%s: %v", h.Name, err)
			}
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			config := &ssh.ClientConfig{User: "admin", Auth: []ssh.AuthMethod{ssh.Password("not-that-one")}, HostKeyCallback: ssh.InsecureIgnoreHostKey()}
			if _, _, _, err := ssh.NewClientConn(c, "", config); err == nil {
				t.Fatal("a wrong password is taken")
			}
			c.Close()
		}
	}
	shunned := func(who netip.Addr) bool {
		out, err := s.Proxy.Shell("show shun")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(out, "shun "+who.String()+" ")
	}
	guess(a.UCMHost, 22)
	guess(a.PhoneHost, 19)
	if shunned(a.PhoneIP) {
		t.Error("the phone's host is turned away too early")
	}
	guess(a.PhoneHost, 1)
	Until(t, wait, "the phone's host is turned away", func() bool { return shunned(a.PhoneIP) })
	if c, err := a.PhoneHost.Dial("tcp", "", net.JoinHostPort(a.InsideIP.String(), "2022"), time.Second); err == nil {
		c.Close()
		t.Error("the phone's host still gets through")
	}
	if shunned(a.UCMIP) {
		t.Error("the call agent is turned away")
	}
	far, agent := s.CallIn(t)
	agent.Transact(t, far, "BYE", 200)
	s.Proxy.Says(t, `last="SSH login"`)
}
