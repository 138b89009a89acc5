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

// A machine without answers asks for them at the console, and tries the network of each: an address of another host, a gateway that is not there, a
// name server that does not serve.
func TestMachineAsks(t *testing.T) {
	m := newVM(t)
	wires(t)
	m.powerOn()
	m.expect(`imeproxy: ready`, 2*time.Minute)
	m.send("\r")
	m.expect(`not installed yet`, 20*time.Second)
	for _, d := range [][2]string{
		{"Host name", "edge-a"},
		{"Domain", "a.example"},
		{"Network card", "eth0 inside 192.168.10.30/24"},
		{"Network card", ""},
		{"192.168.10.30 on eth0 belongs to another host", "halt"},
	} {
		m.expect(`(?s)`+d[0]+`.*: $`, 20*time.Second)
		m.send(d[1] + "\r")
	}
	m.expect(`The installation halts. Nothing was changed`, 20*time.Second)
	m.expect(`Press RETURN`, 20*time.Second)
	m.send("\r")
	for _, d := range [][2]string{
		{"Host name", "help"},
		{"without its domain", "edge-a"},
		{"Domain", "a.example"},
		{"Network card", "eth0 inside 192.168.10.30/24"},
		{"Network card", ""},
		{"belongs to another host", "help"},
		{"review goes back", "review"},
		{"Network card", "eth0 inside 192.168.10.1/24"},
		{"Network card", "eth1 outside 209.165.200.225/27"},
		{"Network card", ""},
		{"Gateway", "10.0.0.1"},
		{"10.0.0.1 is in no network", "ignore"},
		{"Name servers", "back"},
		{"Gateway", "209.165.200.253"},
		{"209.165.200.253 does not answer on eth1", "retry"},
		{"209.165.200.253 does not answer on eth1", "ignore"},
		{"Name servers", "back"},
		{"Gateway", "209.165.200.254"},
		{"Name servers", "192.168.10.30"},
		{"name server 192.168.10.30 does not answer", "ignore"},
		{"Time servers", "none"},
		{"Time zone", ""},
		{"Name of the administrator", "admin"},
		{"Password of the administrator", "Correct-Horse-7"},
		{"once more", "Correct-Horse-7"},
		{"Security password", "Battery_Staple_9"},
		{"once more", "Battery_Staple_9"},
		{"Organization", ""},
		{`Are they right\?`, "yes"},
	} {
		m.expect(`(?s)`+d[0]+`.*: $`, 20*time.Second)
		m.send(d[1] + "\r")
	}
	m.expect(`was installed from its answers`, 30*time.Second)
	m.expect(`imeproxy: ready`, time.Minute)
	if strings.Contains(m.console(), "Correct-Horse") {
		t.Error("the console shows a password")
	}
	if err := reaches("192.168.10.1:2022"); err != nil {
		t.Errorf("SSH: %v", err)
	}
	m.login()
	if out := m.shell("show running-config"); !strings.Contains(out, "hostname edge-a") {
		t.Error(out)
	}
	log := m.shell("file view install install.log")
	for _, want := range []string{"network: 192.168.10.30 on eth0 belongs to another host", "network: halt was chosen", "network: retry was chosen", "network: the name server 192.168.10.30 does not answer", "network: ignore was chosen"} {
		if !strings.Contains(log, want) {
			t.Errorf("the install log lacks %q: %s", want, log)
		}
	}
}

// Nobody sits at a machine that is installed from a file: it does not take the address of another host.
func TestMachineTakesNobodysAddress(t *testing.T) {
	m := newVM(t)
	wires(t)
	m.args = []string{"-drive", "if=none,id=answers,format=raw,readonly=on,file=" + answerDisk(t, strings.Replace(answers, "192.168.10.1/24", "192.168.10.30/24", 1)), "-device", "virtio-blk-pci,drive=answers"}
	m.powerOn()
	m.expect(`192.168.10.30 on eth0 belongs to another host, [0-9a-f:]+(?s).*This machine was not installed`, 2*time.Minute)
	m.expect(`imeproxy: ready`, time.Minute)
	m.send("\r")
	m.expect(`not installed yet(?s).*Host name`, 20*time.Second)
	if text := m.console(); strings.Contains(text, "was installed from its answers") {
		t.Error("it was installed")
	}
}
