package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"imeproxy/image/disk"
)

// grubModules are what the loader for a BIOS needs to find a partition, read its files, run grubConfig and start Linux.
var grubModules = []string{"biosdisk", "part_gpt", "fat", "normal", "configfile", "loadenv", "test", "linux", "echo", "sleep", "reboot"}

// grubConfig chooses the system as systemd's loader does under UEFI, by the same settings. What is started once is taken away before, and
// not started when that is not possible: a system that does not come up must not be tried for ever.
const grubConfig = `load_env -f /loader/loader.conf slot
load_env -f /loader/once.env once
if [ -n "$once" ]; then
	next="$once"
	once=
	if save_env -f /loader/once.env once; then slot="$next"; fi
fi
source "/EFI/Linux/SCRIPT-$slot"
if linux "/EFI/Linux/KERNEL-$slot" $append; then
	if initrd "/EFI/Linux/INITRD-$slot"; then boot; fi
fi
echo "System $slot cannot be started."
sleep 10
reboot
`

const (
	// biosStart is right behind the partition table; biosEnd is where the ESP begins.
	biosStart, biosEnd = 34 * disk.SectorSize, espStart
	// Offsets in GRUB's boot.img (grub-core/boot/i386/pc/boot.S and include/grub/i386/pc/boot.h).
	grubKernelSector, grubDriveCheck = 0x5c, 0x66
	// grubBlocks is where the first sector of core.img says where the others are: the last of its entries of twelve bytes.
	grubBlocks = disk.SectorSize - 12
)

// bios makes the loader for a BIOS: code for the first sector, and what that loads from biosStart on.
func (j *job) bios(grub debian) (first, core []byte, err error) {
	dir := filepath.Join(grub.dir, "usr/lib/grub/i386-pc")
	out := filepath.Join(j.out, "work", "core.img")
	args := append([]string{"-O", "i386-pc", "-d", dir, "-p", "(,gpt2)/grub", "-o", out}, grubModules...)
	if _, err := output("grub-mkimage", args...); err != nil {
		return nil, nil, err
	}
	if core, err = os.ReadFile(out); err != nil {
		return nil, nil, err
	}
	if len(core) < disk.SectorSize || len(core) > biosEnd-biosStart {
		return nil, nil, fmt.Errorf("GRUB has %d bytes, its partition %d", len(core), biosEnd-biosStart)
	}
	if first, err = os.ReadFile(filepath.Join(dir, "boot.img")); err != nil {
		return nil, nil, err
	}
	if len(first) != disk.SectorSize || binary.LittleEndian.Uint64(first[grubKernelSector:]) != 1 || binary.LittleEndian.Uint64(core[grubBlocks:]) != 2 {
		return nil, nil, errors.New("this GRUB keeps the places of its sectors elsewhere")
	}
	binary.LittleEndian.PutUint64(first[grubKernelSector:], biosStart/disk.SectorSize)
	binary.LittleEndian.PutUint64(core[grubBlocks:], biosStart/disk.SectorSize+1)
	copy(first[grubDriveCheck:], "\x90\x90") // on a hard disk: no trust in a BIOS that names another drive
	return first[:440], core, nil
}

// script sets the kernel's command line in grubConfig.
func script(commandLine string) []byte {
	return []byte("append=\"" + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`).Replace(commandLine) + "\"\n")
}
