package revision

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"imeproxy/proxy/config"
)

// Limits of the files.
const (
	Kept    = 10
	MaxFile = 4 << 20 // bytes, as in package config
)

// Former is a configuration that was replaced.
type Former struct {
	Number int       `json:"number"` // 1 is the one that was replaced last
	Saved  time.Time `json:"saved"`  // when it was replaced
	Who    string    `json:"who"`    // who replaced it
	name   string
}

// files are the steps of a write that a power cut can come between; a test cuts there.
type files interface {
	create(path string) (*os.File, error)
	write(f *os.File, b []byte) error
	sync(f *os.File) error
	rename(from, to string) error
	syncDir(dir string) error
}

type disk struct{}

func (disk) create(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
}

func (disk) write(f *os.File, b []byte) error {
	_, err := f.Write(b)
	return err
}
func (disk) sync(f *os.File) error        { return f.Sync() }
func (disk) rename(from, to string) error { return os.Rename(from, to) }
func (disk) syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// WriteFile puts a text in the place of a file as a whole, mode 0600: a power cut leaves the old file or the new one.
func WriteFile(path string, text []byte) error { return write(disk{}, path, text) }

// write puts a text in the place of a file as a whole.
func write(fs files, path string, text []byte) error {
	next := path + ".new"
	f, err := fs.create(next)
	if err != nil {
		return err
	}
	err = fs.write(f, text)
	if err == nil {
		err = fs.sync(f)
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = fs.rename(next, path)
	}
	if err != nil {
		return errors.Join(err, ignoreMissing(os.Remove(next)))
	}
	return fs.syncDir(filepath.Dir(path))
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (k *Keeper) historyDir() string { return filepath.Join(k.opt.StateDir, "history") }

// keep puts what stands in the file of the startup configuration among the former ones.
func (k *Keeper) keep(who string) error {
	text, err := os.ReadFile(k.opt.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("former configuration not kept: %w", err)
	}
	dir := k.historyDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("former configuration not kept: %w", err)
	}
	head, err := json.Marshal(Former{Saved: k.opt.Now().UTC(), Who: who})
	if err != nil {
		return fmt.Errorf("former configuration not kept: %w", err)
	}
	name := filepath.Join(dir, k.opt.Now().UTC().Format("20060102T150405.000000000")+".cfg")
	if err := write(k.fs, name, append(append([]byte("!"), head...), append([]byte("\n"), text...)...)); err != nil {
		return fmt.Errorf("former configuration not kept: %w", err)
	}
	all, err := k.names()
	if err != nil {
		return err
	}
	for _, old := range all[min(Kept, len(all)):] {
		err = errors.Join(err, ignoreMissing(os.Remove(filepath.Join(dir, old))))
	}
	return err
}

// names lists the files of former configurations, the latest first.
func (k *Keeper) names() ([]string, error) {
	list, err := os.ReadDir(k.historyDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("former configurations: %w", err)
	}
	var out []string
	for _, e := range list {
		if strings.HasSuffix(e.Name(), ".cfg") {
			out = append(out, e.Name())
		}
	}
	slices.Sort(out)
	slices.Reverse(out)
	return out, nil
}

// History lists the former configurations, the latest first.
func (k *Keeper) History() ([]Former, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	all, err := k.names()
	if err != nil {
		return nil, err
	}
	var out []Former
	for i, n := range all {
		text, err := os.ReadFile(filepath.Join(k.historyDir(), n))
		if err != nil {
			return nil, fmt.Errorf("former configurations: %w", err)
		}
		f := Former{}
		head, _, _ := strings.Cut(strings.TrimPrefix(string(text), "!"), "\n")
		if json.Unmarshal([]byte(head), &f) != nil {
			f.Who = "unknown"
		}
		f.Number, f.name = i+1, n
		out = append(out, f)
	}
	return out, nil
}

// Former reads a former configuration by its number in History.
func (k *Keeper) Former(number int) (*config.Config, error) {
	list, err := k.History()
	if err != nil {
		return nil, err
	}
	if number < 1 || number > len(list) {
		return nil, fmt.Errorf("there is no former configuration %d: show configuration history lists them", number)
	}
	return k.Read(filepath.Join("history", list[number-1].name))
}
