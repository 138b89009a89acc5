package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"
)

// SectorSize is the only one that is supported: disks with other logical sectors are refused by the size of their GPT header.
const SectorSize = 512

const (
	entrySize  = 128
	entryCount = 128
	entryLBAs  = entrySize * entryCount / SectorSize
	headerSize = 92
	maxNameLen = 36
)

// GUID is in the byte order of the disk.
type GUID [16]byte

// ParseGUID reads the usual text form; the first three groups are little-endian on the disk.
func ParseGUID(s string) (g GUID, err error) {
	var a uint32
	var b, c, d uint16
	var e uint64
	if _, err := fmt.Sscanf(s, "%08x-%04x-%04x-%04x-%012x", &a, &b, &c, &d, &e); err != nil || len(s) != 36 {
		return g, fmt.Errorf("GUID %q: must have the form 01234567-89ab-cdef-0123-456789abcdef", s)
	}
	binary.LittleEndian.PutUint32(g[0:], a)
	binary.LittleEndian.PutUint16(g[4:], b)
	binary.LittleEndian.PutUint16(g[6:], c)
	binary.BigEndian.PutUint64(g[8:], uint64(d)<<48|e)
	return g, nil
}

// Partition is an entry of a table. First and Last are sectors, both inside.
type Partition struct {
	Type, ID    GUID
	First, Last uint64
	Attributes  uint64
	Name        string
}

// Table is a GUID partition table. Sectors is the size of the disk that it was made for.
type Table struct {
	Disk       GUID
	Sectors    uint64
	Partitions []Partition
}

// ErrNoTable says that a disk has no GPT that is whole.
var ErrNoTable = errors.New("no GUID partition table")

// Usable gives the first and last sector that a partition may have.
func (t *Table) Usable() (first, last uint64) { return 2 + entryLBAs, t.Sectors - 2 - entryLBAs }

// entries encodes the partitions.
func (t *Table) entries() ([]byte, error) {
	if len(t.Partitions) > entryCount {
		return nil, fmt.Errorf("%d partitions, %d at most", len(t.Partitions), entryCount)
	}
	first, last := t.Usable()
	b := make([]byte, entrySize*entryCount)
	for i, p := range t.Partitions {
		name := utf16.Encode([]rune(p.Name))
		if p.First < first || p.Last > last || p.Last < p.First || len(name) > maxNameLen {
			return nil, fmt.Errorf("partition %q: sectors %d to %d do not fit between %d and %d, or its name is too long", p.Name, p.First, p.Last, first, last)
		}
		e := b[i*entrySize:]
		copy(e[0:], p.Type[:])
		copy(e[16:], p.ID[:])
		binary.LittleEndian.PutUint64(e[32:], p.First)
		binary.LittleEndian.PutUint64(e[40:], p.Last)
		binary.LittleEndian.PutUint64(e[48:], p.Attributes)
		for j, u := range name {
			binary.LittleEndian.PutUint16(e[56+2*j:], u)
		}
	}
	return b, nil
}

// header encodes one of the two headers.
func (t *Table) header(entries []byte, here, other, entriesAt uint64) []byte {
	first, last := t.Usable()
	h := make([]byte, SectorSize)
	copy(h, "EFI PART")
	binary.LittleEndian.PutUint32(h[8:], 0x00010000)
	binary.LittleEndian.PutUint32(h[12:], headerSize)
	binary.LittleEndian.PutUint64(h[24:], here)
	binary.LittleEndian.PutUint64(h[32:], other)
	binary.LittleEndian.PutUint64(h[40:], first)
	binary.LittleEndian.PutUint64(h[48:], last)
	copy(h[56:], t.Disk[:])
	binary.LittleEndian.PutUint64(h[72:], entriesAt)
	binary.LittleEndian.PutUint32(h[80:], entryCount)
	binary.LittleEndian.PutUint32(h[84:], entrySize)
	binary.LittleEndian.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
	binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h[:headerSize]))
	return h
}

// protective is the MBR that keeps old programs off; boot is its code, or nil.
func (t *Table) protective(boot []byte) []byte {
	b := make([]byte, SectorSize)
	copy(b[:440], boot)
	e := b[446:]
	copy(e[1:], []byte{0, 2, 0, 0xee, 0xff, 0xff, 0xff})
	binary.LittleEndian.PutUint32(e[8:], 1)
	binary.LittleEndian.PutUint32(e[12:], uint32(min(t.Sectors-1, 0xffffffff)))
	b[510], b[511] = 0x55, 0xaa
	return b
}

// syncer is what a disk offers beyond writing.
type syncer interface{ Sync() error }

// Write puts the table on the disk: the copy at the end first, and nothing of the beginning before that one is safe, so that a
// power cut leaves one table that is whole. boot is the code of the MBR; nil keeps what is there.
func (t *Table) Write(w io.WriterAt, boot []byte) error {
	entries, err := t.entries()
	if err != nil {
		return err
	}
	end := t.Sectors - 1
	tail := append(bytes.Clone(entries), t.header(entries, end, 1, end-entryLBAs)...)
	if _, err := w.WriteAt(tail, int64(end-entryLBAs)*SectorSize); err != nil {
		return fmt.Errorf("partition table at the end of the disk: %w", err)
	}
	if err := flush(w); err != nil {
		return err
	}
	head, at := append(t.header(entries, 1, end, 2), entries...), int64(SectorSize)
	if boot != nil {
		head, at = append(t.protective(boot), head...), 0
	}
	if _, err := w.WriteAt(head, at); err != nil {
		return fmt.Errorf("partition table: %w", err)
	}
	return flush(w)
}

func flush(w io.WriterAt) error {
	if s, ok := w.(syncer); ok {
		return s.Sync()
	}
	return nil
}

// Read reads the table of a disk with so many sectors; the copy counts where the first one is damaged. Sectors of the result is
// the size that the table was made for, which is less than the disk's where the disk has grown. ErrNoTable when there is none.
func Read(r io.ReaderAt, sectors uint64) (*Table, error) {
	t, err := readAt(r, 1, sectors)
	if err == nil {
		return t, nil
	}
	if sectors > 1 {
		if t, err := readAt(r, sectors-1, sectors); err == nil {
			return t, nil
		}
	}
	return nil, err
}

func readAt(r io.ReaderAt, lba, sectors uint64) (*Table, error) {
	h := make([]byte, SectorSize)
	if _, err := r.ReadAt(h, int64(lba)*SectorSize); err != nil {
		return nil, fmt.Errorf("partition table: %w", err)
	}
	sum := binary.LittleEndian.Uint32(h[16:])
	binary.LittleEndian.PutUint32(h[16:], 0)
	if string(h[:8]) != "EFI PART" || binary.LittleEndian.Uint32(h[12:]) != headerSize || crc32.ChecksumIEEE(h[:headerSize]) != sum {
		return nil, ErrNoTable
	}
	here, other := binary.LittleEndian.Uint64(h[24:]), binary.LittleEndian.Uint64(h[32:])
	at := binary.LittleEndian.Uint64(h[72:])
	last := max(here, other)
	switch {
	case here != lba, last >= sectors, last < 2*(entryLBAs+2), at >= sectors-entryLBAs, at == 0:
		return nil, fmt.Errorf("%w: it names sectors that the disk has not", ErrNoTable)
	case binary.LittleEndian.Uint32(h[80:]) != entryCount, binary.LittleEndian.Uint32(h[84:]) != entrySize:
		return nil, fmt.Errorf("%w: not 128 entries of 128 bytes", ErrNoTable)
	}
	entries := make([]byte, entrySize*entryCount)
	if _, err := r.ReadAt(entries, int64(at)*SectorSize); err != nil {
		return nil, fmt.Errorf("partition table: %w", err)
	}
	if crc32.ChecksumIEEE(entries) != binary.LittleEndian.Uint32(h[88:]) {
		return nil, ErrNoTable
	}
	t := &Table{Disk: GUID(h[56:72]), Sectors: last + 1}
	for i := range entryCount {
		if p, ok := decode(entries[i*entrySize:]); ok {
			t.Partitions = append(t.Partitions, p)
		}
	}
	if _, err := t.entries(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoTable, err)
	}
	return t, nil
}

func decode(e []byte) (p Partition, used bool) {
	p = Partition{
		Type: GUID(e[0:16]), ID: GUID(e[16:32]), First: binary.LittleEndian.Uint64(e[32:]), Last: binary.LittleEndian.Uint64(e[40:]),
		Attributes: binary.LittleEndian.Uint64(e[48:]),
	}
	var name []uint16
	for j := range maxNameLen {
		u := binary.LittleEndian.Uint16(e[56+2*j:])
		if u == 0 {
			break
		}
		name = append(name, u)
	}
	p.Name = string(utf16.Decode(name))
	return p, p.Type != GUID{}
}

// Grow makes the last partition end where the disk with so many sectors does, a MiB's rest left out. It reports whether that changes
// anything.
func (t *Table) Grow(sectors uint64) bool {
	const align = 1 << 20 / SectorSize
	if sectors <= t.Sectors || len(t.Partitions) == 0 {
		return false
	}
	t.Sectors = sectors
	_, last := t.Usable()
	p := &t.Partitions[len(t.Partitions)-1]
	if end := (last+1)/align*align - 1; end > p.Last {
		p.Last = end
	}
	return true
}
