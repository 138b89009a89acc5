package boot

import (
	"bytes"
	"fmt"
	"path"
	"sort"
)

// Modes of entries, as in stat(2).
const (
	modeDir  = 0o040000
	modeFile = 0o100000
	modeLink = 0o120000
	modeChar = 0o020000
)

// Archive is an initramfs. Everything in it belongs to root. The zero value is empty.
type Archive struct {
	entries map[string]entry
}

type entry struct {
	mode         uint32
	data         []byte
	major, minor uint32
}

func (a *Archive) put(name string, e entry) {
	if a.entries == nil {
		a.entries = map[string]entry{}
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if _, ok := a.entries[dir]; !ok {
			a.entries[dir] = entry{mode: modeDir | 0o755}
		}
	}
	a.entries[name] = e
}

// File adds a file; the folders above it are made.
func (a *Archive) File(name string, perm uint32, data []byte) {
	a.put(name, entry{mode: modeFile | perm, data: data})
}

// Dir adds a folder.
func (a *Archive) Dir(name string, perm uint32) { a.put(name, entry{mode: modeDir | perm}) }

// Link adds a symbolic link.
func (a *Archive) Link(name, target string) {
	a.put(name, entry{mode: modeLink | 0o777, data: []byte(target)})
}

// Device adds a character device.
func (a *Archive) Device(name string, perm, major, minor uint32) {
	a.put(name, entry{mode: modeChar | perm, major: major, minor: minor})
}

// Bytes gives the archive, sorted by name, all times zero.
func (a *Archive) Bytes() []byte {
	names := make([]string, 0, len(a.entries))
	for n := range a.entries {
		names = append(names, n)
	}
	sort.Strings(names)
	var b bytes.Buffer
	for i, n := range names {
		a.entries[n].write(&b, uint32(i+1), n)
	}
	entry{}.write(&b, 0, "TRAILER!!!")
	return b.Bytes()
}

func (e entry) write(b *bytes.Buffer, inode uint32, name string) {
	links := uint32(1)
	if e.mode&modeDir != 0 && e.mode&modeChar == 0 && e.mode&modeFile == 0 {
		links = 2
	}
	fmt.Fprintf(b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		inode, e.mode, 0, 0, links, 0, len(e.data), 0, 0, e.major, e.minor, len(name)+1, 0, name)
	pad(b)
	b.Write(e.data)
	pad(b)
}

func pad(b *bytes.Buffer) {
	for b.Len()%4 != 0 {
		b.WriteByte(0)
	}
}
