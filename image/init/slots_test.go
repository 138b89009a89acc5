package main

import (
	"encoding/binary"
	"testing"
)

func TestSystemThatGRUBHasStarted(t *testing.T) {
	for cmdline, want := range map[string]int{
		"BOOT_IMAGE=/EFI/Linux/KERNEL-a console=tty0": 0, "BOOT_IMAGE=(hd0,gpt2)/EFI/Linux/KERNEL-B quiet\n": 1, "quiet": -1, "": -1,
		"BOOT_IMAGE=/EFI/Linux/KERNEL-C": -1, "BOOT_IMAGE=": -1, "x=/EFI/Linux/KERNEL-A": -1,
	} {
		if got, err := kernelOf(cmdline); err == nil && got != want || err != nil && want >= 0 {
			t.Errorf("%q: system %d, %v, must be %d", cmdline, got, err, want)
		}
	}
}

func FuzzSystemName(f *testing.F) {
	f.Add([]byte("MZ"))
	f.Add(systemImage())
	f.Fuzz(func(t *testing.T, system []byte) {
		if name, err := systemName(system); err == nil && len(name) > len(system) {
			t.Errorf("a name of %d bytes in %d", len(name), len(system))
		}
	})
}

func TestSystemName(t *testing.T) {
	if name, err := systemName(systemImage()); err != nil || name != "imeproxy 1" {
		t.Errorf("%q, %v", name, err)
	}
	if name, err := systemName([]byte("MZ")); err == nil {
		t.Errorf("%q of no system", name)
	}
}

// systemImage is a PE file with a section that names the system, as small as debug/pe takes it.
func systemImage() []byte {
	const headers, text = 512, "ID=imeproxy\nPRETTY_NAME=\"imeproxy 1\"\n"
	b := make([]byte, headers+len(text))
	copy(b, "MZ")
	binary.LittleEndian.PutUint32(b[60:], 64)
	h := b[64:]
	copy(h, "PE\x00\x00\x64\x86\x01\x00") // amd64, one section, no optional header
	s := h[24:]
	copy(s, ".osrel")
	for at, v := range map[int]uint32{8: uint32(len(text)), 16: uint32(len(text)), 20: headers} {
		binary.LittleEndian.PutUint32(s[at:], v)
	}
	copy(b[headers:], text)
	return b
}
