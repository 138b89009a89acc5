package image

import (
	"bytes"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	vmImage = flag.String("vm", "", "raw `IMAGE` to boot in qemu; without it the tests of the virtual machine are left out")
	vmTime  = flag.Duration("vm-ready", 15*time.Second, "how long the machine may take from power-on to ready")
)

const ovmf = "/usr/share/OVMF/OVMF_"

// vm is a virtual machine under emulation with two network cards, whose other ends are tap0 (inside) and tap1 (outside) of its
// network namespace, and a serial console.
type vm struct {
	t    *testing.T
	dir  string
	disk string
	args []string // of qemu, in addition
	in   []string // what starts qemu in another network namespace
	bios bool     // instead of UEFI
	nbd  string   // socket of its disk, which is m.disk's file without

	cmd    *exec.Cmd
	ended  chan struct{} // closed when qemu has ended
	serial net.Conn

	mu     sync.Mutex // guards what follows
	screen bytes.Buffer
	seen   int // of screen, by expect
	more   chan struct{}
}

// newVM makes a machine with a disk of its own, larger than the image.
func newVM(t *testing.T) *vm {
	t.Helper()
	if *vmImage == "" {
		t.Skip("needs -vm: make test-image")
	}
	m := &vm{t: t, dir: t.TempDir()}
	m.disk = filepath.Join(m.dir, "disk.raw")
	run(t, "cp", "--sparse=always", *vmImage, m.disk)
	if err := os.Truncate(m.disk, 1<<30); err != nil {
		t.Fatal(err)
	}
	run(t, "cp", ovmf+"VARS_4M.fd", filepath.Join(m.dir, "vars.fd"))
	t.Cleanup(func() {
		m.kill()
		if t.Failed() {
			t.Logf("the console:\n%s", m.console())
		}
	})
	return m
}

// powerOn starts it.
func (m *vm) powerOn() {
	m.t.Helper()
	socket := filepath.Join(m.dir, "serial")
	_ = os.Remove(socket)
	file := m.disk
	if m.nbd != "" {
		file = "nbd:unix:" + m.nbd
	}
	args := append(append([]string{}, m.in...), "qemu-system-x86_64")
	args = append(args,
		"-accel", "tcg,thread=multi", "-machine", "q35", "-smp", "2", "-m", "768", "-cpu", "max", "-nodefaults", "-no-user-config", "-display", "none",
		"-chardev", "socket,id=serial,server=on,wait=off,path="+socket, "-serial", "chardev:serial", "-monitor", "unix:"+m.dir+"/monitor,server=on,wait=off",
		"-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no", "-device", "virtio-net-pci,netdev=n0,romfile=,mac=52:54:00:00:00:01",
		"-netdev", "tap,id=n1,ifname=tap1,script=no,downscript=no", "-device", "virtio-net-pci,netdev=n1,romfile=,mac=52:54:00:00:00:02",
		"-drive", "if=none,id=disk,format=raw,cache=writeback,file="+file, "-device", "virtio-blk-pci,drive=disk,bootindex=1")
	if !m.bios {
		args = append(args, "-drive", "if=pflash,format=raw,readonly=on,file="+ovmf+"CODE_4M.fd", "-drive", "if=pflash,format=raw,file="+m.dir+"/vars.fd")
	}
	args = append(args, m.args...)
	m.cmd = exec.Command(args[0], args[1:]...)
	m.cmd.Stderr = os.Stderr
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) { _ = cmd.Wait(); close(ended) }(m.cmd, m.ended)
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var err error
		if m.serial, err = net.Dial("unix", socket); err == nil {
			break
		}
		if time.Now().After(end) {
			m.t.Fatal("qemu offers no serial console: ", err)
		}
	}
	m.mu.Lock()
	m.more = make(chan struct{}, 1)
	m.mu.Unlock()
	go m.read(m.serial)
}

func (m *vm) read(c net.Conn) {
	b := make([]byte, 4096)
	for {
		n, err := c.Read(b)
		m.mu.Lock()
		m.screen.Write(b[:n])
		m.mu.Unlock()
		select {
		case m.more <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// console is all that the console has shown, without what moves the cursor.
func (m *vm) console() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.ReplaceAll(strings.ReplaceAll(m.screen.String(), "\r", ""), "\x1b", "<ESC>")
}

// expect waits until the console shows what fits, after what was expected last, and gives the expression's groups.
func (m *vm) expect(pattern string, limit time.Duration) []string {
	m.t.Helper()
	re := regexp.MustCompile(pattern)
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for {
		m.mu.Lock()
		rest := m.screen.Bytes()[m.seen:]
		if at := re.FindSubmatchIndex(rest); at != nil {
			var groups []string
			for _, g := range re.FindSubmatch(rest) {
				groups = append(groups, string(g))
			}
			m.seen += at[1]
			m.mu.Unlock()
			return groups
		}
		m.mu.Unlock()
		select {
		case <-m.more:
		case <-timeout.C:
			m.t.Fatalf("the console does not show %q within %v", pattern, limit)
		}
	}
}

// send types.
func (m *vm) send(text string) {
	m.t.Helper()
	if _, err := m.serial.Write([]byte(text)); err != nil {
		m.t.Fatal(err)
	}
}

// shell types a command at the prompt and gives what it shows, up to the next prompt.
func (m *vm) shell(command string) string {
	m.t.Helper()
	m.send(command + "\r")
	return strings.ReplaceAll(m.expect(`(?s)`+regexp.QuoteMeta(command)+`(.*?)\n[\w-]+(\([\w-]+\))?# $`, 20*time.Second)[1], "\r", "")
}

// login begins a session of the configuration shell, with the passwords of the answers.
func (m *vm) login() {
	m.t.Helper()
	m.logInAs("Correct-Horse-7", "Battery_Staple_9")
}

func (m *vm) logInAs(password, security string) {
	m.t.Helper()
	m.send("\r")
	for _, d := range [][2]string{{`Username: $`, "admin"}, {`Password: $`, password}, {`> $`, "enable"}, {`Password: $`, security}} {
		m.expect(d[0], 20*time.Second)
		m.send(d[1] + "\r")
	}
	m.expect(`# $`, 20*time.Second)
	m.shell("terminal pager 0")
}

// waitOff waits until the machine has switched itself off.
func (m *vm) waitOff(limit time.Duration) {
	m.t.Helper()
	select {
	case <-m.ended:
	case <-time.After(limit):
		m.t.Fatalf("the machine is not off after %v", limit)
	}
	_ = m.serial.Close()
	m.cmd = nil
}

// kill is a power cut.
func (m *vm) kill() {
	if m.cmd != nil {
		_ = m.cmd.Process.Kill()
		<-m.ended
		_ = m.serial.Close()
		m.cmd = nil
	}
}

// press presses the machine's power button.
func (m *vm) press() { m.t.Helper(); m.monitor("system_powerdown") }

// monitor gives qemu a command.
func (m *vm) monitor(command string) {
	m.t.Helper()
	c, err := net.Dial("unix", m.dir+"/monitor")
	if err != nil {
		m.t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(command + "\nnonsense\n")); err != nil {
		m.t.Fatal(err)
	}
	// The monitor forgets what it has not read when the connection ends.
	var said []byte
	for b := make([]byte, 256); !bytes.Contains(said, []byte("unknown command")); {
		n, err := c.Read(b)
		if err != nil {
			m.t.Fatalf("the monitor of qemu: %v: %s", err, said)
		}
		said = append(said, b[:n]...)
	}
}

// wires makes the other ends of the cards.
func wires(t *testing.T) {
	t.Helper()
	for _, c := range []string{
		"link set lo up", "tuntap add tap0 mode tap", "tuntap add tap1 mode tap", "addr add 192.168.10.30/24 dev tap0",
		"addr add 209.165.200.254/27 dev tap1", "link set tap0 up", "link set tap1 up",
	} {
		run(t, "ip", strings.Fields(c)...)
	}
	t.Cleanup(func() {
		_ = exec.Command("ip", "link", "del", "tap0").Run()
		_ = exec.Command("ip", "link", "del", "tap1").Run()
	})
}

// openPorts scans all TCP ports of an address from one of the cards' other ends.
func openPorts(t *testing.T, device, address string) []string {
	t.Helper()
	out := run(t, "nmap", "-n", "-Pn", "-sS", "-p-", "-e", device, "--max-retries", "1", "--min-rate", "4000", "-oG", "-", address)
	var open []string
	for _, m := range regexp.MustCompile(`(\d+)/open/`).FindAllStringSubmatch(out, -1) {
		open = append(open, m[1])
	}
	return open
}

// reaches says whether a TCP connection to an address comes about.
func reaches(address string) error {
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

const answers = `host-name: edge-a
domain: a.example
time-zone: Europe/Vienna
interface: eth0 inside 192.168.10.1/24
interface: eth1 outside 209.165.200.225/27 mtu 1400
gateway: 209.165.200.254
dns: 192.168.10.30
ntp: none
administrator: admin
administrator-password: Correct-Horse-7
security-password: Battery_Staple_9
`

// answerDisk makes a disk with an answer file.
func answerDisk(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	disk, file := filepath.Join(dir, "answers.img"), filepath.Join(dir, "answers")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "mformat", "-C", "-f", "1440", "-i", disk, "::")
	run(t, "mcopy", "-i", disk, file, "::imeproxy-answers.txt")
	return disk
}

// What an operator sees who makes a machine of the image with answers on a second disk: it is ready in seconds, is what the answers
// say, keeps what is typed, shows no port but those configured, and stops and starts when told to.
func TestMachine(t *testing.T) {
	m := newVM(t)
	wires(t)
	m.args = []string{"-drive", "if=none,id=answers,format=raw,readonly=on,file=" + answerDisk(t, answers), "-device", "virtio-blk-pci,drive=answers"}
	begin := time.Now()
	m.powerOn()
	m.expect(`imeproxy: ready`, 2*time.Minute)
	took := time.Since(begin)
	t.Logf("from power-on to ready: %.1f s", took.Seconds())
	if took > *vmTime {
		t.Errorf("from power-on to ready: %v, must be below %v", took, *vmTime)
	}
	m.login()
	if v := m.shell("show version"); !regexp.MustCompile(`imeproxy Version \d`).MatchString(v) {
		t.Errorf("show version: %s", v)
	}
	if out := m.shell("show interface"); !strings.Contains(out, "MTU 1400") {
		t.Errorf("the MTU of the answers: %s", out)
	}
	m.shell("configure terminal")
	if out := m.shell("banner motd Authorized use only"); strings.Contains(out, "ERROR") {
		t.Error(out)
	}
	m.shell("end")
	if out := m.shell("write memory"); !strings.Contains(out, "[OK]") {
		t.Errorf("write memory: %s", out)
	}
	t.Run("ports", func(t *testing.T) {
		if open := openPorts(t, "tap0", "192.168.10.1"); strings.Join(open, " ") != "2022" {
			t.Errorf("open to the inside: %v, must be SSH alone", open)
		}
		if open := openPorts(t, "tap1", "209.165.200.225"); len(open) != 0 {
			t.Errorf("open to the outside: %v", open)
		}
	})
	m.send("reload noconfirm\r")
	m.expect(`imeproxy: ready`, time.Minute)
	if err := reaches("192.168.10.1:2022"); err != nil {
		t.Errorf("SSH after reload: %v", err)
	}
	m.login()
	m.send("utils system shutdown\r")
	m.expect(`Proceed\? \[yes/no\]: `, 20*time.Second)
	m.send("yes\r")
	m.expect(`switched off`, time.Minute)
	m.waitOff(time.Minute)

	m.powerOn()
	m.expect(`imeproxy: ready`, 2*time.Minute)
	m.login()
	if out := m.shell("show running-config"); !strings.Contains(out, "192.168.10.1 255.255.255.0") || !strings.Contains(out, "banner motd Authorized use only") {
		t.Errorf("what was saved is gone: %s", out)
	}
	m.send("utils system restart noconfirm\r")
	m.expect(`imeproxy: ready`, 2*time.Minute)
	if err := reaches("192.168.10.1:2022"); err != nil {
		t.Errorf("SSH after a restart: %v", err)
	}
	m.press()
	m.waitOff(time.Minute)
	checkState(t, m)
}

// checkState looks at the state partition of a machine that is off.
func checkState(t *testing.T, m *vm) {
	t.Helper()
	part := filepath.Join(m.dir, "state")
	run(t, "dd", "if="+m.disk, "of="+part, "bs=1M", "skip=129", "conv=sparse", "status=none")
	if out, err := exec.Command("e2fsck", "-fn", part).CombinedOutput(); err != nil {
		t.Errorf("the state partition is not clean: %v\n%s", err, out)
	}
	out := run(t, "dumpe2fs", "-h", part)
	var blocks int
	if f := regexp.MustCompile(`Block count: +(\d+)`).FindStringSubmatch(out); f == nil {
		t.Fatal(out)
	} else if _, err := fmt.Sscan(f[1], &blocks); err != nil || blocks < 220000 {
		t.Errorf("the state partition has %d blocks of 4 KiB on a disk of 1 GiB: %v", blocks, err)
	}
	history := m.file("/log/system-history.log")
	if strings.Count(history, "root: Boot ") != 3 || strings.Count(history, ": Shutdown ") != 2 {
		t.Errorf("the history of three starts, a restart and two ends:\n%s", history)
	}
}

// file reads a file of the state partition of a machine that is off.
func (m *vm) file(name string) string {
	m.t.Helper()
	part := filepath.Join(m.dir, "state")
	run(m.t, "dd", "if="+m.disk, "of="+part, "bs=1M", "skip=129", "conv=sparse", "status=none")
	return run(m.t, "debugfs", "-R", "cat "+name, part)
}
