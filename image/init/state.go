package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"imeproxy/image/disk"
)

// statePartition is the name in the partition table.
const statePartition = "imeproxy-state"

// deviceWait is how long disks may take to appear.
const deviceWait = 20 * time.Second

// mountState finds the state partition, makes it as large as its disk, repairs and mounts it. errs is what drivers have said so far.
func (m *machine) mountState(mods *modules, errs []error) error {
	part := ""
	for end := time.Now().Add(deviceWait); part == ""; {
		if part = partition(statePartition); part == "" {
			if time.Now().After(end) {
				return fmt.Errorf("no disk has a partition %s: %w", statePartition, errors.Join(errs...))
			}
			time.Sleep(20 * time.Millisecond) // disks appear when they have answered
			errs = append(errs, mods.loadForDevices()...)
		}
	}
	for _, err := range errs {
		m.say("%v", err)
	}
	if err := growPartition(part); err != nil {
		m.say("the state partition keeps its size: %v", err)
	}
	if err := m.repair("/dev/" + part); err != nil {
		return err
	}
	if err := unix.Mount("/dev/"+part, stateMount, "ext4", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_NOATIME, "errors=remount-ro"); err != nil {
		return fmt.Errorf("mount the state partition: %w", err)
	}
	if err := growFileSystem(part); err != nil {
		m.say("the state partition's file system keeps its size: %v", err)
	}
	return makeState()
}

// partition gives the device name of a partition.
func partition(name string) string {
	files, _ := filepath.Glob("/sys/class/block/*/uevent")
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err == nil && strings.Contains("\n"+string(text), "\nPARTNAME="+name+"\n") {
			return filepath.Base(filepath.Dir(f))
		}
	}
	return ""
}

// number reads a file with a number.
func number(file string) (uint64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
}

// growPartition makes a disk's last partition end where the disk does. Nothing happens when it does already.
func growPartition(part string) error {
	sys, err := filepath.EvalSymlinks("/sys/class/block/" + part)
	if err != nil {
		return err
	}
	whole := filepath.Base(filepath.Dir(sys))
	sectors, err := number("/sys/class/block/" + whole + "/size") // in 512 bytes, always
	if err != nil {
		return err
	}
	f, err := os.OpenFile("/dev/"+whole, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	t, err := disk.Read(f, sectors)
	if err != nil {
		return err
	}
	if !t.Grow(sectors) {
		return nil
	}
	if err := t.Write(f, nil); err != nil {
		return err
	}
	p := t.Partitions[len(t.Partitions)-1]
	arg := unix.BlkpgPartition{Start: int64(p.First) * disk.SectorSize, Length: int64(p.Last-p.First+1) * disk.SectorSize, Pno: int32(len(t.Partitions))}
	req := unix.BlkpgIoctlArg{Op: unix.BLKPG_RESIZE_PARTITION, Datalen: int32(unsafe.Sizeof(arg)), Data: (*byte)(unsafe.Pointer(&arg))}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKPG, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return fmt.Errorf("tell the kernel of the partition's size: %w", errno)
	}
	return nil
}

// growFileSystem makes the mounted file system as large as its partition.
func growFileSystem(part string) error {
	sectors, err := number("/sys/class/block/" + part + "/size")
	if err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(stateMount, &st); err != nil {
		return err
	}
	blocks := sectors * disk.SectorSize / uint64(st.Bsize)
	d, err := os.Open(stateMount)
	if err != nil {
		return err
	}
	defer d.Close()
	const resize = 0x40086610 // EXT4_IOC_RESIZE_FS, linux/ext4.h
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), resize, uintptr(unsafe.Pointer(&blocks))); errno != 0 {
		return errno
	}
	return nil
}

// repair checks the file system: what e2fsck mends by itself is mended, and where it would ask, yes is said: there is nobody to
// ask, and an appliance that does not start helps nobody.
func (m *machine) repair(device string) error {
	for _, how := range []string{"-p", "-y"} {
		var out bytes.Buffer
		code, err := m.children.runFor(5*time.Minute, &out, "/sbin/e2fsck", how, device)
		if err != nil {
			return fmt.Errorf("check of the state partition: %w", err)
		}
		if code&^3 == 0 {
			if code != 0 {
				m.say("the state partition was repaired: %s", strings.TrimSpace(out.String()))
			}
			return nil
		}
		m.say("check of the state partition (%s): status %d: %s", how, code, strings.TrimSpace(out.String()))
	}
	return errors.New("the state partition cannot be repaired")
}

// makeState makes the folders of the state partition.
func makeState() error {
	for dir, perm := range map[string]os.FileMode{filepath.Dir(configFile): 0o700, stateDir: 0o700, logDir: 0o750} {
		if err := os.MkdirAll(dir, perm); err != nil {
			return err
		}
		if err := os.Chown(dir, daemonID, daemonID); err != nil {
			return err
		}
	}
	return nil
}

// place puts a file of the service where none may be half written.
func place(name string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chown(daemonID, daemonID), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	// The name is safe as well when this returns: what follows may be a restart by a power cut.
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
