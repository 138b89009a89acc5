package main

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf16"

	"golang.org/x/sys/unix"

	"imeproxy/image/disk"
)

const (
	efivars = "/sys/firmware/efi/efivars"
	// The boot loader interface of systemd (systemd.io/BOOT_LOADER_INTERFACE).
	loaderGUID  = "-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
	varSelected = "LoaderEntrySelected" + loaderGUID
	varOneShot  = "LoaderEntryOneShot" + loaderGUID
)

// slots are the two systems on the disk.
type slots struct {
	f       *os.File
	base    int64 // of the ESP
	running int
	bios    bool // the firmware is a BIOS, the loader GRUB
}

func underUEFI() bool {
	_, err := os.Stat("/sys/firmware/efi")
	return err == nil
}

// whichRuns asks systemd's loader, by the variable that it leaves, or GRUB, by what it puts before the kernel's command line.
func whichRuns(bios bool) (slot int, err error) {
	if bios {
		cmdline, err := os.ReadFile("/proc/cmdline")
		if err != nil {
			return 0, err
		}
		return kernelOf(string(cmdline))
	}
	selected, err := readVariable(varSelected)
	if err != nil {
		return 0, fmt.Errorf("which system runs: %w", err)
	}
	for i := range disk.Slots {
		if strings.EqualFold(selected, disk.EntryName(i)) {
			return i, nil
		}
	}
	return 0, fmt.Errorf("the loader has started %q, which is none of the systems", selected)
}

// kernelOf is the slot of the kernel that has a command line.
func kernelOf(cmdline string) (slot int, err error) {
	for _, word := range strings.Fields(cmdline) {
		file, ok := strings.CutPrefix(word, "BOOT_IMAGE=")
		for i := range disk.Slots {
			if ok && strings.EqualFold(file[strings.LastIndex(file, "/")+1:], disk.KernelName(i)) {
				return i, nil
			}
		}
	}
	return 0, fmt.Errorf("the kernel's command line %q names none of the systems", strings.TrimSpace(cmdline))
}

// openSlots finds the disk of the state partition and which system of it runs.
func openSlots() (*slots, error) {
	part := partition("imeproxy-esp")
	if part == "" {
		return nil, errors.New("no disk has a partition imeproxy-esp")
	}
	sys, err := filepath.EvalSymlinks("/sys/class/block/" + part)
	if err != nil {
		return nil, err
	}
	start, err := number(sys + "/start")
	if err != nil {
		return nil, err
	}
	s := &slots{base: int64(start) * disk.SectorSize, running: -1, bios: !underUEFI()}
	if s.running, err = whichRuns(s.bios); err != nil {
		return nil, err
	}
	s.f, err = os.OpenFile("/dev/"+filepath.Base(filepath.Dir(sys)), os.O_RDWR, 0)
	return s, err
}

func (s *slots) close() { _ = s.f.Close() }

func (s *slots) other() int { return 1 - s.running }

// name says which system is in a slot: "" when there is none.
func (s *slots) name(slot int) (string, error) {
	data, err := disk.ReadSlot(s.f, s.base, slot)
	if err != nil || data == nil {
		return "", err
	}
	return systemName(data)
}

// systemName reads the name that a system gives itself.
func systemName(system []byte) (string, error) {
	f, err := pe.NewFile(bytes.NewReader(system))
	if err != nil {
		return "", err
	}
	section := f.Section(".osrel")
	if section == nil {
		return "", errors.New("it does not say what it is")
	}
	text, err := section.Data()
	if err != nil {
		return "", err
	}
	for _, line := range strings.Split(string(text), "\n") {
		if v, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			return strings.Trim(v, `"`), nil
		}
	}
	return "", errors.New("it has no name")
}

// startOnce lets the loader start a system once, at the next start: after that the default has its turn again.
func (s *slots) startOnce(slot int) error {
	if s.bios {
		return disk.StartOnce(s.f, s.base, slot)
	}
	if err := mountVariables(); err != nil {
		return err
	}
	value := binary.LittleEndian.AppendUint32(nil, 7) // kept, for the loader and for us
	for _, u := range append(utf16.Encode([]rune(disk.EntryName(slot))), 0) {
		value = binary.LittleEndian.AppendUint16(value, u)
	}
	// The file system takes a variable in one write alone.
	f, err := os.OpenFile(filepath.Join(efivars, varOneShot), os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("ask the firmware for the other system: %w", err)
	}
	_, err = f.Write(value)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("ask the firmware for the other system: %w", err)
	}
	return nil
}

func readVariable(name string) (string, error) {
	if err := mountVariables(); err != nil {
		return "", err
	}
	data, err := os.ReadFile(filepath.Join(efivars, name))
	if err != nil {
		return "", err
	}
	var text []uint16
	for i := 4; i+1 < len(data); i += 2 {
		if u := binary.LittleEndian.Uint16(data[i:]); u != 0 {
			text = append(text, u)
		}
	}
	return string(utf16.Decode(text)), nil
}

func mountVariables() error {
	err := unix.Mount("efivarfs", efivars, "efivarfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("the firmware's variables: %w", err)
	}
	return nil
}
