package image

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"imeproxy/testbed"
)

var vmDebian = flag.String("vm-debian", "", "`FOLDER` with root.ext4, vmlinuz and initrd of a Debian that testdata/debian has made")

// do runs a command in the root shell of the machine's console, which must succeed, and gives what it shows.
func (m *vm) do(command string, limit time.Duration) string {
	m.t.Helper()
	m.send(command + "; echo status=$?\r")
	m.expect(regexp.QuoteMeta("echo status=$?")+`\r*\n`, 10*time.Second)
	out := m.expect(`(?s)^(.*)status=(\d+)\r*\n.*root# $`, limit)
	if out[2] != "0" {
		m.t.Fatalf("%s: status %s:\n%s", command, out[2], out[1])
	}
	return strings.ReplaceAll(out[1], "\r", "")
}

// carry makes a disk with files, for a machine that mounts it.
func carry(t *testing.T, files map[string]string) string {
	t.Helper()
	dir, disk := t.TempDir(), filepath.Join(t.TempDir(), "files.ext4")
	for name, from := range files {
		run(t, "cp", from, filepath.Join(dir, name))
	}
	run(t, "truncate", "-s", "64M", disk)
	run(t, "mkfs.ext4", "-q", "-F", "-d", dir, disk)
	return disk
}

// The package on a Debian machine that has booted with systemd, by the steps of docs/install.md: installed, configured, started in its sandbox,
// used for calls, reloaded, killed, upgraded, started again with the machine, and removed.
func TestMachineDebian(t *testing.T) {
	if *vmDebian == "" {
		t.Skip("needs -vm-debian: make test-image")
	}
	if err := testbed.BuildBinary(); err != nil {
		t.Fatal(err)
	}
	lab := testbed.Start(t, testbed.Options{A: testbed.Side{Edge: testbed.EdgeMachine}})
	dir := t.TempDir()
	cfg, pass := filepath.Join(dir, "imeproxy.cfg"), filepath.Join(dir, "pass")
	text := strings.NewReplacer("interface ein", "interface eth0", "interface eout", "interface eth1").Replace(lab.A.DefaultConfig(t))
	for name, content := range map[string]string{cfg: text, pass: testbed.P12Pass + "\n"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files := carry(t, map[string]string{
		"imeproxy.deb": buildDeb(t, testbed.Binary()), "imeproxy.cfg": cfg, "pass": pass, "identity.p12": lab.A.P12File, "ca.pem": lab.CA.File,
	})
	m := &vm{t: t, dir: t.TempDir(), bios: true}
	m.disk = filepath.Join(m.dir, "disk.raw")
	run(t, "cp", "--sparse=always", filepath.Join(*vmDebian, "root.ext4"), m.disk)
	m.in = []string{"ip", "netns", "exec", lab.A.EdgeHost.NS}
	m.args = []string{
		"-drive", "if=none,id=files,format=raw,readonly=on,file=" + files, "-device", "virtio-blk-pci,drive=files",
		"-kernel", filepath.Join(*vmDebian, "vmlinuz"), "-initrd", filepath.Join(*vmDebian, "initrd"), "-append", "root=/dev/vda rw console=ttyS0 quiet net.ifnames=0",
	}
	t.Cleanup(func() {
		m.kill()
		if t.Failed() {
			t.Logf("the console:\n%s", m.console())
		}
	})
	m.powerOn()
	m.expect(`root# $`, 3*time.Minute)
	m.do("mount -o ro /dev/vdb /mnt", time.Minute)

	m.do("dpkg -i /mnt/imeproxy.deb", 2*time.Minute)
	if out := m.do("systemctl is-enabled imeproxy || true; systemctl is-active imeproxy || true", time.Minute); !strings.Contains(out, "disabled") || !strings.Contains(out, "inactive") {
		t.Errorf("after the installation the service is %q", out)
	}
	m.do("install -m 600 -o imeproxy -g imeproxy /mnt/imeproxy.cfg /etc/imeproxy/imeproxy.cfg", time.Minute)
	m.do("imeproxy crypto import --trustpoint local_ent --pkcs12 /mnt/identity.p12 --passphrase-file /mnt/pass", time.Minute)
	m.do("imeproxy crypto authenticate --trustpoint lab_ca --pem /mnt/ca.pem", time.Minute)
	m.do("imeproxy check /etc/imeproxy/imeproxy.cfg", time.Minute)
	m.do("systemctl enable --now imeproxy", time.Minute)
	m.running("")
	job(t, lab, "under systemd")

	before := m.do("systemctl show -p MainPID --value imeproxy", time.Minute)
	m.do("systemctl reload imeproxy", time.Minute)
	m.running(before)
	m.do("cp -p /etc/imeproxy/imeproxy.cfg /root/; echo nonsense >>/etc/imeproxy/imeproxy.cfg", time.Minute)
	if out := m.do("! systemctl reload imeproxy && systemctl status --no-pager imeproxy", time.Minute); !strings.Contains(out, "nonsense") {
		t.Errorf("the reload of a file with a mistake does not tell of it:\n%s", out)
	}
	m.running(before)
	m.do("cp -p /root/imeproxy.cfg /etc/imeproxy/", time.Minute)
	m.do("dpkg -i /mnt/imeproxy.deb", 2*time.Minute)
	m.running(before)
	m.do("kill -KILL $(systemctl show -p MainPID --value imeproxy)", time.Minute)
	m.do("until [ \"$(systemctl show -p MainPID --value imeproxy)\" != "+strings.TrimSpace(before)+" ] && systemctl -q is-active imeproxy; do sleep 0.1; done", time.Minute)
	m.running("")
	job(t, lab, "after a kill")

	m.do("kill -STOP $(systemctl show -p MainPID --value imeproxy)", time.Minute)
	m.do("until journalctl -u imeproxy -q --no-pager | grep -q 'Watchdog timeout' && systemctl -q is-active imeproxy; do sleep 0.1; done", 2*time.Minute)
	m.running("")

	m.send("systemctl poweroff\r")
	m.waitOff(2 * time.Minute)
	m.powerOn()
	m.expect(`root# $`, 3*time.Minute)
	m.do("until systemctl -q is-active imeproxy; do sleep 0.1; done", time.Minute)
	m.running("")
	job(t, lab, "after a restart of the machine")

	m.do("dpkg -r imeproxy", 2*time.Minute)
	if out := m.do("systemctl is-active imeproxy || true; nft list tables; ip -4 -br addr show eth0; ip -4 -br addr show eth1; pgrep -u imeproxy || true", time.Minute); !strings.Contains(out, "inactive") ||
		strings.Contains(out, "imeproxy") || strings.Contains(out, lab.A.InsideIP.String()) || strings.Contains(out, lab.A.OutsideIP.String()) {
		t.Errorf("the removal leaves\n%s", out)
	}
	m.do("test -s /etc/imeproxy/imeproxy.cfg && test ! -e /usr/bin/imeproxy", time.Minute)
}

// running demands that the service serves, is the process that it was (where that is given) and lives in its sandbox.
func (m *vm) running(pid string) {
	m.t.Helper()
	m.do("imeproxy shell -c 'show version'", time.Minute) // systemd has waited until it serves
	now := m.do("systemctl show -p MainPID --value imeproxy", time.Minute)
	if pid != "" && now != pid {
		m.t.Errorf("the daemon is process %s, was %s", now, pid)
	}
	status := m.do("cat /proc/"+strings.TrimSpace(now)+"/status", time.Minute)
	for _, want := range []string{`(?m)^CapBnd:\s*0000000000003000$`, `(?m)^CapEff:\s*0000000000003000$`, `(?m)^NoNewPrivs:\s*1$`, `(?m)^Seccomp:\s*2$`} {
		if !regexp.MustCompile(want).MatchString(status) {
			m.t.Errorf("no %s in the status of the daemon:\n%s", want, status)
		}
	}
	if out := m.do("imeproxy shell -c 'show media-termination'", time.Minute); !strings.Contains(out, "Worker nice: -15") {
		m.t.Errorf("media has no place before other programs:\n%s", out)
	}
	if out := m.do(`journalctl -u imeproxy -o cat --no-pager -q | grep '"level":"ERROR"' || true`, time.Minute); strings.TrimSpace(out) != "" {
		m.t.Errorf("errors in the journal: %s", out)
	}
}
