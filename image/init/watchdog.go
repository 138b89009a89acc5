package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// A watchdog that is not kicked for watchdogLimit restarts the machine.
	watchdogLimit = 30 * time.Second
	kickEvery     = 10 * time.Second
)

// startWatchdogs keeps the machine's watchdogs from restarting it, as long as this process lives: the kernel's own (softdog), which
// sees that this process hangs, and those of the hardware, which see that the kernel does. Call it as soon as the drivers are there,
// since what hangs before is seen by none.
func (m *machine) startWatchdogs() {
	var kicks []func()
	devices, _ := filepath.Glob("/dev/watchdog[0-9]*")
	for _, name := range devices {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			m.say("%v", err)
			continue
		}
		// A driver that knows no other time keeps its own.
		_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.WDIOC_SETTIMEOUT, int(watchdogLimit/time.Second))
		kicks = append(kicks, func() { _, _ = f.WriteString("\x00") })
	}
	card, err := openESB("/sys/bus/pci/devices")
	if err != nil {
		m.say("watchdog card: %v", err)
	} else if card != nil {
		card.start(watchdogLimit)
		kicks = append(kicks, card.kick)
	}
	go func() {
		for ; ; time.Sleep(kickEvery) {
			for _, kick := range kicks {
				kick()
			}
		}
	}()
}

// esb is the watchdog card that KVM offers (Intel 6300ESB), for which Debian's cloud kernel has no driver. Source: Intel 6300ESB I/O
// Controller Hub datasheet.
type esb struct {
	config    *os.File
	registers []byte
}

const (
	esbID = "0x8086 0x25ab"
	// Offsets in the registers: two stages, of which the second one restarts the machine, and the register that sets both to their begin.
	esbStage1, esbStage2, esbReload = 0x00, 0x04, 0x0c
	// Offsets in the configuration space.
	esbConfig, esbLock = 0x60, 0x68
)

// openESB finds the card below a folder of PCI devices; nil when there is none.
func openESB(devices string) (*esb, error) {
	all, _ := filepath.Glob(devices + "/*")
	for _, dir := range all {
		vendor, _ := os.ReadFile(dir + "/vendor")
		device, _ := os.ReadFile(dir + "/device")
		if strings.TrimSpace(string(vendor))+" "+strings.TrimSpace(string(device)) != esbID {
			continue
		}
		if err := os.WriteFile(dir+"/enable", []byte("1"), 0); err != nil {
			return nil, err
		}
		config, err := os.OpenFile(dir+"/config", os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		base := make([]byte, 4)
		if _, err := config.ReadAt(base, 0x10); err != nil {
			return nil, errors.Join(err, config.Close())
		}
		memory, err := os.OpenFile(dir+"/resource0", os.O_RDWR, 0)
		if err != nil {
			return nil, errors.Join(err, config.Close())
		}
		page, err := unix.Mmap(int(memory.Fd()), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		_ = memory.Close()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", dir, err), config.Close())
		}
		// Its 16 bytes lie anywhere in the page that is mapped.
		at := int(binary.LittleEndian.Uint32(base)) & (os.Getpagesize() - 1) &^ 0xf
		return &esb{config: config, registers: page[at : at+16]}, nil
	}
	return nil, nil
}

// start lets it run: half of the time is the first stage's.
func (e *esb) start(limit time.Duration) {
	_, _ = e.config.WriteAt([]byte{0x03, 0x00}, esbConfig) // no interrupt, restarts, counts in milliseconds, almost
	_, _ = e.config.WriteAt([]byte{0x00}, esbLock)
	ticks := uint32(limit/time.Second) << 9
	for _, stage := range []int{esbStage1, esbStage2} {
		e.unlock()
		store32(&e.registers[stage], ticks)
	}
	e.kick()
	_, _ = e.config.WriteAt([]byte{0x02}, esbLock) // runs
}

func (e *esb) kick() {
	e.unlock()
	store16(&e.registers[esbReload], 0x0100)
}

// unlock makes the card take the next write.
func (e *esb) unlock() {
	store16(&e.registers[esbReload], 0x80)
	store16(&e.registers[esbReload], 0x86)
}

// store16 writes to a device: neither left out nor joined with another one.
//
//go:noinline
func store16(p *byte, v uint16) { *(*uint16)(unsafe.Pointer(p)) = v }

//go:noinline
func store32(p *byte, v uint32) { *(*uint32)(unsafe.Pointer(p)) = v }
