package image

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"imeproxy/testbed"
)

// paste puts lines in at the prompt, as a terminal does with what comes from a clipboard: nothing is asked about. It gives what the
// console shows until the last line, a comment, has come.
func (m *vm) paste(lines string) string {
	m.t.Helper()
	m.send("\x1b[200~" + strings.ReplaceAll(strings.TrimSpace(lines), "\n", "\r") + "\r! pasted\r\x1b[201~")
	out := m.expect(`(?s)^(.*)! pasted\r*\n[^\n]*# $`, time.Minute)[1]
	if strings.Contains(out, "ERROR") || strings.Contains(out, "%") {
		m.t.Fatalf("the console takes not all lines:\n%s", out)
	}
	return out
}

// configure types the configuration of a lab's edge, as it is for a proxy in a namespace but for the names of the cards. Its key is
// made in the machine, and the lab's authority signs the request.
func (m *vm) configure(lab *testbed.Lab) {
	m.t.Helper()
	text := strings.NewReplacer("interface ein", "interface eth0", "interface eout", "interface eth1").Replace(lab.A.DefaultConfig(m.t))
	authority, err := os.ReadFile(lab.CA.File)
	if err != nil {
		m.t.Fatal(err)
	}
	const identity = "crypto key generate ecdsa label local-ent-key\ncrypto ca trustpoint local_ent\n enrollment terminal\n fqdn a.example\n subject-name cn=a.example\n keypair local-ent-key\n"
	m.paste("configure terminal\n" + identity + "crypto ca enroll local_ent\nend")
	shown := m.shell("show crypto ca request local_ent")
	request := regexp.MustCompile(`(?s)-----BEGIN CERTIFICATE REQUEST-----.*-----END CERTIFICATE REQUEST-----`).FindString(shown)
	certificate, err := lab.CA.Sign([]byte(request))
	if err != nil {
		m.t.Fatalf("the machine's certificate request: %v:\n%s", err, shown)
	}
	m.paste("configure terminal\ncrypto ca import local_ent certificate\n" + string(certificate) + "quit\ncrypto ca trustpoint lab_ca\n enrollment terminal\n" +
		"crypto ca authenticate lab_ca\n" + string(authority) + "quit\n" + text + "end")
	if out := m.shell("show configuration missing"); !strings.Contains(out, "is in force") {
		m.t.Fatalf("the configuration: %s", out)
	}
	if out := m.shell("write memory"); !strings.Contains(out, "[OK]") {
		m.t.Fatalf("write memory: %s", out)
	}
}

// serveFiles is a host with files for user "files" of the lab, over SFTP, until the test ends.
func serveFiles(t *testing.T, host *testbed.Host, address, dir string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cfg := &ssh.ServerConfig{PasswordCallback: func(c ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
		if c.User() == "files" && string(password) == "Paper-Clip-3" {
			return nil, nil
		}
		return nil, errors.New("wrong")
	}}
	cfg.AddHostKey(signer)
	l, err := host.Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serveSFTP(c, cfg, dir)
		}
	}()
}

func serveSFTP(c net.Conn, cfg *ssh.ServerConfig, dir string) {
	defer c.Close()
	conn, channels, requests, err := ssh.NewServerConn(c, cfg)
	if err != nil {
		return
	}
	defer conn.Close()
	go ssh.DiscardRequests(requests)
	for n := range channels {
		ch, requests, err := n.Accept()
		if err != nil {
			return
		}
		go func() {
			for r := range requests {
				_ = r.Reply(r.Type == "subsystem", nil)
			}
		}()
		if s, err := sftp.NewServer(ch, sftp.ReadOnly(), sftp.WithServerWorkingDirectory(dir)); err == nil {
			_ = s.Serve()
		}
		_ = ch.Close()
	}
}

// job lets both enterprises call each other, and judges tone and packets as `make demo` does.
func job(t *testing.T, lab *testbed.Lab, when string) {
	t.Helper()
	r := testbed.MainJob(t, lab, testbed.MainJobOptions{})
	for _, c := range r.Calls {
		t.Logf("%s: %s to %s, set up in %.0f ms: sound %s: %d Hz expected, %.0f found, %d packets sent, %d received, gaps %.0f ms", when,
			c.From, c.To, c.SetupMS, c.Direction, c.ToneExpectedHz, c.ToneFoundHz, c.PacketsSent, c.PacketsReceived, c.GapsMS)
	}
	for _, p := range r.Problems {
		t.Errorf("%s: %s", when, p)
	}
}

// The machine is the edge of an enterprise with a phone and a call agent; the other one has its proxy in a namespace. They call each
// other; while a call stands, an upgrade is fetched by SFTP and written; and under the new system they call each other again.
func TestMachineCalls(t *testing.T) {
	if *vmNext == "" {
		t.Skip("needs -vm-next: make test-image")
	}
	m := newVM(t)
	if err := testbed.BuildBinary(); err != nil {
		t.Fatal(err)
	}
	lab := testbed.Start(t, testbed.Options{A: testbed.Side{Edge: testbed.EdgeMachine}})
	m.in = []string{"ip", "netns", "exec", lab.A.EdgeHost.NS}
	t.Cleanup(m.kill)
	m.args = []string{"-drive", "if=none,id=answers,format=raw,readonly=on,file=" + answerDisk(t, answers), "-device", "virtio-blk-pci,drive=answers"}
	m.powerOn()
	m.expect(`imeproxy: ready`, 2*time.Minute)
	m.login()
	m.configure(lab)
	job(t, lab, "first system")
	if out := m.shell("show media-termination"); !strings.Contains(out, "Worker nice: -15") {
		t.Errorf("media has no place before other programs:\n%s", out)
	}

	dir := t.TempDir()
	run(t, "cp", *vmNext, filepath.Join(dir, "next.upgrade"))
	serveFiles(t, lab.A.UCMHost, fmt.Sprintf("%s:2222", lab.A.UCMIP), dir)
	lab.A.Phone.Call(t, lab.B.Phone)
	begin := time.Now()
	m.send(fmt.Sprintf("copy sftp://files@%s:2222/~/next.upgrade disk0:next.upgrade\r", lab.A.UCMIP))
	m.expect(`Password for files@.*: $`, 20*time.Second)
	m.send("Paper-Clip-3\r")
	m.expect(`Is this the right host\? \[yes/no\]: $`, 20*time.Second)
	m.send("yes\r")
	t.Logf("during a call: %s", m.expect(`\d+ bytes copied in [\d.]+ secs`, 2*time.Minute)[0])
	m.expect(`# $`, 10*time.Second)
	m.written("next.upgrade")
	stood := time.Since(begin)
	t.Logf("the upgrade is written, the call has stood for %.1f s", stood.Seconds())
	lab.A.Phone.Hangup(t)
	lab.B.Phone.WaitEvent(t, "CALL_CLOSED", 10*time.Second)
	for _, e := range lab.Enterprises() {
		tone, want := e.Phone.LastTone(t), e.Far().Phone.Tone
		t.Logf("phone %s heard during the upgrade: %.1f Hz, %.0f %% of the energy, for %v, gaps %v", e.Letter, tone.Hz, 100*tone.Share, tone.Sound, tone.Gaps)
		if math.Abs(tone.Hz-float64(want)) > 5 || tone.Share < 0.9 || tone.Sound < stood-time.Second || tone.GapTotal() > tone.Sound/50 {
			t.Errorf("phone %s, during the upgrade: heard %.0f Hz (%.0f %%) for %v of %v with gaps of %v, want %d Hz", e.Letter, tone.Hz, 100*tone.Share, tone.Sound, stood, tone.GapTotal(), want)
		}
	}

	m.send("utils system switch-version noconfirm\r")
	m.expect(`the machine restarts`, time.Minute)
	m.expect(`this system is healthy and stays`, 3*time.Minute)
	m.login()
	if out := m.shell("show version active"); !regexp.MustCompile(`\(system B\): imeproxy .*next`).MatchString(out) {
		t.Errorf("after the switch: %s", out)
	}
	job(t, lab, "second system")
}
