package image

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var (
	vmNext   = flag.String("vm-next", "", "upgrade `FILE` of another build, signed with the image's key")
	vmBroken = flag.String("vm-broken", "", "upgrade `FILE` of a build whose kernel finds no first process")
)

// store puts files into disk0: of a machine that is off.
func (m *vm) store(files map[string]string) {
	m.t.Helper()
	part := filepath.Join(m.dir, "state")
	run(m.t, "dd", "if="+m.disk, "of="+part, "bs=1M", "skip=129", "conv=sparse", "status=none")
	for name, from := range files {
		if out, err := exec.Command("debugfs", "-w", "-R", "write "+from+" /imeproxy/"+name, part).CombinedOutput(); err != nil {
			m.t.Fatalf("debugfs: %v: %s", err, out)
		}
	}
	run(m.t, "dd", "if="+part, "of="+m.disk, "bs=1M", "seek=129", "conv=notrunc,sparse", "status=none")
}

// written waits until the upgrade of a file is in its slot.
func (m *vm) written(name string) {
	m.t.Helper()
	if out := m.shell("utils system upgrade initiate disk0:" + name); !strings.Contains(out, "is being written") {
		m.t.Fatalf("initiate: %s", out)
	}
	m.expect(`upgrade to .*, is written`, time.Minute) // nothing is typed meanwhile, which it would come in between of
	m.send("\r")
	m.expect(`# $`, 20*time.Second)
	if out := m.shell("utils system upgrade status"); !strings.Contains(out, "is written: utils system switch-version starts it") {
		m.t.Fatalf("status: %s", out)
	}
}

// cancelled begins an upgrade while the disk takes 2 MiB/s, and ends it.
func (m *vm) cancelled(name string) {
	m.t.Helper()
	m.monitor("block_set_io_throttle disk 0 0 2097152 0 0 0")
	if out := m.shell("utils system upgrade initiate disk0:" + name); !strings.Contains(out, "is being written") {
		m.t.Fatalf("initiate: %s", out)
	}
	m.send("utils system upgrade cancel\r")
	m.expect(`the upgrade to .*, asked for by admin from the console, was cancelled by admin`, time.Minute)
	m.monitor("block_set_io_throttle disk 0 0 0 0 0 0")
	m.send("\r")
	m.expect(`# $`, 20*time.Second)
	if out := m.shell("utils system upgrade status"); !strings.Contains(out, "was cancelled by admin from the console: its slot is empty") {
		m.t.Errorf("status of a cancelled upgrade: %s", out)
	}
	if out := m.shell("show version inactive"); !strings.Contains(out, "(system B): none") {
		m.t.Errorf("the slot of a cancelled upgrade: %s", out)
	}
	if out := m.shell("utils system switch-version noconfirm"); strings.Contains(out, "restarts") {
		m.t.Errorf("a switch to an empty slot: %s", out)
	}
}

// A machine takes signed upgrades alone, comes back from one that does not start, and stays with one that does.
func TestMachineUpgrades(t *testing.T) {
	if *vmNext == "" || *vmBroken == "" {
		t.Skip("needs -vm-next and -vm-broken: make test-image")
	}
	for name, bios := range map[string]bool{"UEFI": false, "BIOS": true} {
		t.Run(name, func(t *testing.T) {
			m := newVM(t)
			m.bios = bios
			upgradeTwice(t, m)
		})
	}
}

func upgradeTwice(t *testing.T, m *vm) {
	wires(t)
	m.args = []string{"-drive", "if=none,id=answers,format=raw,readonly=on,file=" + answerDisk(t, answers), "-device", "virtio-blk-pci,drive=answers"}
	m.powerOn()
	m.expect(`imeproxy: ready`, 2*time.Minute)
	m.login()
	m.send("utils system shutdown noconfirm\r")
	m.waitOff(time.Minute)
	forged := filepath.Join(m.dir, "forged")
	text, err := os.ReadFile(*vmNext)
	if err != nil {
		t.Fatal(err)
	}
	text[40] ^= 1 // in what is signed
	if err := os.WriteFile(forged, text, 0o600); err != nil {
		t.Fatal(err)
	}
	m.store(map[string]string{"next.upgrade": *vmNext, "broken.upgrade": *vmBroken, "forged.upgrade": forged})

	m.powerOn()
	m.expect(`imeproxy: ready`, 2*time.Minute)
	m.login()
	first := m.shell("show version active")
	if out := m.shell("show version inactive"); !strings.Contains(out, "(system B): none") {
		t.Errorf("the other slot of a new machine: %s", out)
	}
	if out := m.shell("utils system upgrade initiate disk0:forged.upgrade"); !strings.Contains(out, "signature is missing or wrong") {
		t.Errorf("a forged upgrade: %s", out)
	}
	m.written("broken.upgrade")
	m.send("utils system switch-version noconfirm\r")
	m.expect(`the machine restarts`, time.Minute)
	m.expect(`was not healthy: this is the former system again`, 3*time.Minute)
	m.expect(`imeproxy: ready`, time.Minute)
	m.login()
	if out := m.shell("show version active"); out != first {
		t.Errorf("after a system that does not start: %s, was %s", out, first)
	}
	m.cancelled("next.upgrade")
	m.written("next.upgrade")
	m.send("utils system switch-version noconfirm\r")
	m.expect(`the machine restarts`, time.Minute)
	m.expect(`this system is healthy and stays`, 3*time.Minute)
	if err := reaches("192.168.10.1:2022"); err != nil {
		t.Errorf("SSH of the new system: %v", err)
	}
	m.kill() // what was decided is on the disk
	m.powerOn()
	m.expect(`imeproxy: ready`, 2*time.Minute)
	m.login()
	if out := m.shell("show version active"); !regexp.MustCompile(`\(system B\): imeproxy .*next`).MatchString(out) {
		t.Errorf("the new system is not the one that starts: %s", out)
	}
	if out := m.shell("show running-config"); !strings.Contains(out, "hostname edge-a") {
		t.Errorf("the configuration under the new system: %s", out)
	}
}
