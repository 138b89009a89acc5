package disk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// esp makes a disk with an ESP at 1 MiB and system A, whose kernel and initramfs are parts of it.
func esp(t *testing.T) *os.File {
	t.Helper()
	f := image(t, mib+ESPSize)
	files := []File{{Path: "EFI/BOOT/BOOTX64.EFI", Data: bytes.Repeat([]byte("loader"), 30000)}}
	if err := WriteESP(f, mib, 0x12345678, files); err != nil {
		t.Fatal(err)
	}
	if err := WriteSlot(f, mib, 0, content("A"), Parts{Part{4096, 5000}, Part{12288, 3 << 20}, Part{8192, 33}}); err != nil {
		t.Fatal(err)
	}
	return f
}

func content(name string) []byte {
	return bytes.Repeat([]byte("system "+name+"\n"), 400000)
}

// typed is a file of the ESP as mtools read it.
func typed(t *testing.T, f *os.File, name string) string {
	t.Helper()
	out, err := exec.Command("mtype", "-i", f.Name()+"@@1M", "::/"+name).Output()
	if err != nil {
		t.Fatalf("mtype %s: %v", name, err)
	}
	return string(out)
}

func TestESPIsReadByOthers(t *testing.T) {
	f := esp(t)
	for slot, want := range []string{"default system-a.efi\n", "default system-b.efi\n"} {
		if err := SetDefault(f, mib, slot); err != nil {
			t.Fatal(err)
		}
		if got := typed(t, f, "loader/loader.conf"); !strings.HasPrefix(got, "# GRUB Environment Block\nslot="+string(rune('a'+slot))+"\ntimeout 0\n") || !strings.HasSuffix(got, want) {
			t.Errorf("loader.conf: %q", got)
		}
		if got, err := Default(f, mib); err != nil || got != slot {
			t.Errorf("default %d, %v", got, err)
		}
	}
	if err := SetDefault(image(t, mib+ESPSize), mib, 1); err == nil {
		t.Error("the settings of a disk without a loader were written")
	}
	if got := typed(t, f, "EFI/BOOT/BOOTX64.EFI"); got != strings.Repeat("loader", 30000) {
		t.Errorf("the loader has %d bytes", len(got))
	}
	if got := typed(t, f, "EFI/Linux/SYSTEM-A.EFI"); got != string(content("A")) {
		t.Errorf("system A has %d bytes", len(got))
	}
	if got := typed(t, f, "EFI/Linux/KERNEL-A"); got != string(content("A")[4096:9096]) {
		t.Errorf("the kernel of system A has %d bytes", len(got))
	}
	if got := typed(t, f, "EFI/Linux/INITRD-A"); got != string(content("A")[12288:12288+3<<20]) {
		t.Errorf("the initramfs of system A has %d bytes", len(got))
	}
	if got := typed(t, f, "EFI/Linux/SCRIPT-A"); got != string(content("A")[8192:8225]) {
		t.Errorf("the script of system A has %d bytes", len(got))
	}
	for _, want := range []string{"", "a", "b"} {
		if want != "" {
			if err := StartOnce(f, mib, int(want[0]-'a')); err != nil {
				t.Fatal(err)
			}
		}
		if got := typed(t, f, onceFile); !strings.HasPrefix(got, "# GRUB Environment Block\nonce="+want+"\n##") || len(got) != 1024 || strings.Trim(got[32:], "#") != "" {
			t.Errorf("what is started once: %q", got)
		}
	}
	if err := StartOnce(image(t, mib+ESPSize), mib, 1); err == nil {
		t.Error("something was written on a disk without a loader")
	}
	// fsck knows no files within files and no reserved clusters: it must find nothing else.
	part := image(t, ESPSize)
	data, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := part.WriteAt(data[mib:], 0); err != nil {
		t.Fatal(err)
	}
	if err := ForgetSlot(part, 0, 0); err != nil {
		t.Fatal(err)
	}
	out, _ := exec.Command("fsck.vfat", "-n", "-v", part.Name()).CombinedOutput()
	if s := string(out); !strings.Contains(s, "32 reserved sectors") || strings.Contains(s, "differ") || strings.Contains(s, "Bad") || !strings.Contains(s, "Reclaimed 114688 unused clusters (117440512 bytes)") {
		t.Errorf("fsck.vfat: %s", s)
	}
}

func TestSystemsReplaceEachOther(t *testing.T) {
	f := esp(t)
	if got, err := ReadSlot(f, mib, 1); err != nil || got != nil {
		t.Errorf("system B of a new disk: %d bytes, %v", len(got), err)
	}
	if err := WriteSlot(f, mib, 1, content("B is longer"), Parts{}); err != nil {
		t.Fatal(err)
	}
	for slot, want := range [][]byte{content("A"), content("B is longer")} {
		got, err := ReadSlot(f, mib, slot)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("slot %d: %d bytes, %v", slot, len(got), err)
		}
		if got := typed(t, f, SlotFolder+"/"+SlotName(slot)); got != string(want) {
			t.Errorf("%s: %d bytes", SlotName(slot), len(got))
		}
	}
	if err := WriteSlot(f, mib, 1, make([]byte, SlotSize+1), Parts{}); err == nil {
		t.Error("a system larger than its slot was taken")
	}
}

// A power cut at any write leaves system A as it was, and B whole or not there.
func TestPowerCutWhileASystemIsWritten(t *testing.T) {
	for writes := range 4 {
		f := esp(t)
		err := WriteSlot(&cut{f, writes}, mib, 1, content("B"), Parts{})
		if want := writes < 3; errors.Is(err, errCut) != want {
			t.Fatalf("%d writes: %v", writes, err)
		}
		if got, err := ReadSlot(f, mib, 0); err != nil || !bytes.Equal(got, content("A")) {
			t.Errorf("%d writes: system A has %d bytes, %v", writes, len(got), err)
		}
		if got, err := ReadSlot(f, mib, 1); err != nil || got != nil && !bytes.Equal(got, content("B")) {
			t.Errorf("%d writes: system B has %d bytes, %v", writes, len(got), err)
		}
	}
}

func TestSlotsFitTheESP(t *testing.T) {
	if end := slotOffset(Slots-1) + SlotSize; end > ESPSize {
		t.Errorf("the last system ends at %d, the ESP at %d", end, ESPSize)
	}
	big := []File{{Path: "EFI/BOOT/BOOTX64.EFI", Data: make([]byte, slotStart)}}
	if err := WriteESP(image(t, ESPSize), 0, 1, big); err == nil {
		t.Error("a loader that reaches into system A was taken")
	}
	var many []File
	for i := range 40 {
		many = append(many, File{Path: fmt.Sprintf("F%d", i), Data: []byte("x")})
	}
	if err := WriteESP(image(t, ESPSize), 0, 1, many); err == nil {
		t.Error("a folder with more entries than fit was taken")
	}
}
