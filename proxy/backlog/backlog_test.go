package backlog

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testSize = 8192

func open(t *testing.T, dir string) *File {
	t.Helper()
	f, err := Open(dir, "x", 2, testSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// crash leaves a file as the end of the process does: nothing is written or emptied.
func crash(t *testing.T, f *File) {
	t.Helper()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func add(t *testing.T, b *Batch, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if !b.Append([]byte(l)) {
			t.Fatalf("no room for %q", l)
		}
	}
}

func TestLinesSurvive(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there")
	f := open(t, dir)
	if left := f.Left(); len(left) != 0 {
		t.Fatalf("%d batches in a new file", len(left))
	}
	first, second := f.Batches()[0], f.Batches()[1]
	add(t, first, "gone\n")
	first.Writing(0, 7)
	first.Clear() // so the second batch is the older one
	add(t, second, "one\n", "two\n")
	add(t, first, "three\n")
	second.Writing(4, 1<<33)
	crash(t, f)

	f = open(t, dir)
	left := f.Left()
	if len(left) != 2 || string(left[0].Bytes()) != "one\ntwo\n" || string(left[1].Bytes()) != "three\n" {
		t.Fatalf("%d batches are left", len(left))
	}
	if from, at, begun := left[0].Written(); from != 4 || at != 1<<33 || !begun {
		t.Errorf("of the older %d bytes are written, the rest at %d: %v", from, at, begun)
	}
	if _, _, begun := left[1].Written(); begun {
		t.Error("the newer is not being written")
	}
	add(t, left[1], "four\n")
	left[1].Writing(0, -1)
	left[0].Clear()
	crash(t, f)

	f = open(t, dir)
	if left = f.Left(); len(left) != 1 || string(left[0].Bytes()) != "three\nfour\n" {
		t.Fatalf("left: %d batches", len(left))
	}
	if from, at, begun := left[0].Written(); from != 0 || at != -1 || !begun {
		t.Errorf("written from %d at %d: %v; want no offset", from, at, begun)
	}
}

func TestBatchIsBounded(t *testing.T) {
	for name, f := range map[string]*File{"file": open(t, t.TempDir()), "memory": Memory(2, testSize)} {
		b := f.Batches()[0]
		line := append(bytes.Repeat([]byte{'x'}, 99), '\n')
		n := 0
		for b.Append(line) {
			n++
		}
		if n != testSize/100 || b.Len() != n*100 {
			t.Errorf("%s: %d lines of 100 bytes in %d, %d bytes", name, n, testSize, b.Len())
		}
		if b.Clear(); !b.Append(bytes.Repeat([]byte{'\n'}, testSize)) || b.Append([]byte{'\n'}) {
			t.Errorf("%s: an empty one must take as much as it holds, and no more", name)
		}
	}
}

func TestAppendAllocatesNothing(t *testing.T) {
	b := open(t, t.TempDir()).Batches()[0]
	line := append(bytes.Repeat([]byte{'x'}, 219), '\n')
	if n := testing.AllocsPerRun(1000, func() {
		if !b.Append(line) {
			b.Writing(0, -1)
			b.Clear()
		}
	}); n != 0 {
		t.Errorf("%v allocations a line", n)
	}
}

func TestFileIsPrivate(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	for path, want := range map[string]os.FileMode{dir: 0o700 | os.ModeDir, filepath.Join(dir, "x"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
}

// What cannot be mapped is no reason to keep calls from being taken.
func TestMemoryWhereTheFileCannotBeHad(t *testing.T) {
	used, here := t.TempDir(), t.TempDir()
	add(t, open(t, used).Batches()[0], "of the other\n")
	plain := filepath.Join(here, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link, folder := filepath.Join(here, "link"), filepath.Join(here, "folder")
	for _, err := range []error{os.Mkdir(link, 0o700), os.Symlink(plain, filepath.Join(link, "x")), os.MkdirAll(filepath.Join(folder, "x"), 0o700)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for why, dir := range map[string]string{"in use, perhaps by another daemon": used, "not a directory": plain, "too many levels of symbolic links": link, "is a directory": folder} {
		f, err := Open(dir, "x", 2, testSize)
		if !errors.Is(err, ErrMemory) || errors.Is(err, ErrSkipped) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", why, err)
		}
		if len(f.Left()) != 0 {
			t.Errorf("%s: lines of somebody else", why)
		}
		b := f.Batches()[1]
		add(t, b, "one\n")
		if b.Writing(0, 3); string(b.Bytes()) != "one\n" {
			t.Errorf("%s: holds %q", why, b.Bytes())
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	if f, err := Open("", "x", 2, testSize); err != nil || f.Path != "" {
		t.Errorf("no directory: %v", err)
	}
}

// Somebody shortens the file: what touches its memory gets SIGBUS, and must not die of it.
func TestFileIsCutShort(t *testing.T) {
	for what, touch := range map[string]func(*Batch){
		"append":  func(b *Batch) { add(t, b, "after\n") },
		"writing": func(b *Batch) { b.Writing(0, 0); add(t, b, "after\n") },
		"clear":   func(b *Batch) { b.Clear(); add(t, b, "after\n") },
		"read": func(b *Batch) {
			if err := Guard(func() { _ = bytes.Count(b.Bytes(), []byte{'\n'}) }); !errors.Is(err, ErrGone) {
				t.Errorf("read: %v", err)
			}
			b.Clear()
			add(t, b, "after\n")
		},
	} {
		dir := t.TempDir()
		f := open(t, dir)
		told := make(chan error, 2)
		f.OnLoss(func(err error) { told <- err })
		b := f.Batches()[0]
		add(t, b, "before\n")
		if err := os.Truncate(filepath.Join(dir, "x"), 0); err != nil {
			t.Fatal(err)
		}
		touch(b)
		if string(b.Bytes()) != "after\n" {
			t.Errorf("%s: %q waits in memory", what, b.Bytes())
		}
		add(t, f.Batches()[1], "other\n")
		if err := <-told; !strings.Contains(err.Error(), "cut short") {
			t.Errorf("%s: %v", what, err)
		}
		if len(told) != 0 {
			t.Errorf("%s: told twice", what)
		}
	}
}

func TestGuardPassesOtherPanicsOn(t *testing.T) {
	for _, why := range []any{"mistake", errors.New("mistake")} {
		func() {
			defer func() {
				if r := recover(); r != why {
					t.Errorf("%v came for %v", r, why)
				}
			}()
			_ = Guard(func() { panic(why) })
		}()
	}
	defer func() {
		if recover() == nil {
			t.Error("a nil pointer is a mistake, not memory that is gone")
		}
	}()
	var f *File
	_ = Guard(func() { f.Path = "x" })
}
