package backlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// The form of the file: a head of one page, then the batches. All numbers are the machine's own: the file does not leave it.
//
//	0   magic, 16 bytes
//	16  batches, 4 bytes; their size in bytes, 4 bytes
//	64  for each batch 64 bytes: 8 of its number, 8 of its state, 8 of its place, the rest 0
//
// The state is length (upper half) and the sum (CRC-32C) of number and lines; 0 is empty. The place is 0 before the batch is being written, else the
// uppermost bit, 23 bits of how much is written, and 40 bits of the offset at which the rest goes; all ones for none.
const (
	fileHead  = 4096
	batchHead = 64

	headSeq   = 0
	headState = 8
	headPlace = 16

	placeBegun = 1 << 63
	placeNone  = 1<<40 - 1

	maxBatches = 8
	maxSize    = 4 << 20
)

var magic = []byte("imeproxy wait 1\n")

// place encodes how far a batch is written.
func place(from int, at int64) uint64 {
	if at < 0 || at >= placeNone {
		at = placeNone
	}
	return placeBegun | uint64(from)<<40 | uint64(at)
}

// head writes that of an empty file.
func head(mem []byte, batches, size int) {
	clear(mem[:fileHead])
	binary.NativeEndian.PutUint32(mem[16:], uint32(batches))
	binary.NativeEndian.PutUint32(mem[20:], uint32(size))
	copy(mem, magic)
}

// held is what a file says of a batch.
type held struct {
	seq   uint64
	n     int
	sum   uint32
	from  int
	at    int64
	begun bool
}

// decode reads a file. The error tells of each batch that is damaged; it counts as empty then. A file of no use at all has no batches.
func decode(file []byte, batches, size int) ([]held, error) {
	if len(file) != fileHead+batches*size {
		return nil, fmt.Errorf("it has %d bytes in the place of %d", len(file), fileHead+batches*size)
	}
	if !bytes.HasPrefix(file, magic) {
		return nil, errors.New("its head is damaged, or of another version")
	}
	if b, s := binary.NativeEndian.Uint32(file[16:]), binary.NativeEndian.Uint32(file[20:]); int64(b) != int64(batches) || int64(s) != int64(size) {
		return nil, fmt.Errorf("it has %d batches of %d bytes in the place of %d of %d", b, s, batches, size)
	}
	out := make([]held, batches)
	var failed error
	for i := range out {
		h, err := decodeBatch(file[64+i*batchHead:][:batchHead], file[fileHead+i*size:][:size])
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("batch %d: %w", i+1, err))
		}
		out[i] = h
	}
	return out, failed
}

func decodeBatch(head, data []byte) (held, error) {
	h := held{seq: binary.NativeEndian.Uint64(head[headSeq:])}
	state, where := binary.NativeEndian.Uint64(head[headState:]), binary.NativeEndian.Uint64(head[headPlace:])
	if state == 0 {
		return h, nil
	}
	empty := h
	if state>>32 > uint64(len(data)) {
		return empty, fmt.Errorf("it says that %d bytes wait, of %d at most", state>>32, len(data))
	}
	h.n, h.sum = int(state>>32), uint32(state)
	lines := data[:h.n]
	if crc32.Update(begin(h.seq), castagnoli, lines) != h.sum {
		return empty, fmt.Errorf("the sum of the %d bytes that wait is another", h.n)
	}
	if !bytes.HasSuffix(lines, []byte{'\n'}) {
		return empty, errors.New("its last line has no end")
	}
	if where != 0 {
		h.begun, h.from, h.at = true, int(where>>40&(1<<23-1)), int64(where&placeNone)
		if where&placeBegun == 0 || h.from > h.n || h.from > 0 && lines[h.from-1] != '\n' {
			return empty, errors.New("how much of it is written cannot be")
		}
		if h.at == placeNone {
			h.at = -1
		}
	}
	return h, nil
}
