package backlog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"unsafe"
)

// Batch gathers lines. At most one goroutine may use a batch at a time.
type Batch struct {
	file *File
	head []byte // batchHead bytes, aligned to 8
	data []byte
	n    int
	sum  uint32
	seq  uint64

	from  int
	at    int64
	begun bool
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// begin is the sum of an empty batch: what an earlier one of other number left behind does not match.
func begin(seq uint64) uint32 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], seq)
	return crc32.Update(0, castagnoli, b[:])
}

// Append adds whole lines, and reports whether there was room for them.
func (b *Batch) Append(lines []byte) bool {
	if len(lines) > len(b.data)-b.n {
		return false
	}
	if !b.put(lines) {
		b.leave()
		b.put(lines)
	}
	return true
}

// put copies lines and publishes them. It reports false where the memory is gone.
func (b *Batch) put(lines []byte) (ok bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if !ok {
			mustBeFault(recover())
		}
	}()
	copy(b.data[b.n:], lines)
	sum := crc32.Update(b.sum, castagnoli, lines)
	b.store(headState, uint64(b.n+len(lines))<<32|uint64(sum))
	b.n, b.sum = b.n+len(lines), sum
	return true
}

// Len is how many bytes wait.
func (b *Batch) Len() int { return b.n }

// Bytes are the lines that wait, until the next call of another method. What reads them in Go must be in a Guard; a system call needs none.
func (b *Batch) Bytes() []byte { return b.data[:b.n] }

// Written says what is known of a batch: the first from bytes are where they belong; of the rest, begun tells whether its writing had begun, and then at
// is the offset at which it began, -1 where there is no such thing.
func (b *Batch) Written() (from int, at int64, begun bool) { return b.from, b.at, b.begun }

// Writing notes that the bytes before from are written, and that those after it are being written, at an offset of a file; -1 for what has none.
func (b *Batch) Writing(from int, at int64) {
	b.from, b.at, b.begun = from, at, true
	b.guarded(func() { b.store(headPlace, place(from, at)) })
}

// Clear empties the batch: its lines are written. At most one goroutine may call it for the batches of a file.
func (b *Batch) Clear() {
	b.file.seq++
	b.seq, b.n, b.from, b.at, b.begun = b.file.seq, 0, 0, 0, false
	b.sum = begin(b.seq)
	b.guarded(func() {
		b.store(headState, 0) // first: the lines are written
		b.store(headPlace, 0)
		b.store(headSeq, b.seq)
	})
}

// guarded changes the head; where it is gone the batch goes on in memory.
func (b *Batch) guarded(f func()) {
	if Guard(f) != nil {
		b.leave()
		f()
	}
}

func (b *Batch) store(at int, v uint64) {
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&b.head[at])), v)
}

// leave goes on in memory, empty.
func (b *Batch) leave() {
	b.file.fault(fmt.Errorf("%s was cut short by somebody else: %d bytes that waited are lost, the next wait in memory alone", b.file.Path, b.n))
	m := make([]byte, batchHead+len(b.data))
	b.head, b.data = m[:batchHead], m[batchHead:]
	b.n, b.from, b.at, b.begun, b.sum = 0, 0, 0, false, begin(b.seq)
}

// Guard runs f; that memory which it uses was taken away (a mapped file was cut short, a disk cannot be read) is an error and no crash.
func Guard(f func()) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if err == errUnfinished {
			mustBeFault(recover())
			err = ErrGone
		}
	}()
	err = errUnfinished
	f()
	return nil
}

// mustBeFault passes on every panic but that of a memory fault; nil is a goroutine that ends itself.
func mustBeFault(why any) {
	if why == nil {
		return
	}
	if fault, ok := why.(interface {
		runtime.Error
		Addr() uintptr
	}); !ok || fault == nil {
		panic(why)
	}
}
