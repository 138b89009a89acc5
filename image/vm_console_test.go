package image

import (
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Somebody has lost both passwords. The console lets nobody in without them; whoever starts the machine anew and types the word in time
// resets them, while nothing of the machine is reached from its networks, and all else is as it was.
func TestMachineRecovery(t *testing.T) {
	m := newVM(t)
	wires(t)
	m.args = []string{"-drive", "if=none,id=answers,format=raw,readonly=on,file=" + answerDisk(t, answers), "-device", "virtio-blk-pci,drive=answers"}
	m.powerOn()
	m.expect(`imeproxy: ready`, 2*time.Minute)
	begin := time.Now()
	m.send("\r")
	for range 3 {
		m.expect(`Username: $`, 20*time.Second)
		m.send("admin\r")
		m.expect(`Password: $`, 20*time.Second)
		m.send("Forgotten-77\r")
	}
	m.expect(`access denied(?s).*Press RETURN`, 20*time.Second)
	m.login()
	m.shell("configure terminal")
	m.shell("banner motd Kept")
	m.shell("end")
	before := m.shell("show running-config")
	m.shell("write memory")
	m.send("exit\r")
	m.expect(`Press RETURN to get started`, 20*time.Second)
	time.Sleep(time.Until(begin.Add(11 * time.Second))) // the time itself is what is tried
	m.send("recover\r")
	m.expect(`ten seconds after the start are over`, 20*time.Second)
	m.press()
	m.waitOff(time.Minute)

	m.powerOn()
	m.expect(`type recover within ten seconds`, 2*time.Minute)
	m.send("recover\r")
	m.expect(`Your choice: $`, time.Minute)
	if err := reaches("192.168.10.1:2022"); err == nil {
		t.Error("SSH answers while passwords are reset")
	}
	if out, err := exec.Command("ping", "-c", "2", "-W", "1", "192.168.10.1").CombinedOutput(); err == nil {
		t.Errorf("the machine answers from its network while passwords are reset: %s", out)
	}
	for _, d := range [][2]string{
		{"", "a"},
		{`New password`, "qwertyuiop"},
		{`% The password must have[^\n]*\n[^\n]*New password[^\n]*: $`, "New-Secret-77"},
		{`once more: $`, "New-Secret-77"},
		{`is reset: administrator admin(?s).*choice: $`, "s"},
		{`New password[^\n]*: $`, "Other-Secret-88"},
		{`once more: $`, "Other-Secret-88"},
		{`is reset: security password(?s).*choice: $`, "q"},
	} {
		m.expect(d[0], 20*time.Second)
		m.send(d[1] + "\r")
	}
	m.expect(`the machine restarts`, time.Minute)
	m.expect(`imeproxy: ready`, 2*time.Minute)
	if err := reaches("192.168.10.1:2022"); err != nil {
		t.Errorf("SSH after the recovery: %v", err)
	}
	m.logInAs("New-Secret-77", "Other-Secret-88")
	if after := m.shell("show running-config"); after != before {
		t.Errorf("the configuration was\n%s\nand is\n%s", before, after)
	}
	if out := m.shell("file view install system-history.log"); !strings.Contains(out, "root: Password Recovery: administrator admin Success") {
		t.Errorf("the history: %s", out)
	}
	if strings.Contains(m.console(), "Secret") {
		t.Error("the console shows a new password")
	}
	m.send("utils system shutdown noconfirm\r")
	m.waitOff(time.Minute)
	text := m.file("/log/system-history.log")
	for _, want := range []string{"root: Password Recovery Start", "root: Password Recovery: security password Success", "admin: Shutdown ", "Product Name - imeproxy"} {
		if !strings.Contains(text, want) {
			t.Errorf("the history lacks %q:\n%s", want, text)
		}
	}
}
