package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// readWriter is a disk.
type readWriter interface {
	io.ReaderAt
	io.WriterAt
}

// Part is a piece of a system that has a file name of its own: loaders of a BIOS do not find it inside.
type Part struct {
	Offset, Size int64 // inside the system; Offset at a cluster's begin
}

// Parts are what a loader of a BIOS reads of a system: the kernel, its initramfs, and a script that sets its command line.
type Parts struct{ Kernel, Initrd, Script Part }

// SlotName is the file name of a system in SlotFolder.
func SlotName(slot int) string { return fmt.Sprintf("SYSTEM-%c.EFI", 'A'+slot) }

// KernelName is the file name of a system's kernel in SlotFolder.
func KernelName(slot int) string { return fmt.Sprintf("KERNEL-%c", 'A'+slot) }

// Where WriteESP puts the loader's settings and SlotFolder: the first clusters are the root, "loader", the settings, "EFI" and
// SlotFolder.
const (
	loaderCluster     = 4
	slotFolderCluster = 6
	// onceCluster is the last one before the systems.
	onceCluster = (slotStart-dataStart)/clusterSize + 2 - 1
)

// envBegin is how GRUB knows a file of variables; to systemd's loader it is a comment.
const envBegin = "# GRUB Environment Block\n"

// loaderConf are the settings of both loaders, of the same length for each system: the variable "slot" for GRUB, the rest for systemd's,
// which takes a line without a blank for none.
func loaderConf(slot int) []byte {
	return fmt.Appendf(nil, envBegin+"slot=%c\ntimeout 0\nconsole-mode keep\neditor no\ndefault %s\n", 'a'+slot, EntryName(slot))
}

// onceFile names the system that GRUB starts once, instead of the default; it takes the name away before.
const onceFile = "loader/once.env"

// onceEnv is what onceFile holds, one cluster; no slot is -1.
func onceEnv(slot int) []byte {
	text := envBegin + "once=\n"
	if slot >= 0 {
		text = fmt.Sprintf(envBegin+"once=%c\n", 'a'+slot)
	}
	return append([]byte(text), bytes.Repeat([]byte("#"), clusterSize-len(text))...)
}

// StartOnce lets a loader of a BIOS start a system at the next start, and only then: one sector is written.
func StartOnce(d readWriter, base int64, slot int) error {
	sector := make([]byte, SectorSize)
	if _, err := d.ReadAt(sector, base+offsetOf(onceCluster)); err != nil {
		return err
	}
	if !bytes.HasPrefix(sector, []byte(envBegin)) {
		return errors.New("this disk has no loader for a BIOS")
	}
	if _, err := d.WriteAt(onceEnv(slot)[:SectorSize], base+offsetOf(onceCluster)); err != nil {
		return err
	}
	return flush(d)
}

// EntryName is what the loader calls a system.
func EntryName(slot int) string { return strings.ToLower(SlotName(slot)) }

// Default is the system that starts when nothing else is said.
func Default(d io.ReaderAt, base int64) (slot int, err error) {
	text := make([]byte, len(loaderConf(0)))
	if _, err := d.ReadAt(text, base+offsetOf(loaderCluster)); err != nil {
		return 0, err
	}
	for slot := range Slots {
		if bytes.Equal(text, loaderConf(slot)) {
			return slot, nil
		}
	}
	return 0, errors.New("the loader's settings are not where they should be")
}

// SetDefault makes another system the one that starts: one sector is written.
func SetDefault(d readWriter, base int64, slot int) error {
	if _, err := Default(d, base); err != nil {
		return err
	}
	sector := make([]byte, SectorSize)
	copy(sector, loaderConf(slot))
	if _, err := d.WriteAt(sector, base+offsetOf(loaderCluster)); err != nil {
		return err
	}
	return flush(d)
}

// WriteSlot puts a system into a slot: data first, then, once that is safe, the one sector that names it. base is the offset of the
// ESP on the disk.
func WriteSlot(d readWriter, base int64, slot int, system []byte, parts Parts) error {
	if len(system) > SlotSize {
		return fmt.Errorf("the system has %d bytes, %d at most", len(system), SlotSize)
	}
	if err := ForgetSlot(d, base, slot); err != nil {
		return err
	}
	if _, err := d.WriteAt(system, base+slotOffset(slot)); err != nil {
		return err
	}
	if err := flush(d); err != nil {
		return err
	}
	return editFolder(d, base, func(entries []byte) {
		at := slotOffset(slot)
		copy(entries[entryOf(slot, 0):], entry(fmt.Sprintf("SYSTEM-%cEFI", 'A'+slot), 0x20, clusterAt(at), len(system)))
		for i, p := range []struct {
			name string
			Part
		}{{"KERNEL", parts.Kernel}, {"INITRD", parts.Initrd}, {"SCRIPT", parts.Script}} {
			copy(entries[entryOf(slot, i+1):], entry(fmt.Sprintf("%s-%c   ", p.name, 'A'+slot), 0x20, clusterAt(at+p.Offset), int(p.Size)))
		}
	})
}

// ForgetSlot takes a system's names away; its clusters stay reserved.
func ForgetSlot(d readWriter, base int64, slot int) error {
	return editFolder(d, base, func(entries []byte) {
		for i := range slotEntries {
			e := entries[entryOf(slot, i):][:32]
			clear(e)
			e[0] = deleted
		}
	})
}

// ReadSlot gives what is in a slot; nil when there is none.
func ReadSlot(d io.ReaderAt, base int64, slot int) ([]byte, error) {
	sector, err := folder(d, base)
	if err != nil {
		return nil, err
	}
	e := sector[entryOf(slot, 0):][:32]
	size := int64(e[28]) | int64(e[29])<<8 | int64(e[30])<<16 | int64(e[31])<<24
	if e[0] == deleted || e[0] == 0 {
		return nil, nil
	}
	if size > SlotSize {
		return nil, fmt.Errorf("system %c: its entry names %d bytes", 'A'+slot, size)
	}
	data := make([]byte, size)
	_, err = d.ReadAt(data, base+slotOffset(slot))
	return data, err
}

const slotEntries = 4

// entryOf is the offset of an entry of a slot: after those of the folder itself and its parent. The fourth ones stand behind the three
// of both slots.
func entryOf(slot, i int) int {
	if i == slotEntries-1 {
		return (2 + (slotEntries-1)*Slots + slot) * 32
	}
	return (2 + (slotEntries-1)*slot + i) * 32
}

func folder(d io.ReaderAt, base int64) ([]byte, error) {
	sector := make([]byte, SectorSize)
	if _, err := d.ReadAt(sector, base+offsetOf(slotFolderCluster)); err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(sector, []byte(".          \x10")) {
		return nil, fmt.Errorf("the ESP has no folder %s where it should be", SlotFolder)
	}
	return sector, nil
}

// editFolder changes the sector with the entries of both systems and waits until it is on the disk.
func editFolder(d readWriter, base int64, change func(entries []byte)) error {
	sector, err := folder(d, base)
	if err != nil {
		return err
	}
	change(sector)
	for i := range Slots * slotEntries {
		if e := sector[(2+i)*32:]; e[0] == 0 {
			e[0] = deleted // else the folder would end here
		}
	}
	if _, err := d.WriteAt(sector, base+offsetOf(slotFolderCluster)); err != nil {
		return err
	}
	return flush(d)
}
