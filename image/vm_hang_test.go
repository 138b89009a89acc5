package image

import (
	"bufio"
	endian "encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

var vmMute = flag.String("vm-mute", "", "upgrade `FILE` of a build whose service never becomes ready, and that knows so after 30 s")

// hang stops the kernel on all processors, with interrupts off, as a debugger can: the machine must have been started with
// debugger().
func (m *vm) hang() {
	m.t.Helper()
	for end := time.Now().Add(20 * time.Second); !m.hangIdle(); {
		if time.Now().After(end) {
			m.t.Fatal("the processors are never in the kernel, both of them")
		}
	}
}

// hangIdle does it when all processors are in the kernel, where an idle one waits.
func (m *vm) hangIdle() bool {
	m.t.Helper()
	c, err := net.Dial("unix", m.dir+"/gdb")
	if err != nil {
		m.t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		m.t.Fatal(err)
	}
	g := &gdb{t: m.t, c: c, r: bufio.NewReader(c)}
	var at []uint64
	for _, thread := range []string{"1", "2"} {
		g.ask("Hg" + thread)
		registers, err := hex.DecodeString(g.ask("g"))
		if err != nil || len(registers) < 136 {
			m.t.Fatalf("registers of processor %s: %v", thread, err)
		}
		// Sixteen registers stand before the instruction pointer.
		if a := endian.LittleEndian.Uint64(registers[128:]); a>>63 != 0 {
			at = append(at, a)
		}
	}
	idle := len(at) == 2
	for _, a := range at {
		if !idle {
			break
		}
		if said := g.ask(fmt.Sprintf("M%x,3:faebfe", a)); said != "OK" { // cli; jmp to itself
			m.t.Fatalf("write at %#x: %q", a, said)
		}
	}
	if said := g.ask("D"); said != "OK" {
		m.t.Fatalf("let it go on: %q", said)
	}
	return idle
}

// debugger are the arguments for hang.
func (m *vm) debugger() []string {
	return []string{"-gdb", "unix:" + m.dir + "/gdb,server=on,wait=off"}
}

// gdb speaks the remote protocol of GDB (appendix E of its manual).
type gdb struct {
	t *testing.T
	c net.Conn
	r *bufio.Reader
}

func (g *gdb) ask(what string) string {
	g.t.Helper()
	var sum byte
	for i := range len(what) {
		sum += what[i]
	}
	if _, err := fmt.Fprintf(g.c, "$%s#%02x", what, sum); err != nil {
		g.t.Fatal(err)
	}
	for {
		if _, err := g.r.ReadString('$'); err != nil {
			g.t.Fatal(err)
		}
		answer, err := g.r.ReadString('#')
		if err != nil {
			g.t.Fatal(err)
		}
		if _, err := g.c.Write([]byte("+")); err != nil {
			g.t.Fatal(err)
		}
		// The machine stops when a debugger comes, and says so unasked.
		if !strings.HasPrefix(answer, "T") {
			return strings.TrimSuffix(answer, "#")
		}
	}
}

// A system whose service never becomes ready, and one whose kernel hangs, are left again by themselves.
func TestMachineComesBack(t *testing.T) {
	if *vmNext == "" || *vmMute == "" {
		t.Skip("needs -vm-next and -vm-mute: make test-image")
	}
	m := newVM(t)
	wires(t)
	m.args = append(m.debugger(), "-device", "i6300esb",
		"-drive", "if=none,id=answers,format=raw,readonly=on,file="+answerDisk(t, answers), "-device", "virtio-blk-pci,drive=answers")
	m.powerOn()
	m.expect(`imeproxy: ready`, 2*time.Minute)
	m.login()
	m.send("utils system shutdown noconfirm\r")
	m.waitOff(time.Minute)
	m.store(map[string]string{"next.upgrade": *vmNext, "mute.upgrade": *vmMute})

	m.powerOn()
	m.expect(`imeproxy: ready`, 2*time.Minute)
	m.login()
	first := m.shell("show version active")
	m.written("mute.upgrade")
	m.send("utils system switch-version noconfirm\r")
	m.expect(`the machine restarts`, time.Minute)
	m.expect(`this system is not healthy within 30s`, 2*time.Minute)
	m.expect(`was not healthy: this is the former system again`, 2*time.Minute)
	m.expect(`imeproxy: ready`, time.Minute)
	m.login()
	if out := m.shell("show version active"); out != first {
		t.Errorf("after a system whose service is never ready: %s, was %s", out, first)
	}

	m.written("next.upgrade")
	m.send("utils system switch-version noconfirm\r")
	m.expect(`the machine restarts`, time.Minute)
	m.expect(`imeproxy: ready`, 2*time.Minute)
	m.hang()
	begin := time.Now()
	m.expect(`was not healthy: this is the former system again`, 2*time.Minute)
	t.Logf("from the kernel's hang to the former system: %.1f s", time.Since(begin).Seconds())
	m.expect(`imeproxy: ready`, time.Minute)
	m.login()
	if out := m.shell("show version active"); out != first {
		t.Errorf("after a system whose kernel hangs: %s, was %s", out, first)
	}
	m.send("utils system shutdown noconfirm\r")
	m.waitOff(time.Minute)
	if history := m.file("/log/system-history.log"); strings.Count(history, "Failure") != 2 {
		t.Errorf("the history of two systems that were left:\n%s", history)
	}
}
