package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"imeproxy/image/boot"
	"imeproxy/image/disk"
)

// always are the modules that mapping/ and init need on every machine; what they depend on comes with them.
var always = []string{
	"nf_tables", "nf_conntrack", "nf_conntrack_netlink", "nfnetlink_log", "nft_chain_nat", "nft_nat", "nft_masq", "nft_redir", "nft_tproxy",
	"nft_socket", "nft_fib_ipv4", "nft_fib_ipv6", "nft_fib_inet", "nft_fib_netdev", "nft_ct", "nft_limit", "nft_log", "nft_reject_inet",
	"nft_reject_ipv4", "nft_reject_ipv6", "nft_objref", "nft_quota", "nft_hash", "nft_numgen", "tun",
	"evdev", "button", "softdog", "efivarfs", "vfat", "nls_cp437", "nls_ascii", "nls_utf8", "isofs",
}

// drivers are loaded when a device asks for them.
var drivers = []string{
	"virtio_pci", "virtio_net", "virtio_blk", "virtio_scsi", "virtio_rng", "virtio_balloon", "vmxnet3", "vmw_pvscsi", "sd_mod", "sr_mod",
	"hv_vmbus", "hv_netvsc", "hv_storvsc", "hv_utils", "ena", "wdat_wdt", "hyperv_keyboard",
}

// commandLine is the kernel's. A restart after a panic gives the other system its turn.
const commandLine = "console=tty0 console=ttyS0,115200 quiet loglevel=1 panic=10 oops=panic"

// system is what a slot holds.
type system struct {
	image  []byte
	parts  disk.Parts
	loader []byte // for the ESP
	// for a BIOS: the code of the first sector, and what it loads
	biosFirst, biosCore []byte
}

// system makes the unified kernel image.
func (j *job) system(packages map[string]debian, key ed25519.PrivateKey) (*system, error) {
	kernelDir := packages["linux-image-cloud-amd64"].dir
	kernel, err := onlyFile(filepath.Join(kernelDir, "boot", "vmlinuz-*"))
	if err != nil {
		return nil, err
	}
	var a boot.Archive
	if err := j.programs(&a, packages); err != nil {
		return nil, err
	}
	if err := addModules(&a, filepath.Join(kernelDir, "lib", "modules")); err != nil {
		return nil, err
	}
	release := j.release()
	a.File("etc/os-release", 0o644, release)
	identity, err := j.identity(key)
	if err != nil {
		return nil, err
	}
	a.File("etc/imeproxy/release.json", 0o644, identity)
	initrd, err := compress(a.Bytes())
	if err != nil {
		return nil, err
	}
	efi := filepath.Join(packages["systemd-boot-efi"].dir, "usr/lib/systemd/boot/efi")
	stub, err := os.ReadFile(filepath.Join(efi, "linuxx64.efi.stub"))
	if err != nil {
		return nil, err
	}
	loader, err := os.ReadFile(filepath.Join(efi, "systemd-bootx64.efi"))
	if err != nil {
		return nil, err
	}
	biosFirst, biosCore, err := j.bios(packages["grub-pc-bin"])
	if err != nil {
		return nil, err
	}
	cmdline := strings.TrimSpace(commandLine + " " + j.more)
	image, places, err := boot.UKI(stub, []boot.Section{
		{Name: ".osrel", Data: release},
		{Name: ".cmdline", Data: []byte(cmdline + "\x00")},
		{Name: ".script", Data: script(cmdline)},
		{Name: ".initrd", Data: initrd},
		{Name: ".linux", Data: kernel},
	})
	if err != nil {
		return nil, err
	}
	part := func(name string) disk.Part { return disk.Part(places[name]) }
	parts := disk.Parts{Kernel: part(".linux"), Initrd: part(".initrd"), Script: part(".script")}
	return &system{image: image, parts: parts, loader: loader, biosFirst: biosFirst, biosCore: biosCore}, nil
}

// release describes the system, for the loader's menu and for people.
func (j *job) release() []byte {
	name := "imeproxy " + j.version
	if j.commit != "" {
		name += " (" + j.commit + ")"
	}
	return fmt.Appendf(nil, "ID=imeproxy\nNAME=imeproxy\nVERSION_ID=%s\nBUILD_ID=%s\nPRETTY_NAME=%q\n", j.version, j.commit, name)
}

// programs adds everything but modules.
func (j *job) programs(a *boot.Archive, packages map[string]debian) error {
	work := filepath.Join(j.out, "work")
	for _, p := range []struct{ pkg, at string }{{"./image/init", "init"}, {j.service, "bin/imeproxy"}} {
		file := filepath.Join(work, filepath.Base(p.at))
		// Symbols are left out: they are a third of what must be read and unpacked before anything runs.
		cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid= -X main.commit="+j.commit, "-o", file, p.pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s", p.pkg, err, out)
		}
		if err := addFile(a, p.at, 0o755, file); err != nil {
			return err
		}
	}
	if err := addFile(a, "sbin/e2fsck", 0o755, filepath.Join(packages["e2fsck-static"].dir, "sbin/e2fsck.static")); err != nil {
		return err
	}
	if err := addFile(a, "usr/share/imeproxy/imeproxy.cfg", 0o644, "image/deb/imeproxy.cfg"); err != nil {
		return err
	}
	roots, err := authorities(packages["ca-certificates"].dir)
	if err != nil {
		return err
	}
	a.File("etc/ssl/certs/ca-certificates.crt", 0o644, roots)
	a.File("etc/passwd", 0o644, []byte("root:x:0:0::/:/bin/false\nimeproxy:x:100:100:SIP edge proxy:/state/imeproxy:/bin/false\n"))
	a.File("etc/group", 0o644, []byte("root:x:0:\nimeproxy:x:100:\n"))
	a.File("etc/hosts", 0o644, []byte("127.0.0.1 localhost\n::1 localhost\n"))
	a.Link("etc/resolv.conf", "/run/resolv.conf")
	for _, d := range []string{"proc", "sys", "dev", "run", "tmp", "state", "mnt"} {
		a.Dir(d, 0o755)
	}
	a.Device("dev/console", 0o600, 5, 1)
	return nil
}

// authorities are all certificates of Debian's package, in one file.
func authorities(dir string) ([]byte, error) {
	files, err := filepath.Glob(filepath.Join(dir, "usr/share/ca-certificates/mozilla/*.crt"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no certificates in ca-certificates: %v", err)
	}
	var all []byte
	for _, f := range files { // sorted by Glob
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		all = append(all, text...)
	}
	return all, nil
}

func addFile(a *boot.Archive, name string, perm uint32, file string) error {
	data, err := os.ReadFile(file)
	if err == nil {
		a.File(name, perm, data)
	}
	return err
}

// addModules adds the modules and the list by which init finds them.
func addModules(a *boot.Archive, dir string) error {
	all, err := boot.FindModules(dir)
	if err != nil {
		return err
	}
	type line struct {
		Name    string   `json:"name"`
		Depends []string `json:"depends,omitempty"`
		Aliases []string `json:"aliases,omitempty"`
		Always  bool     `json:"always,omitempty"`
	}
	order, err := all.Order(append(append([]string{}, always...), drivers...)...)
	if err != nil {
		return err
	}
	isAlways := map[string]bool{}
	for _, n := range always {
		isAlways[n] = true
	}
	var lines []line
	for _, m := range order {
		if err := addFile(a, "lib/modules/"+m.Name+".ko", 0o644, m.File); err != nil {
			return err
		}
		lines = append(lines, line{m.Name, m.Depends, m.Aliases, isAlways[m.Name]})
	}
	text, err := json.MarshalIndent(lines, "", " ")
	if err != nil {
		return err
	}
	a.File("lib/modules/modules.json", 0o644, text)
	return nil
}

// compress packs the initramfs: zstd unpacks several times faster than the others of its size, which counts at each boot.
func compress(data []byte) ([]byte, error) {
	cmd := exec.Command("zstd", "-q", "-15", "--single-thread", "-c")
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return out, nil
}

func onlyFile(pattern string) ([]byte, error) {
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) != 1 {
		return nil, fmt.Errorf("%s: %d files (%s)", pattern, len(files), strings.Join(files, ", "))
	}
	return os.ReadFile(files[0])
}
