package disk

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func open(t *testing.T) (*Disk, string) {
	t.Helper()
	dir := t.TempDir()
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d, dir
}

func store(t *testing.T, d *Disk, name, text string) {
	t.Helper()
	w, err := d.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
}

func TestFiles(t *testing.T) {
	d, dir := open(t)
	store(t, d, "disk0:/b.cfg", "one")
	store(t, d, "a.fbs", "two")
	store(t, d, "/disk0:b.cfg", "three")
	all, err := d.List()
	if err != nil || len(all) != 2 || all[0].Name != "a.fbs" || all[1].Name != "b.cfg" || all[1].Size != 5 {
		t.Errorf("listed are %v, %v", all, err)
	}
	f, err := d.Read("b.cfg")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(f)
	f.Close()
	if err != nil || string(text) != "three" {
		t.Errorf("read %q, %v", text, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "b.cfg")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := d.Remove("b.cfg"); err != nil {
		t.Error(err)
	}
	for _, err := range []error{d.Remove("b.cfg"), func() error { _, err := d.Read("b.cfg"); return err }()} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	}
}

// What breaks off leaves the file that was there, and nothing else.
func TestBrokenOff(t *testing.T) {
	d, dir := open(t)
	store(t, d, "a.txt", "old")
	w, err := d.Create("a.txt")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteAt([]byte("new"), 10); err != nil {
		t.Fatal(err)
	}
	w.Abort()
	if err := w.Commit(); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "a.txt")); err != nil || string(text) != "old" {
		t.Errorf("the file is %q, %v", text, err)
	}
	if _, err := d.Create("b.txt"); err != nil { // and the daemon is killed
		t.Fatal(err)
	}
	d.Sweep()
	if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
		t.Errorf("left is %v, %v", all, err)
	}
}

// Nothing but the files of disk0: can be reached by any name.
func TestNothingElseIsReached(t *testing.T) {
	d, dir := open(t)
	secret := filepath.Join(t.TempDir(), "secret.txt")
	for path, text := range map[string]string{secret: "x", filepath.Join(dir, "key.pem"): "x", filepath.Join(dir, "calls.json"): "x", filepath.Join(dir, ".hidden.txt"): "x"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "folder.txt"), 0o700), os.Symlink(secret, filepath.Join(dir, "link.txt"))); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"key.pem", "calls.json", ".hidden.txt", "folder.txt", "link.txt", secret, "../" + filepath.Base(dir) + "/a.txt", "a/../b.txt", "", ".txt", "disk0:", "disk0:disk0:a.txt",
		"a.txt\x00", "a b.txt", strings.Repeat("a", MaxName) + ".txt", "//a.txt",
	} {
		if f, err := d.Read(name); err == nil {
			t.Errorf("read %q", name)
			f.Close()
		}
		if err := d.Remove(name); err == nil {
			t.Errorf("removed %q", name)
		}
	}
	for _, name := range []string{"key.pem", "calls.json", ".hidden.txt", "../a.txt", secret, "/etc/a.txt"} {
		if w, err := d.Create(name); err == nil {
			t.Errorf("created %q", name)
			w.Abort()
		}
	}
	store(t, d, "link.txt", "mine") // takes the link's place, not its target
	if text, err := os.ReadFile(secret); err != nil || string(text) != "x" {
		t.Errorf("the link was followed: %q, %v", text, err)
	}
	all, err := d.List()
	if err != nil || len(all) != 1 {
		t.Errorf("listed are %v, %v", all, err)
	}
}

func TestCaps(t *testing.T) {
	d, _ := open(t)
	for i := range MaxFiles {
		store(t, d, strings.Repeat("a", i%50+1)+string(rune('a'+i/50))+".txt", "")
	}
	if w, err := d.Create("more.txt"); err == nil {
		w.Abort()
		t.Error("one file more than may be is stored")
	}
	w, err := d.Create("aa.txt") // in the place of one that is there
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	for _, off := range []int64{MaxFile, -1, 1 << 62} {
		if _, err := w.WriteAt([]byte("x"), off); !errors.Is(err, ErrTooLong) {
			t.Errorf("at %d: %v", off, err)
		}
	}
	if _, err := w.WriteAt([]byte("x"), MaxFile-1); err != nil {
		t.Error(err)
	}
	if _, err := w.file.Seek(MaxFile, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("x")); !errors.Is(err, ErrTooLong) {
		t.Errorf("behind the end: %v", err)
	}
}

func FuzzName(f *testing.F) {
	for _, s := range []string{"disk0:/a.cfg", "../a.cfg", "a\x00.cfg"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if name, err := Name(text); err == nil && (strings.ContainsAny(name, "/\\\x00") || strings.HasPrefix(name, ".") || !filepath.IsLocal(name)) {
			t.Errorf("%q became %q", text, name)
		}
	})
}
