package boot

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestArchiveIsReadByOthers(t *testing.T) {
	var a Archive
	a.File("bin/program", 0o755, []byte("odd"))
	a.File("etc/passwd", 0o644, []byte("root\n"))
	a.Link("etc/resolv.conf", "/run/resolv.conf")
	a.Dir("state", 0o755)
	a.Device("dev/console", 0o600, 5, 1)
	dir := t.TempDir()
	file := filepath.Join(dir, "archive")
	if err := os.WriteFile(file, a.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("cpio", "-itv", "--quiet", "-F", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		f := strings.Fields(line)
		got = append(got, f[0]+" "+f[2]+" "+strings.Join(f[8:], " "))
	}
	want := []string{
		"drwxr-xr-x root bin", "-rwxr-xr-x root bin/program", "drwxr-xr-x root dev", "crw------- root 1970 dev/console", "drwxr-xr-x root etc",
		"-rw-r--r-- root etc/passwd", "lrwxrwxrwx root etc/resolv.conf -> /run/resolv.conf", "drwxr-xr-x root state",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("cpio reads\n%s\nwanted\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	cmd := exec.Command("cpio", "-i", "--quiet", "--to-stdout", "-F", file, "bin/program")
	if text, err := cmd.Output(); err != nil || string(text) != "odd" {
		t.Errorf("bin/program: %q, %v", text, err)
	}
}

// stub is a PE file as small as one can be that UKI takes: one section, space for three more headers.
func stub() []byte {
	b := make([]byte, 1024)
	copy(b, "MZ")
	binary.LittleEndian.PutUint32(b[60:], 64)
	h := b[64:]
	copy(h, "PE\x00\x00")
	binary.LittleEndian.PutUint16(h[4:], 0x8664)
	binary.LittleEndian.PutUint16(h[6:], 1)
	binary.LittleEndian.PutUint16(h[20:], 240)
	opt := h[24:]
	binary.LittleEndian.PutUint16(opt, 0x20b)
	binary.LittleEndian.PutUint32(opt[32:], 4096)
	binary.LittleEndian.PutUint32(opt[36:], 512)
	binary.LittleEndian.PutUint32(opt[60:], 512)
	binary.LittleEndian.PutUint32(opt[108:], 16)
	s := opt[240:]
	copy(s, ".text")
	binary.LittleEndian.PutUint32(s[8:], 512)
	binary.LittleEndian.PutUint32(s[12:], 4096)
	binary.LittleEndian.PutUint32(s[16:], 512)
	binary.LittleEndian.PutUint32(s[20:], 512)
	return append(b, "symbols"...)
}

func TestUKI(t *testing.T) {
	in := []Section{{".osrel", []byte("ID=imeproxy\n")}, {".initrd", bytes.Repeat([]byte("i"), 5000)}, {".linux", bytes.Repeat([]byte("k"), 9000)}}
	image, places, err := UKI(stub(), in)
	if err != nil {
		t.Fatal(err)
	}
	f, err := pe.NewFile(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	end := uint32(0)
	for i, s := range f.Sections {
		if s.VirtualAddress < end {
			t.Errorf("%s overlaps in memory with the one before", s.Name)
		}
		end = s.VirtualAddress + s.VirtualSize
		if i == 0 {
			continue
		}
		want := in[i-1]
		data, err := s.Data()
		if err != nil || s.Name != want.Name || !bytes.Equal(data[:s.VirtualSize], want.Data) {
			t.Errorf("section %s: %d bytes, %v; wanted %s", s.Name, len(data), err, want.Name)
		}
		p := places[want.Name]
		if p.Offset%fileAlign != 0 || !bytes.Equal(image[p.Offset:p.Offset+p.Size], want.Data) {
			t.Errorf("%s is not at %+v", want.Name, p)
		}
	}
	if size := f.OptionalHeader.(*pe.OptionalHeader64).SizeOfImage; size < end || size%memAlign != 0 {
		t.Errorf("size in memory %d, the last section ends at %d", size, end)
	}
}

func TestUKIRefusesStubs(t *testing.T) {
	four := make([]Section, 4)
	for name, c := range map[string]struct {
		stub     []byte
		sections []Section
	}{
		"empty":             {nil, nil},
		"no PE":             {append([]byte("MZ"), make([]byte, 100)...), nil},
		"cut short":         {stub()[:700], nil},
		"no space":          {stub(), four},
		"header far behind": {func() []byte { b := stub(); binary.LittleEndian.PutUint32(b[60:], 5000); return b }(), nil},
	} {
		if _, _, err := UKI(c.stub, c.sections); !errors.Is(err, ErrStub) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := UKI(stub(), []Section{{Name: ".toolongname"}}); err == nil {
		t.Error("a name of more than 8 characters was taken")
	}
}

func FuzzUKI(f *testing.F) {
	f.Add(stub(), []byte("kernel"))
	f.Add([]byte("MZ"), []byte{})
	f.Fuzz(func(t *testing.T, stub, kernel []byte) {
		image, places, err := UKI(stub, []Section{{Name: ".linux", Data: kernel}})
		if err != nil {
			return
		}
		p := places[".linux"]
		if p.Offset < 0 || p.Offset+p.Size > int64(len(image)) || !bytes.Equal(image[p.Offset:p.Offset+p.Size], kernel) {
			t.Errorf("the section is not at %+v", p)
		}
	})
}
