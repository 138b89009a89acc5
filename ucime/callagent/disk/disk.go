package disk

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// Tidy removes what a program that was killed within Replace has left beside a file.
func Tidy(file string) error {
	left, err := filepath.Glob(escape.Replace(file) + ".*")
	for _, f := range left {
		if strings.Trim(strings.TrimPrefix(f, file+"."), "0123456789") == "" {
			err = errors.Join(err, os.Remove(f))
		}
	}
	return err
}

// escape lets Glob take a name as it is.
var escape = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

// Replace writes a file whole or not at all, and returns when it is on the disk. The file is readable for its owner alone.
func Replace(file string, text []byte) error {
	dir := filepath.Dir(file)
	f, err := os.CreateTemp(dir, filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	d, err := os.Open(dir) // the new name is on the disk when its directory is
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
