package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mountKernel mounts what the kernel offers and what is for the time of this boot.
func mountKernel() error {
	const none = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, m := range []struct {
		kind, at, data string
		flags          uintptr
	}{
		{"proc", "/proc", "hidepid=invisible", none},
		{"sysfs", "/sys", "", none},
		{"devtmpfs", "/dev", "mode=0755", unix.MS_NOSUID | unix.MS_NOEXEC},
		{"devpts", "/dev/pts", "mode=0600,ptmxmode=0666", unix.MS_NOSUID | unix.MS_NOEXEC},
		{"tmpfs", "/run", "mode=0755,size=16m", none},
		{"tmpfs", "/tmp", "mode=1777,size=64m", none},
		{"cgroup2", "/sys/fs/cgroup", "", none},
	} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.at, m.kind, m.flags, m.data); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	if err := os.Mkdir("/run/imeproxy", 0o755); err != nil {
		return err
	}
	if err := os.Chown("/run/imeproxy", daemonID, daemonID); err != nil {
		return err
	}
	// Nothing writes to the root file system from here on; no core files either.
	for name, value := range map[string]string{
		"kernel/core_pattern": "|/bin/false", "kernel/kptr_restrict": "2", "kernel/dmesg_restrict": "1", "kernel/sysrq": "0",
		"kernel/unprivileged_bpf_disabled": "1", "kernel/printk": "1 4 1 1", "fs/protected_symlinks": "1", "fs/protected_hardlinks": "1",
		"kernel/panic": "10", "kernel/panic_on_oops": "1", "net/ipv4/conf/all/promote_secondaries": "1", "net/ipv4/conf/default/promote_secondaries": "1",
	} {
		_ = os.WriteFile("/proc/sys/"+name, []byte(value), 0) // a kernel without the setting has not the danger
	}
	if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("root file system read-only: %w", err)
	}
	return nil
}

// setLink sets an interface up or down.
func setLink(name string, up bool) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if up {
		req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	return nil
}
