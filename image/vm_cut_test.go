package image

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"

	"imeproxy/image/disk"
)

var (
	vmCuts = flag.Int("vm-cuts", 4, "how often the power is cut while something is written")
	vmBIOS = flag.Bool("vm-bios", false, "cut the power of a machine with a BIOS")
)

// espStart is where the ESP begins on the disk.
const espStart = 1 << 20

// A power cut while a configuration is saved or an upgrade is written leaves the former or the new one, and a machine that starts. What
// the disk had in its cache is lost, or a part of it. What the machine has said to be done stays.
func TestMachinePowerCuts(t *testing.T) {
	if *vmNext == "" {
		t.Skip("needs -vm-next: make test-image")
	}
	m := newVM(t)
	wires(t)
	m.bios = *vmBIOS
	m.args = []string{"-drive", "if=none,id=answers,format=raw,readonly=on,file=" + answerDisk(t, answers), "-device", "virtio-blk-pci,drive=answers"}
	m.powerOn()
	m.expect(`imeproxy: ready`, 2*time.Minute)
	m.login()
	m.send("utils system shutdown noconfirm\r")
	m.waitOff(time.Minute)
	m.store(map[string]string{"next.upgrade": *vmNext})
	c := &cuts{vm: m, disk: newLossyDisk(t, m.disk, m.dir), saved: "none"}
	m.nbd = c.disk.path
	var err error
	if c.first, err = disk.ReadSlot(c.disk.file, espStart, 0); err != nil {
		t.Fatal(err)
	}
	c.next = systemOf(t, *vmNext)
	c.start()
	c.counted()
	for i := range *vmCuts {
		c.whileSaving(fmt.Sprintf("notice-%d", i))
		c.whileUpgrading()
	}
	t.Logf("%d power cuts: %d sectors were in the disk's cache, %d of them are lost; the configuration was the new one %d times, the upgrade was there %d times",
		2**vmCuts, c.cached, c.lost, c.newSaved, c.newWritten)
	m.written("next.upgrade")
	m.send("utils system switch-version noconfirm\r")
	m.expect(`this system is healthy and stays`, 3*time.Minute)
}

// cuts counts what power cuts leave.
type cuts struct {
	*vm
	disk                 *lossyDisk
	first, next          []byte // systems
	saved                string // notice of the configuration that is stored
	cached, lost         int
	newSaved, newWritten int
	save, upgrade        int // requests to write that each of them takes
}

func (c *cuts) start() {
	c.t.Helper()
	c.powerOn()
	c.expect(`imeproxy: ready`, 2*time.Minute)
	c.login()
}

// counted does both without a power cut.
func (c *cuts) counted() {
	c.t.Helper()
	before := c.disk.written()
	c.shell("write memory")
	c.save = c.disk.written() - before
	c.written("next.upgrade")
	c.upgrade = c.disk.written() - before - c.save
	c.t.Logf("%d requests to write for write memory, %d for an upgrade", c.save, c.upgrade)
}

// cut types a command and cuts the power after as many writes as chance will have it; writes is how many the command takes. It gives
// what the console has shown since.
func (c *cuts) cut(command string, writes int) (moment int, shown string) {
	c.t.Helper()
	before := len(c.console())
	moment = rand.IntN(writes*5/4 + 1)
	off := c.disk.offAfter(moment)
	c.send(command + "\r")
	select {
	case <-off:
	case <-time.After(5 * time.Second): // it took less this time
	}
	c.kill()
	cached, lost := c.disk.cut(c.t)
	c.cached += cached
	c.lost += lost
	return moment, c.console()[before:]
}

func (c *cuts) whileSaving(notice string) {
	c.t.Helper()
	for _, line := range []string{"configure terminal", "no banner motd", "banner motd " + notice, "end"} {
		c.shell(line)
	}
	moment, shown := c.cut("write memory", c.save)
	c.start()
	out := c.shell("show startup-config")
	switch {
	case regexp.MustCompile("banner motd " + notice + "\r?\n").MatchString(out):
		c.saved = notice
		c.newSaved++
	case strings.Contains(shown, "[OK]"):
		c.t.Errorf("cut %d writes after write memory, which was done: the configuration is the former one", moment)
	case c.saved != "none" && !strings.Contains(out, "banner motd "+c.saved), !strings.Contains(out, "hostname edge-a"):
		c.t.Errorf("cut %d writes after write memory: the configuration is neither the former (%s) nor the new (%s) one:\n%s", moment, c.saved, notice, out)
	}
}

func (c *cuts) whileUpgrading() {
	c.t.Helper()
	moment, shown := c.cut("utils system upgrade initiate disk0:next.upgrade", c.upgrade)
	for slot, want := range [][]byte{c.first, c.next} {
		got, err := disk.ReadSlot(c.disk.file, espStart, slot)
		if err != nil {
			c.t.Fatal(err)
		}
		if !bytes.Equal(got, want) && (slot == 0 || got != nil || strings.Contains(shown, "is written")) {
			c.t.Errorf("cut %d writes after the begin of an upgrade: system %c has %d bytes, not those that it should have", moment, 'A'+slot, len(got))
		}
		if slot == 1 && got != nil {
			c.newWritten++
		}
	}
	c.start()
	if out := c.shell("show version active"); !strings.Contains(out, "(system A)") {
		c.t.Errorf("cut %d writes after the begin of an upgrade: %s", moment, out)
	}
	if out := c.shell("show version inactive"); !strings.Contains(out, "(system B): none") && !strings.Contains(out, "next") {
		c.t.Errorf("cut %d writes after the begin of an upgrade: %s", moment, out)
	}
}
