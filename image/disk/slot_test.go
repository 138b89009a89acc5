package disk

import (
	"bytes"
	"io"
	"testing"
)

// sectors are what a disk holds, by offset; the rest cannot be read.
type sectors map[int64][]byte

func (s sectors) ReadAt(b []byte, at int64) (int, error) {
	n := copy(b, s[at])
	if n < len(b) {
		return n, io.ErrUnexpectedEOF
	}
	return n, nil
}

// What stands on a damaged disk is refused, or is a system that can be.
func FuzzReadSlot(f *testing.F) {
	folder := bytes.Repeat([]byte{0}, SectorSize)
	copy(folder, entry(".          ", 0x10, slotFolderCluster, 0))
	copy(folder[entryOf(1, 0):], entry("SYSTEM-BEFI", 0x20, clusterAt(slotOffset(1)), 40))
	f.Add(folder, append(loaderConf(1), make([]byte, SectorSize)...), bytes.Repeat([]byte("system"), 10))
	f.Add([]byte(".          \x10"), loaderConf(0), []byte(nil))
	f.Fuzz(func(t *testing.T, folder, conf, system []byte) {
		d := sectors{offsetOf(slotFolderCluster): folder, offsetOf(loaderCluster): conf, slotOffset(0): system, slotOffset(1): system}
		for slot := range Slots {
			if got, err := ReadSlot(d, 0, slot); err == nil && !bytes.HasPrefix(system, got) {
				t.Errorf("system %d: %d bytes, which are not its own", slot, len(got))
			}
		}
		if slot, err := Default(d, 0); err == nil && slot != 0 && slot != 1 {
			t.Errorf("default %d", slot)
		}
	})
}
