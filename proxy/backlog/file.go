package backlog

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Reasons that Open gives beside a File that can be used.
var (
	// ErrMemory: the file cannot be had, lines wait in memory alone, and a crash loses them.
	ErrMemory = errors.New("lines that wait to be written are kept in memory alone")
	// ErrSkipped: what waited in the file when a process crashed is damaged, and left out.
	ErrSkipped = errors.New("lines that waited to be written when the run before ended cannot be read")
	// ErrGone: the memory of a batch was taken away.
	ErrGone = errors.New("the file of what waits to be written was cut short, or cannot be read")

	errUnfinished = errors.New("it did not come to its end")
)

// File holds batches.
type File struct {
	Path string // "" = in memory

	file    *os.File
	memory  []byte
	batches []*Batch
	seq     uint64 // the last that was given to a batch
	lost    func(error)
	told    sync.Once
}

// Memory makes a File that has no file: batches of so many bytes, which a crash loses.
func Memory(batches, size int) *File {
	f := &File{}
	for range batches {
		m := make([]byte, batchHead+size)
		f.add(m[:batchHead], m[batchHead:])
	}
	return f
}

// Open gives the file of a name in a directory, which it makes with its parents if there is none, with batches of so many bytes. What a crash left in it
// stands in the batches (Left). It never fails: an error tells by ErrMemory and ErrSkipped, perhaps both, what is not as it should be. With no directory
// lines wait in memory, which is no error. Close the File.
func Open(dir, name string, batches, size int) (*File, error) {
	if batches < 1 || batches > maxBatches || size < 1 || size > maxSize {
		panic("backlog: more than a file may hold")
	}
	if dir == "" {
		return Memory(batches, size), nil
	}
	f := &File{Path: filepath.Join(dir, name)}
	skipped, err := f.open(dir, batches, size)
	if err != nil {
		_ = f.Close()
		f, err = Memory(batches, size), fmt.Errorf("%w: %w", ErrMemory, err)
	}
	if skipped != nil {
		err = errors.Join(fmt.Errorf("%w: %s: %w", ErrSkipped, filepath.Join(dir, name), skipped), err)
	}
	return f, err
}

func (f *File) open(dir string, batches, size int) (skipped, err error) {
	if err := private(dir); err != nil {
		return nil, err
	}
	if f.file, err = os.OpenFile(f.Path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600); err != nil {
		return nil, err
	}
	info, err := f.file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", f.Path)
	}
	if info.Mode().Perm() != 0o600 {
		if err := f.file.Chmod(0o600); err != nil {
			return nil, err
		}
	}
	if err := unix.Flock(int(f.file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("%s is in use, perhaps by another daemon with this state directory: %w", f.Path, err)
	}
	left, skipped, err := f.left(batches, size)
	if err != nil {
		return nil, err
	}
	if err := f.hold(left == nil, batches, size); err != nil {
		return nil, err // what it holds stays for a start that can take it
	}
	f.take(left)
	return skipped, nil
}

// private makes a directory of the own user alone.
func private(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is no directory", dir)
	}
	if info.Mode().Perm() != 0o700 {
		return os.Chmod(dir, 0o700)
	}
	return nil
}

// left reads what the file holds; nil if that is nothing, or of no use.
func (f *File) left(batches, size int) (left []held, skipped, err error) {
	text, err := io.ReadAll(io.NewSectionReader(f.file, 0, int64(fileHead+batches*size)+1))
	if err != nil {
		return nil, nil, err
	}
	if len(bytes.Trim(text[:min(len(text), fileHead)], "\x00")) == 0 { // new, or its maker died before it had written the head
		return nil, nil, nil
	}
	left, skipped = decode(text, batches, size)
	return left, skipped, nil
}

// hold allocates the file's blocks and maps it.
func (f *File) hold(anew bool, batches, size int) error {
	want := fileHead + batches*size
	if anew {
		if err := f.file.Truncate(0); err != nil {
			return err
		}
	}
	err := unix.Fallocate(int(f.file.Fd()), 0, 0, int64(want))
	for errors.Is(err, unix.EINTR) {
		err = unix.Fallocate(int(f.file.Fd()), 0, 0, int64(want))
	}
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) { // to write it is as good on file systems that have no such call
		err = nil
		if anew {
			_, err = f.file.WriteAt(make([]byte, want), 0)
		}
	}
	if err != nil {
		return fmt.Errorf("%d bytes for %s: %w", want, f.Path, err)
	}
	if f.memory, err = unix.Mmap(int(f.file.Fd()), 0, want, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("map %s: %w", f.Path, err)
	}
	return Guard(func() {
		if anew {
			head(f.memory, batches, size)
		}
		for i := range batches {
			f.add(f.memory[64+i*batchHead:][:batchHead], f.memory[fileHead+i*size:][:size])
		}
	})
}

func (f *File) add(head, data []byte) {
	f.batches = append(f.batches, &Batch{file: f, head: head, data: data[:len(data):len(data)]})
}

// take gives the batches what they held, and empties the others.
func (f *File) take(left []held) {
	for _, h := range left {
		f.seq = max(f.seq, h.seq)
	}
	for i, b := range f.batches {
		if i < len(left) && left[i].n > 0 {
			h := left[i]
			b.seq, b.n, b.sum, b.from, b.at, b.begun = h.seq, h.n, h.sum, h.from, h.at, h.begun
			continue
		}
		b.Clear()
	}
}

// Batches are all, in the order of the file.
func (f *File) Batches() []*Batch { return f.batches }

// Left are the batches that are not empty, the oldest first: after Open, what a crash left.
func (f *File) Left() []*Batch {
	var left []*Batch
	for _, b := range f.batches {
		if b.n > 0 {
			left = append(left, b)
		}
	}
	slices.SortFunc(left, func(a, b *Batch) int { return cmp.Compare(a.seq, b.seq) })
	return left
}

// OnLoss has a function called once, from a goroutine of its own, if the file is cut short while it is in use. Call it before the batches are used.
func (f *File) OnLoss(call func(error)) { f.lost = call }

func (f *File) fault(err error) {
	f.told.Do(func() {
		if f.lost != nil {
			go f.lost(err)
		}
	})
}

// Close gives the file back. What its batches hold stays in it; they must not be used again.
func (f *File) Close() error {
	for _, b := range f.batches {
		b.head, b.data, b.n = nil, nil, 0
	}
	var err error
	if f.memory != nil {
		err = unix.Munmap(f.memory)
		f.memory = nil
	}
	if f.file != nil {
		err = errors.Join(err, f.file.Close())
	}
	return err
}
