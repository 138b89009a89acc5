package testbed

import (
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// typeAt gives lines to a shell of the proxy as a person does who pastes them, and what the shell answered.
func (p *Proxy) typeAt(t T, lines ...string) string {
	t.Helper()
	cmd := exec.Command(Binary(), "shell", "--control", p.Control)
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("typed into proxy %s: %v\n%s", p.e.Letter, err, out)
	}
	return string(out)
}

// A proxy that knows its interfaces alone is configured by typing, in the order of the guide and as people type: abbreviated, with exits and
// blank lines. A call goes through it, and the saved file brings the same proxy up again.
func TestTypedConfiguration(t *testing.T) {
	const first = "object network ucm_real_1"
	var rest string
	lab := Start(t, Options{A: Side{Config: func(text string) string {
		var head string
		head, rest, _ = strings.Cut(text, first)
		return head
	}}})
	p := lab.A.Proxy
	before := p.typeAt(t, "show running-config", "show configuration missing")
	if strings.Contains(before, "uc-ime") || !strings.Contains(before, "is in force") {
		t.Fatalf("before anything was typed:\n%s", before)
	}
	lines := []string{"conf t", first}
	uc := strings.Index(rest, "uc-ime local-ent-ime")
	crypto := strings.Index(rest, "crypto ca trustpoint")
	class := strings.Index(rest, "class-map ")
	guide := rest[:crypto] + rest[uc:class] + rest[crypto:uc] + rest[class:] // the guide makes the uc-ime before the certificates
	for _, line := range strings.Split(strings.TrimSpace(guide), "\n") {
		line = strings.NewReplacer("access-list ", "access-l ", "class-map ", "class-m ", " extended ", " ext ").Replace(line)
		lines = append(lines, line, "")
	}
	said := p.typeAt(t, append(lines, "end", "show configuration missing", "write mem", "show conf diff")...)
	if !strings.Contains(said, "the running configuration is in force\n") || !strings.Contains(said, "[OK]\n") {
		t.Fatalf("the typed configuration is not in force or not saved:\n%s", said)
	}
	if strings.Contains(said, lab.A.TicketPassword) || strings.Contains(p.Log(), lab.A.TicketPassword) {
		t.Error("the ticket's password was shown or logged")
	}
	info, err := os.Stat(p.ConfigFile)
	if err != nil || info.Mode().Perm() != 0o600 || !strings.Contains(readAll(p.ConfigFile), lab.A.TicketPassword) {
		t.Errorf("saved file: %v, %v", info, err)
	}
	sshAtTheProxy(t, lab)
	running := p.typeAt(t, "show running-config")
	for _, again := range []bool{false, true} {
		if again {
			p.Stop(t)
			p.Start(t)
			if now := p.typeAt(t, "show running-config"); now != running {
				t.Errorf("after a restart from the saved file:\n%s\nbefore:\n%s", now, running)
			}
		}
		r := MainJob(t, lab, MainJobOptions{Say: t.Logf})
		for _, problem := range r.Problems {
			t.Error(problem)
		}
	}
	changesOnTrial(t, lab.A)
}

// changesOnTrial takes changes back when the session that has not confirmed them dies, and leaves nothing in the kernel when it is the daemon that
// stops meanwhile.
func changesOnTrial(t *testing.T, e *Enterprise) {
	p := e.Proxy
	hostname := func() string {
		out, err := p.Shell("show running-config hostname")
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(strings.TrimPrefix(out, "hostname "))
	}
	before := hostname()
	risk := func() (cmd *exec.Cmd, keyboard io.Closer) {
		cmd = exec.Command(Binary(), "shell", "--control", p.Control)
		in, err := cmd.StdinPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err == nil {
			_, err = io.WriteString(in, "configure terminal\ncommit confirmed 5\nhostname risky\n")
		}
		if err != nil {
			t.Fatal(err)
		}
		Until(t, 5*time.Second, "the change on trial", func() bool { return hostname() == "risky" })
		return cmd, in
	}
	if !strings.Contains(p.typeAt(t, "show configuration missing"), "in force") {
		t.Fatal("the configuration is not in force")
	}
	cmd, in := risk()
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	in.Close()
	Until(t, 5*time.Second, "the change to be taken back", func() bool { return hostname() == before })

	cmd, in = risk()
	p.Stop(t)
	in.Close()
	_ = cmd.Wait()
	if state := kernelState(t, e.EdgeHost); strings.Contains(state, "imeproxy") {
		t.Errorf("the kernel after a stop with changes on trial:\n%s", state)
	}
	p.Start(t)
	if now := hostname(); now != before {
		t.Errorf("what was on trial came back as %s", now)
	}
}

// sshAtTheProxy logs in from the inside with a key that was typed, and changes the configuration; the Internet finds no such port.
func sshAtTheProxy(t *testing.T, lab *Lab) {
	dir, a := t.TempDir(), lab.A
	key := filepath.Join(dir, "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	a.Proxy.typeAt(
		t, "conf t", "username admin publickey "+strings.TrimSpace(readAll(key+".pub")),
		"ssh "+a.Inside.Masked().Addr().String()+" "+mask(a.Inside)+" inside", "ssh timeout 10",
	)
	ssh := func(h *Host, to netip.Addr, line string) (string, error) {
		return h.Run("ssh", "-F", "none", "-p", "2022", "-i", key, "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=3",
			"-o", "StrictHostKeyChecking=accept-new", "-o", "UserKnownHostsFile="+filepath.Join(dir, "known"), "admin@"+to.String(), line)
	}
	out, err := ssh(a.PhoneHost, a.InsideIP, "configure terminal\nbanner exec hello\nend\nwrite memory")
	if err != nil || !strings.Contains(out, "[OK]") || !strings.Contains(readAll(a.Proxy.ConfigFile), "banner exec hello\n") {
		t.Errorf("ssh from the inside: %v: %s", err, out)
	}
	if out, err := ssh(lab.Internet.Host, a.OutsideIP, "show version"); err == nil || strings.Contains(out, "Version") {
		t.Errorf("ssh from the Internet: %v: %s", err, out)
	}
	a.Proxy.Says(t, "user=admin from="+a.PhoneIP.String())
	terminal := func() *keyboard {
		cmd := a.PhoneHost.Command("ssh", "-tt", "-F", "none", "-p", "2022", "-i", key, "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no",
			"-o", "UserKnownHostsFile="+filepath.Join(dir, "known"), "admin@"+a.InsideIP.String())
		return sit(t, cmd.Args...)
	}
	twoSessions(t, terminal)
}

// twoSessions has two operators on the wire at once: one sees what the other changes, and when the other's session dies with changes on trial they are gone.
func twoSessions(t *testing.T, login func() *keyboard) {
	one, two := login(), login()
	one.expect(t, "# ")
	two.expect(t, "# ")
	one.press(t, "configure terminal\r")
	one.expect(t, "(config)# ")
	one.press(t, "commit confirmed 5\r")
	one.expect(t, "unless commit is entered")
	one.expect(t, "(config)# ")
	one.press(t, "banner motd risky\r")
	one.expect(t, "risky")
	one.expect(t, "(config)# ")
	two.press(t, "show running-config banner\r")
	two.expect(t, "\r\nbanner motd risky\r\n")
	two.press(t, "debug uc-ime\r")
	_ = one.cmd.Process.Kill()
	two.press(t, "\x03")
	Until(t, 10*time.Second, "the change is gone", func() bool {
		two.press(t, "show running-config banner | count risky\r")
		two.expect(t, "Number of lines which match regexp = ")
		return strings.HasPrefix(two.screen()[two.from:], "0")
	})
	two.press(t, "exit\r")
}
