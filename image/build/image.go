package main

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"time"

	"imeproxy/image/disk"
)

const (
	mib       = 1 << 20
	espStart  = 1 * mib
	stateSize = 96 * mib
	rawSize   = espStart + disk.ESPSize + stateSize + mib
	// vmSize is the disk of a virtual machine that is made from the OVA or VMDK; the state partition grows into it.
	vmSize = 4096 * mib
)

// Identifiers of the partitions: the same in each image, so that the same inputs give the same bytes. Two images in one machine
// are not meant to be.
const (
	diskID   = "1c3e4a4e-90f2-4d2e-8d5e-6d0b7a8f5a10"
	espID    = "1c3e4a4e-90f2-4d2e-8d5e-6d0b7a8f5a11"
	stateID  = "1c3e4a4e-90f2-4d2e-8d5e-6d0b7a8f5a12"
	espType  = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	extType  = "0fc63daf-8483-4772-8e79-3d69d8477de4"
	biosID   = "1c3e4a4e-90f2-4d2e-8d5e-6d0b7a8f5a13"
	biosType = "21686148-6449-6e6f-744e-656564454649"
)

// raw writes the disk.
func (j *job) raw(sys *system) error {
	f, err := os.Create(j.name("raw"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(rawSize); err != nil {
		return err
	}
	t := disk.Table{Sectors: rawSize / disk.SectorSize}
	for _, id := range []struct {
		to   *disk.GUID
		text string
	}{{&t.Disk, diskID}} {
		if *id.to, err = disk.ParseGUID(id.text); err != nil {
			return err
		}
	}
	for _, p := range []struct {
		typ, id, name string
		start, size   uint64
	}{{biosType, biosID, "imeproxy-bios", biosStart, biosEnd - biosStart}, {espType, espID, "imeproxy-esp", espStart, disk.ESPSize}, {extType, stateID, "imeproxy-state", espStart + disk.ESPSize, stateSize}} {
		part := disk.Partition{Name: p.name, First: p.start / disk.SectorSize, Last: (p.start+p.size)/disk.SectorSize - 1}
		var err1, err2 error
		part.Type, err1 = disk.ParseGUID(p.typ)
		part.ID, err2 = disk.ParseGUID(p.id)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		t.Partitions = append(t.Partitions, part)
	}
	if err := t.Write(f, sys.biosFirst); err != nil {
		return err
	}
	if _, err := f.WriteAt(sys.biosCore, biosStart); err != nil {
		return err
	}
	files := []disk.File{{Path: "EFI/BOOT/BOOTX64.EFI", Data: sys.loader}, {Path: "grub/grub.cfg", Data: []byte(grubConfig)}}
	if err := disk.WriteESP(f, espStart, 0x1e9a0001, files); err != nil {
		return err
	}
	if err := disk.WriteSlot(f, espStart, 0, sys.image, sys.parts); err != nil {
		return err
	}
	if err := j.state(f); err != nil {
		return err
	}
	return f.Close()
}

// state makes the empty file system of the state partition.
func (j *job) state(f *os.File) error {
	part := filepath.Join(j.out, "work", "state.ext4")
	cmd := exec.Command("mke2fs", "-q", "-F", "-t", "ext4", "-m", "1", "-L", "imeproxy-state", "-U", stateID,
		"-E", "hash_seed="+stateID+",lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0,resize="+fmt.Sprint(64<<30/4096), "-b", "4096", "-J", "size=8", part, fmt.Sprint(stateSize/4096))
	cmd.Env = append(os.Environ(), "E2FSPROGS_FAKE_TIME="+j.epoch, "SOURCE_DATE_EPOCH="+j.epoch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mke2fs: %w: %s", err, out)
	}
	data, err := os.ReadFile(part)
	if err != nil {
		return err
	}
	// Blocks of zeros stay holes.
	zero := make([]byte, 4096)
	for at := 0; at < len(data); at += len(zero) {
		if b := data[at:min(at+len(zero), len(data))]; string(b) != string(zero[:len(b)]) {
			if _, err := f.WriteAt(b, espStart+disk.ESPSize+int64(at)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (j *job) qcow2() error {
	_, err := output("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", j.name("raw"), j.name("qcow2"))
	return err
}

// vmdk makes the disk for VMware. The disk is as large as a virtual machine's should be: there the partition grows at first boot.
func (j *job) vmdk() error {
	large := filepath.Join(j.out, "work", "large.raw")
	if _, err := output("cp", "--sparse=always", j.name("raw"), large); err != nil {
		return err
	}
	if err := os.Truncate(large, vmSize); err != nil {
		return err
	}
	if _, err := output("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", large, j.name("vmdk")); err != nil {
		return err
	}
	// qemu-img draws a content identifier by lot; ours says what the content is.
	data, err := os.ReadFile(j.name("vmdk"))
	if err != nil {
		return err
	}
	cid := regexp.MustCompile(`(?m)^CID=[0-9a-f]{8}$`)
	at := cid.FindIndex(data[:min(len(data), 4096)])
	if at == nil {
		return errors.New("the VMDK has no content identifier")
	}
	copy(data[at[0]:], "CID="+sum(j.name("raw"))[:8])
	return os.WriteFile(j.name("vmdk"), data, 0o644)
}

// ova packs disk and description for VMware.
func (j *job) ova() error {
	if _, err := os.Stat(j.name("vmdk")); err != nil {
		return fmt.Errorf("the OVA is made of the VMDK: %w", err)
	}
	vmdk, err := os.ReadFile(j.name("vmdk"))
	if err != nil {
		return err
	}
	ovf := fmt.Appendf(nil, ovfTemplate, len(vmdk), vmSize, j.version)
	manifest := fmt.Appendf(nil, "SHA256(imeproxy.ovf)= %x\nSHA256(imeproxy.vmdk)= %x\n", sha256.Sum256(ovf), sha256.Sum256(vmdk))
	f, err := os.Create(j.name("ova"))
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	for _, e := range []struct {
		name string
		data []byte
	}{{"imeproxy.ovf", ovf}, {"imeproxy.mf", manifest}, {"imeproxy.vmdk", vmdk}} {
		if err := w.WriteHeader(&tar.Header{Format: tar.FormatUSTAR, Name: e.name, Mode: 0o644, Size: int64(len(e.data)), ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
		if _, err := w.Write(e.data); err != nil {
			return err
		}
	}
	return errors.Join(w.Close(), f.Close())
}

// sums writes the checksums of all results.
func (j *job) sums() error {
	files, err := filepath.Glob(j.name("*"))
	if err != nil {
		return err
	}
	files = append(files, filepath.Join(j.out, "sbom.json"))
	sort.Strings(files)
	var b strings.Builder
	for _, f := range files {
		fmt.Fprintf(&b, "%s  %s\n", sum(f), filepath.Base(f))
	}
	return os.WriteFile(filepath.Join(j.out, "SHA256SUMS"), []byte(b.String()), 0o644)
}
