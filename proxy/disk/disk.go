package disk

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Limits of disk0:.
const (
	MaxName  = 64        // bytes
	MaxFile  = 256 << 20 // bytes that are stored; captures may be longer
	MaxFiles = 200       // no more are stored
)

// Suffixes are those of the files that can be named.
var Suffixes = []string{".cfg", ".conf", ".txt", ".fbs", ".pcapng", ".upgrade", ".lic"}

var goodName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// ErrName says that a name is none of disk0:.
var ErrName = errors.New("a file of disk0: has a name of letters, digits, \".\", \"_\" and \"-\" that ends in " + strings.Join(Suffixes, ", "))

// Name gives the bare name of a file of disk0: as an operator wrote it.
func Name(text string) (string, error) {
	name := strings.TrimPrefix(strings.TrimPrefix(text, "/"), "disk0:")
	name = strings.TrimPrefix(name, "/")
	if len(name) > MaxName || !goodName.MatchString(name) || !slices.ContainsFunc(Suffixes, func(s string) bool { return strings.HasSuffix(name, s) && name != s }) {
		return "", ErrName
	}
	return name, nil
}

// File is one file.
type File struct {
	Name     string
	Size     int64 // bytes
	Modified time.Time
}

// Disk is disk0: in a directory.
type Disk struct{ root *os.Root }

// Open gives the disk in a directory. Close it.
func Open(dir string) (*Disk, error) {
	r, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("disk0: %w", err)
	}
	return &Disk{r}, nil
}

// Close gives the directory back; files that are open stay so.
func (d *Disk) Close() { d.root.Close() }

// List gives the files by their names.
func (d *Disk) List() ([]File, error) {
	all, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("disk0: %w", err)
	}
	out := []File{}
	for _, e := range all {
		if name, err := Name(e.Name()); err != nil || name != e.Name() || !e.Type().IsRegular() {
			continue
		}
		if info, err := e.Info(); err == nil { // else it is gone
			out = append(out, File{e.Name(), info.Size(), info.ModTime()})
		}
	}
	return out, nil
}

// Stat gives one file.
func (d *Disk) Stat(text string) (File, error) {
	name, err := Name(text)
	if err != nil {
		return File{}, err
	}
	info, err := d.root.Lstat(name)
	if err != nil || !info.Mode().IsRegular() {
		return File{}, missing(name)
	}
	return File{name, info.Size(), info.ModTime()}, nil
}

func missing(name string) error {
	return fmt.Errorf("there is no disk0:%s: %w", name, fs.ErrNotExist)
}

// Read opens a file for reading.
func (d *Disk) Read(text string) (*os.File, error) {
	f, err := d.Stat(text)
	if err != nil {
		return nil, err
	}
	return d.root.Open(f.Name)
}

// Remove removes a file.
func (d *Disk) Remove(text string) error {
	f, err := d.Stat(text)
	if err != nil {
		return err
	}
	return d.root.Remove(f.Name)
}

// Writer is a file that is being stored. It takes its name with Commit; Abort, and a Commit that fails, leave what was there before.
type Writer struct {
	disk       *Disk
	file       *os.File
	name, temp string
	done       bool
}

// Create begins to store a file.
func (d *Disk) Create(text string) (*Writer, error) {
	name, err := Name(text)
	if err != nil {
		return nil, err
	}
	all, err := d.List()
	if err != nil {
		return nil, err
	}
	if len(all) >= MaxFiles && !slices.ContainsFunc(all, func(f File) bool { return f.Name == name }) {
		return nil, fmt.Errorf("disk0: has %d files: delete some", MaxFiles)
	}
	temp := ".disk0-" + rand.Text()
	f, err := d.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("disk0: %w", err)
	}
	return &Writer{disk: d, file: f, name: name, temp: temp}, nil
}

// ErrTooLong says that a file is longer than what is stored.
var ErrTooLong = fmt.Errorf("a file of disk0: has at most %d megabytes", MaxFile>>20)

// Write adds to the file.
func (w *Writer) Write(b []byte) (int, error) {
	if at, err := w.file.Seek(0, 1); err == nil && at+int64(len(b)) > MaxFile {
		return 0, ErrTooLong
	}
	return w.file.Write(b)
}

// WriteAt writes at a place of the file.
func (w *Writer) WriteAt(b []byte, off int64) (int, error) {
	if off < 0 || off > MaxFile || off+int64(len(b)) > MaxFile {
		return 0, ErrTooLong
	}
	return w.file.WriteAt(b, off)
}

// Commit gives the file its name.
func (w *Writer) Commit() error {
	if w.done {
		return nil
	}
	w.done = true
	err := errors.Join(w.file.Sync(), w.file.Close())
	if err == nil {
		err = w.disk.root.Rename(w.temp, w.name)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("disk0:%s: %w", w.name, err), w.disk.root.Remove(w.temp))
	}
	return nil
}

// Abort forgets the file. After Commit it does nothing.
func (w *Writer) Abort() {
	if !w.done {
		w.done = true
		w.file.Close()
		_ = w.disk.root.Remove(w.temp)
	}
}

// Sweep removes what transfers left that were cut off with the daemon; nobody may be storing files then.
func (d *Disk) Sweep() {
	all, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return
	}
	for _, e := range all {
		if strings.HasPrefix(e.Name(), ".disk0-") && e.Type().IsRegular() {
			_ = d.root.Remove(e.Name())
		}
	}
}
