package disk

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const mib = 1 << 20

func guid(t *testing.T, s string) GUID {
	t.Helper()
	g, err := ParseGUID(s)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func sample(t *testing.T) *Table {
	return &Table{
		Disk: guid(t, "1c3e4a4e-90f2-4d2e-8d5e-6d0b7a8f5a10"), Sectors: 64 * mib / SectorSize,
		Partitions: []Partition{
			{Type: guid(t, "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"), ID: guid(t, "1c3e4a4e-90f2-4d2e-8d5e-6d0b7a8f5a11"), First: 2048, Last: 4095, Name: "imeproxy-esp"},
			{Type: guid(t, "0fc63daf-8483-4772-8e79-3d69d8477de4"), ID: guid(t, "1c3e4a4e-90f2-4d2e-8d5e-6d0b7a8f5a12"), First: 4096, Last: 8191, Name: "imeproxy-state"},
		},
	}
}

// image is an empty disk of that many bytes.
func image(t *testing.T, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestTableIsReadByOthers(t *testing.T) {
	f := image(t, 64*mib)
	if err := sample(t).Write(f, []byte{}); err != nil {
		t.Fatal(err)
	}
	if out := command(t, "sfdisk", "--verify", f.Name()); !strings.Contains(out, "No errors detected.") {
		t.Error(out)
	}
	dump := command(t, "sfdisk", "--dump", f.Name())
	for _, want := range []string{
		"label-id: 1C3E4A4E-90F2-4D2E-8D5E-6D0B7A8F5A10", "first-lba: 34", "last-lba: 131038",
		`start=        2048, size=        2048, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=1C3E4A4E-90F2-4D2E-8D5E-6D0B7A8F5A11, name="imeproxy-esp"`,
	} {
		if !strings.Contains(dump, want) {
			t.Errorf("sfdisk does not read %q:\n%s", want, dump)
		}
	}
}

func TestTableGrowsWithItsDisk(t *testing.T) {
	f := image(t, 64*mib)
	if err := sample(t).Write(f, []byte{}); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(100*mib + 512*7); err != nil {
		t.Fatal(err)
	}
	const sectors = 100*mib/SectorSize + 7
	got, err := Read(f, sectors)
	if err != nil {
		t.Fatal(err)
	}
	if want := sample(t); !reflect.DeepEqual(got, want) {
		t.Fatalf("read %+v, written %+v", got, want)
	}
	if !got.Grow(sectors) {
		t.Fatal("the disk has grown, and the table has not")
	}
	if err := got.Write(f, nil); err != nil {
		t.Fatal(err)
	}
	if out := command(t, "sfdisk", "--verify", f.Name()); !strings.Contains(out, "No errors detected.") {
		t.Error(out)
	}
	again, err := Read(f, sectors)
	if err != nil {
		t.Fatal(err)
	}
	if last := again.Partitions[1].Last; last != 99*mib/SectorSize-1 {
		t.Errorf("the state partition ends at sector %d, must end with the last MiB that is whole", last)
	}
	if again.Grow(sectors) {
		t.Error("a table that fills its disk grew again")
	}
}

func TestDamagedTableIsReadFromItsCopy(t *testing.T) {
	f := image(t, 64*mib)
	if err := sample(t).Write(f, []byte{}); err != nil {
		t.Fatal(err)
	}
	for _, damage := range []int64{SectorSize + 20, 2*SectorSize + 33} { // header, entries
		if _, err := f.WriteAt([]byte{0xff}, damage); err != nil {
			t.Fatal(err)
		}
		got, err := Read(f, 64*mib/SectorSize)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, sample(t)) {
			t.Errorf("the copy gives %+v", got)
		}
	}
	if _, err := f.WriteAt([]byte{0xff}, 64*mib-SectorSize+20); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(f, 64*mib/SectorSize); !errors.Is(err, ErrNoTable) {
		t.Errorf("both damaged: %v", err)
	}
}

// cut is a disk that loses its power after so many writes.
type cut struct {
	*os.File
	left int
}

var errCut = errors.New("no power")

func (c *cut) WriteAt(p []byte, at int64) (int, error) {
	if c.left == 0 {
		return 0, errCut
	}
	c.left--
	return c.File.WriteAt(p, at)
}

func TestPowerCutWhileTheTableGrows(t *testing.T) {
	for writes := range 2 {
		f := image(t, 64*mib)
		if err := sample(t).Write(f, []byte{}); err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(100 * mib); err != nil {
			t.Fatal(err)
		}
		grown := sample(t)
		grown.Grow(100 * mib / SectorSize)
		if err := grown.Write(&cut{f, writes}, nil); !errors.Is(err, errCut) {
			t.Fatalf("after %d writes: %v", writes, err)
		}
		got, err := Read(f, 100*mib/SectorSize)
		if err != nil || len(got.Partitions) != 2 {
			t.Errorf("after %d writes: %+v, %v", writes, got, err)
		}
	}
}

func TestTableRefusesWhatDoesNotFit(t *testing.T) {
	for name, change := range map[string]func(*Table){
		"behind the end": func(t *Table) { t.Partitions[1].Last = t.Sectors - 1 },
		"in the table":   func(t *Table) { t.Partitions[0].First = 1 },
		"backwards":      func(t *Table) { t.Partitions[0].Last = 2000 },
		"long name":      func(t *Table) { t.Partitions[0].Name = strings.Repeat("x", 37) },
		"too many":       func(t *Table) { t.Partitions = make([]Partition, 129) },
	} {
		x := sample(t)
		change(x)
		if err := x.Write(image(t, 64*mib), []byte{}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for _, bad := range []string{"", "1c3e4a4e-90f2-4d2e-8d5e-6d0b7a8f5a1", "zc3e4a4e-90f2-4d2e-8d5e-6d0b7a8f5a12"} {
		if _, err := ParseGUID(bad); err == nil {
			t.Errorf("GUID %q: taken", bad)
		}
	}
}

func FuzzRead(f *testing.F) {
	x := &Table{Sectors: 200, Partitions: []Partition{{Type: GUID{1}, First: 40, Last: 99, Name: "one"}}}
	file, err := os.Create(filepath.Join(f.TempDir(), "disk"))
	if err != nil {
		f.Fatal(err)
	}
	defer file.Close()
	if err := errors.Join(file.Truncate(200*SectorSize), x.Write(file, []byte{})); err != nil {
		f.Fatal(err)
	}
	seed, err := os.ReadFile(file.Name())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add(seed[:40*SectorSize])
	f.Add([]byte("EFI PART"))
	f.Fuzz(func(t *testing.T, data []byte) {
		sectors := uint64(len(data) / SectorSize)
		got, err := Read(strings.NewReader(string(data)), sectors)
		if err != nil {
			return
		}
		if got.Sectors > sectors {
			t.Errorf("a table of %d sectors on a disk of %d", got.Sectors, sectors)
		}
		first, last := got.Usable()
		for _, p := range got.Partitions {
			if p.First < first || p.Last > last || p.Last < p.First {
				t.Errorf("partition %+v outside of %d to %d", p, first, last)
			}
		}
	})
}
