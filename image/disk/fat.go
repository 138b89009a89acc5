package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
)

// The ESP's file system. With clusters of 1 KiB 128 MiB is more than the 65,525 clusters that make it FAT32 for every reader.
const (
	ESPSize     = 128 << 20
	clusterSize = 1024
	espSectors  = ESPSize / SectorSize
	fatReserved = 32 // sectors before the first FAT
	perCluster  = clusterSize / SectorSize
	fatEnd      = 0x0fffffff
	deleted     = 0xe5
)

// fatSectors is enough for an entry of four bytes for each cluster.
const fatSectors = (espSectors/perCluster*4 + SectorSize - 1) / SectorSize

// dataStart is the offset of cluster 2 in the ESP.
const dataStart = (fatReserved + 2*fatSectors) * SectorSize

// Where the systems are in the ESP. Everything else is before them.
const (
	slotStart = 8 << 20
	// SlotSize is the space of one system.
	SlotSize = 56 << 20
	// Slots are the systems A and B.
	Slots = 2
)

// clusterAt is the number of the cluster at an offset of the ESP.
func clusterAt(offset int64) uint32 { return uint32((offset-dataStart)/clusterSize) + 2 }

func offsetOf(cluster uint32) int64 { return dataStart + int64(cluster-2)*clusterSize }

// slotOffset is where a system begins in the ESP, at a cluster's begin.
func slotOffset(slot int) int64 { return offsetOf(clusterAt(slotStart)) + int64(slot)*SlotSize }

// File is a file of the ESP that stays as it is.
type File struct {
	Path string // "EFI/BOOT/BOOTX64.EFI"
	Data []byte
	// at is the only cluster of a file that is found by it; 0 is anywhere
	at uint32
}

// dosTime is what all files have: the date says nothing that the version does not.
const dosDate = (2026-1980)<<9 | 1<<5 | 1

// fat is a file system while it is written.
type fat struct {
	w    io.WriterAt
	base int64 // of the ESP on the disk
	next uint32
	fat  [espSectors / perCluster]uint32
	root []*node
}

type node struct {
	name    string
	data    []byte
	folder  []*node
	dir     bool
	cluster uint32
}

// SlotFolder holds the entries of both systems; nothing else is in it, so that they stand in its first sector.
const SlotFolder = "EFI/Linux"

// WriteESP makes the file system of the ESP at an offset of the disk, with the files, an empty SlotFolder, and the loaders' settings,
// by which they start system A.
func WriteESP(w io.WriterAt, base int64, serial uint32, files []File) error {
	f := &fat{w: w, base: base, next: 2}
	f.fat[0], f.fat[1] = 0x0ffffff8, fatEnd
	// In this order, so that these two are always in the same place: see loaderCluster and slotFolderCluster.
	always := []File{{Path: "loader/loader.conf", Data: loaderConf(0)}, {Path: SlotFolder + "/"}, {Path: onceFile, Data: onceEnv(-1), at: onceCluster}}
	for _, file := range append(always, files...) {
		if err := f.add(file); err != nil {
			return err
		}
	}
	root := &node{folder: f.root, dir: true}
	f.place(root)
	if err := f.emit(root, 0); err != nil {
		return err
	}
	if f.next > onceCluster {
		return errors.New("the loader's files leave no space for the systems")
	}
	for slot := range Slots {
		f.chain(clusterAt(slotOffset(slot)), SlotSize/clusterSize)
	}
	return f.tables(serial, root.cluster)
}

func (f *fat) add(file File) error {
	at := &f.root
	parts := strings.Split(file.Path, "/")
	for _, p := range parts[:len(parts)-1] {
		var found *node
		for _, n := range *at {
			if n.name == p && n.dir {
				found = n
			}
		}
		if found == nil {
			found = &node{name: p, dir: true}
			*at = append(*at, found)
		}
		at = &found.folder
	}
	if name := parts[len(parts)-1]; name != "" {
		*at = append(*at, &node{name: name, data: file.Data, cluster: file.at})
	}
	return nil
}

// chain makes n clusters one file's.
func (f *fat) chain(first uint32, n int) {
	for i := range n {
		f.fat[first+uint32(i)] = first + uint32(i) + 1
	}
	f.fat[first+uint32(n)-1] = fatEnd
}

// place gives clusters to a node and all below it: folders get one cluster, which holds 32 entries.
func (f *fat) place(n *node) {
	if n.cluster != 0 {
		f.chain(n.cluster, 1)
		return
	}
	size := len(n.data)
	if n.dir {
		size = clusterSize
	}
	if count := (size + clusterSize - 1) / clusterSize; count > 0 {
		n.cluster = f.next
		f.chain(f.next, count)
		f.next += uint32(count)
	}
	for _, c := range n.folder {
		f.place(c)
	}
}

// emit writes a node and all below it.
func (f *fat) emit(n *node, parent uint32) error {
	data := n.data
	if n.dir {
		var entries []byte
		if n.name != "" {
			entries = append(entries, entry(".          ", 0x10, n.cluster, 0)...)
			entries = append(entries, entry("..         ", 0x10, parent, 0)...)
			parent = n.cluster
		}
		for i, c := range n.folder {
			entries = append(entries, nameEntries(c, i)...)
			if err := f.emit(c, parent); err != nil {
				return err
			}
		}
		if len(entries) > clusterSize {
			return fmt.Errorf("folder %q: too many entries", n.name)
		}
		data = make([]byte, clusterSize)
		copy(data, entries)
	}
	if len(data) == 0 {
		return nil
	}
	_, err := f.w.WriteAt(data, f.base+offsetOf(n.cluster))
	return err
}

// entry is a folder entry; name has eleven characters.
func entry(name string, attr byte, cluster uint32, size int) []byte {
	e := make([]byte, 32)
	copy(e, name)
	e[11] = attr
	binary.LittleEndian.PutUint16(e[16:], dosDate)
	binary.LittleEndian.PutUint16(e[18:], dosDate)
	binary.LittleEndian.PutUint16(e[20:], uint16(cluster>>16))
	binary.LittleEndian.PutUint16(e[24:], dosDate)
	binary.LittleEndian.PutUint16(e[26:], uint16(cluster))
	binary.LittleEndian.PutUint32(e[28:], uint32(size))
	return e
}

// short is the eleven-character form of a name, and whether that is all of it.
func short(name string, number int) (s string, whole bool) {
	upper := strings.ToUpper(name)
	stem, ext, _ := strings.Cut(upper, ".")
	if len(stem) <= 8 && len(ext) <= 3 && !strings.Contains(ext, ".") {
		return fmt.Sprintf("%-8s%-3s", stem, ext), upper == name
	}
	return fmt.Sprintf("%-8s%-3.3s", fmt.Sprintf("%.6s~%d", stem, number+1), ext), false
}

// nameEntries are the entries of a file: a long name where the short one is not all of it.
func nameEntries(n *node, number int) []byte {
	attr := byte(0x20)
	if n.dir {
		attr = 0x10
	}
	name, whole := short(n.name, number)
	last := entry(name, attr, n.cluster, len(n.data))
	if whole {
		return last
	}
	var sum byte
	for _, c := range []byte(name) {
		sum = sum<<7 | sum>>1
		sum += c
	}
	long := append(utf16.Encode([]rune(n.name)), 0)
	for len(long)%13 != 0 {
		long = append(long, 0xffff)
	}
	var out []byte
	for i := len(long) / 13; i > 0; i-- {
		e := make([]byte, 32)
		e[0], e[11], e[13] = byte(i), 0x0f, sum
		if i == len(long)/13 {
			e[0] |= 0x40
		}
		for j, u := range long[(i-1)*13 : i*13] {
			at := []int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30}[j]
			binary.LittleEndian.PutUint16(e[at:], u)
		}
		out = append(out, e...)
	}
	return append(out, last...)
}

// tables writes the boot sector, its copy and both FATs.
func (f *fat) tables(serial, root uint32) error {
	b := make([]byte, SectorSize)
	copy(b, "\xeb\x58\x90imeproxy")
	binary.LittleEndian.PutUint16(b[11:], SectorSize)
	b[13] = perCluster
	binary.LittleEndian.PutUint16(b[14:], fatReserved)
	b[16], b[21] = 2, 0xf8
	binary.LittleEndian.PutUint16(b[24:], 63)
	binary.LittleEndian.PutUint16(b[26:], 255)
	binary.LittleEndian.PutUint32(b[28:], uint32(f.base/SectorSize))
	binary.LittleEndian.PutUint32(b[32:], espSectors)
	binary.LittleEndian.PutUint32(b[36:], fatSectors)
	binary.LittleEndian.PutUint32(b[44:], root)
	binary.LittleEndian.PutUint16(b[48:], 1) // FSInfo
	binary.LittleEndian.PutUint16(b[50:], 6) // copy of this sector
	b[64], b[66] = 0x80, 0x29
	binary.LittleEndian.PutUint32(b[67:], serial)
	copy(b[71:], "IMEPROXY   FAT32   ")
	b[510], b[511] = 0x55, 0xaa
	info := make([]byte, SectorSize)
	copy(info, "RRaA")
	copy(info[484:], "rrAa")
	binary.LittleEndian.PutUint32(info[488:], 0xffffffff) // free clusters: not known
	binary.LittleEndian.PutUint32(info[492:], 0xffffffff)
	info[510], info[511] = 0x55, 0xaa
	table := make([]byte, fatSectors*SectorSize)
	for i, v := range f.fat {
		binary.LittleEndian.PutUint32(table[4*i:], v)
	}
	for _, part := range []struct {
		sector int64
		data   []byte
	}{{0, b}, {1, info}, {6, b}, {7, info}, {fatReserved, table}, {fatReserved + fatSectors, table}} {
		if _, err := f.w.WriteAt(part.data, f.base+part.sector*SectorSize); err != nil {
			return err
		}
	}
	return nil
}
