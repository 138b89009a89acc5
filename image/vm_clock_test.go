package image

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// timeServer is a chronyd on the inside that claims a stratum, until the function that it gives is called.
func timeServer(t *testing.T, stratum int) func() {
	t.Helper()
	root := filepath.Join(*vmDebian, "chrony")
	text := fmt.Sprintf("local stratum %d\nallow 192.168.10.0/24\nbindaddress 192.168.10.30\ncmdport 0\nbindcmdaddress /\npidfile /chrony.pid\n", stratum)
	if err := os.WriteFile(filepath.Join(root, "chrony.conf"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("chroot", root, "/usr/sbin/chronyd", "-x", "-d", "-u", "root", "-f", "/chrony.conf")
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end := func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			_ = log.Close()
		}
	}
	t.Cleanup(func() {
		end()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("chronyd said\n%s", text)
		}
	})
	return end
}

// answerCD makes a CD with an answer file.
func answerCD(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	cd, file := filepath.Join(dir, "answers.iso"), filepath.Join(dir, "imeproxy-answers.txt")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "xorriso", "-as", "mkisofs", "-quiet", "-J", "-r", "-o", cd, file)
	return cd
}

// A machine whose own clock is two years behind takes the time of a server, and not that of one that is far from a clock. Its answers are on a
// CD.
func TestMachineClock(t *testing.T) {
	if *vmDebian == "" {
		t.Skip("needs -vm-debian: make test-image")
	}
	m := newVM(t)
	wires(t)
	end := timeServer(t, 12)
	text := strings.NewReplacer("ntp: none", "ntp: 192.168.10.30", "Europe/Vienna", "Etc/UTC").Replace(answers)
	behind := time.Now().AddDate(-2, 0, 0).UTC()
	m.args = []string{"-device", "virtio-scsi-pci", "-drive", "if=none,id=answers,media=cdrom,readonly=on,file=" + answerCD(t, text), "-device", "scsi-cd,drive=answers", "-rtc", "base=" + behind.Format("2006-01-02T15:04:05")}
	m.powerOn()
	m.expect(`no time server answers that is near enough to a clock`, 2*time.Minute)
	end()
	timeServer(t, 3)
	by := m.expect(`the clock is set by (\S+)\r`, time.Minute)[1]
	if d, err := time.ParseDuration(by); err != nil || d < 729*24*time.Hour || d > 733*24*time.Hour {
		t.Errorf("the clock is set by %s: %v", by, err)
	}
	m.login()
	shown := m.shell("show clock")
	found := regexp.MustCompile(`(\d\d:\d\d:\d\d)\S* \S+ (\w{3} \w{3} +\d+ \d{4})`).FindStringSubmatch(shown)
	if found == nil {
		t.Fatalf("show clock: %s", shown)
	}
	now, err := time.Parse("15:04:05 Mon Jan 2 2006", found[1]+" "+found[2])
	if d := time.Since(now); err != nil || d < -2*time.Second || d > 5*time.Second {
		t.Errorf("the machine's clock is %s, %v behind: %v", shown, d, err)
	}
	if err := reaches("192.168.10.1:2022"); err != nil {
		t.Errorf("SSH after the clock was set: %v", err)
	}
	m.press()
	m.waitOff(time.Minute)
}
