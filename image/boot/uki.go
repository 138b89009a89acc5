package boot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Section is a piece of a unified kernel image.
type Section struct {
	Name string
	Data []byte
}

// Place is where a section stands in the file.
type Place struct{ Offset, Size int64 }

const (
	sectionHeader = 40
	// fileAlign is that of the sections added: a multiple of a FAT cluster, so that a part can be a file of its own.
	fileAlign = 4096
	memAlign  = 4096
)

// ErrStub says that the EFI stub is no PE file that sections can be added to.
var ErrStub = errors.New("EFI stub")

// UKI adds sections to systemd's EFI stub. The kernel belongs last: it is unpacked in place by some stubs.
func UKI(stub []byte, sections []Section) (image []byte, places map[string]Place, err error) {
	if len(stub) < 64 || string(stub[:2]) != "MZ" {
		return nil, nil, fmt.Errorf("%w: no PE file", ErrStub)
	}
	pe := int(binary.LittleEndian.Uint32(stub[60:]))
	if pe < 64 || pe+24+112 > len(stub) || string(stub[pe:pe+4]) != "PE\x00\x00" {
		return nil, nil, fmt.Errorf("%w: no PE header", ErrStub)
	}
	image = bytes.Clone(stub)
	count := int(binary.LittleEndian.Uint16(image[pe+6:]))
	opt := pe + 24
	table := opt + int(binary.LittleEndian.Uint16(image[pe+20:]))
	headers := int(binary.LittleEndian.Uint32(image[opt+60:]))
	if binary.LittleEndian.Uint16(image[opt:]) != 0x20b || headers > len(image) || table+(count+len(sections))*sectionHeader > headers {
		return nil, nil, fmt.Errorf("%w: no space in its headers for %d more sections", ErrStub, len(sections))
	}
	// Symbols and what else stands behind the last section would be in the way; nothing loads them.
	end, memory := headers, uint32(0)
	for i := range count {
		h := image[table+i*sectionHeader:]
		end = max(end, int(binary.LittleEndian.Uint32(h[16:])+binary.LittleEndian.Uint32(h[20:])))
		memory = max(memory, binary.LittleEndian.Uint32(h[12:])+max(binary.LittleEndian.Uint32(h[8:]), binary.LittleEndian.Uint32(h[16:])))
	}
	if end > len(image) {
		return nil, nil, fmt.Errorf("%w: it is cut short", ErrStub)
	}
	image = image[:end]
	binary.LittleEndian.PutUint32(image[pe+12:], 0) // symbol table
	binary.LittleEndian.PutUint32(image[pe+16:], 0)
	places = map[string]Place{}
	for i, s := range sections {
		if len(s.Name) > 8 {
			return nil, nil, fmt.Errorf("section %q: its name is longer than 8 characters", s.Name)
		}
		image = append(image, make([]byte, roundUp(len(image), fileAlign)-len(image))...)
		memory = uint32(roundUp(int(memory), memAlign))
		raw := roundUp(len(s.Data), SectionAlign)
		h := image[table+(count+i)*sectionHeader:][:sectionHeader]
		clear(h)
		copy(h, s.Name)
		binary.LittleEndian.PutUint32(h[8:], uint32(len(s.Data)))
		binary.LittleEndian.PutUint32(h[12:], memory)
		binary.LittleEndian.PutUint32(h[16:], uint32(raw))
		binary.LittleEndian.PutUint32(h[20:], uint32(len(image)))
		binary.LittleEndian.PutUint32(h[36:], 0x40000040) // initialized data, readable
		places[s.Name] = Place{int64(len(image)), int64(len(s.Data))}
		image = append(image, s.Data...)
		image = append(image, make([]byte, raw-len(s.Data))...)
		memory += uint32(raw)
	}
	binary.LittleEndian.PutUint16(image[pe+6:], uint16(count+len(sections)))
	binary.LittleEndian.PutUint32(image[opt+56:], uint32(roundUp(int(memory), memAlign))) // SizeOfImage
	binary.LittleEndian.PutUint32(image[opt+64:], 0)                                      // CheckSum
	return image, places, nil
}

// SectionAlign is FileAlignment of systemd's stubs.
const SectionAlign = 512

func roundUp(n, to int) int { return (n + to - 1) / to * to }
