package image

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	endian "encoding/binary"
)

// lossyDisk is a disk that qemu reaches by NBD, with a cache: what was written stays in memory until the machine asks for a flush, or asks
// for that write to be safe. A power cut takes a part of the cache away, sector by sector, by lot.
// Source: github.com/NetworkBlockDevice/nbd, doc/proto.md.
type lossyDisk struct {
	file *os.File
	path string // of the socket

	mu      sync.Mutex
	pending map[int64][]byte // by sector; guarded by mu
	err     error            // guarded by mu
	writes  int              // so many requests have come; guarded by mu
	offAt   int              // the power goes off before that one; 0: never; guarded by mu
	off     chan struct{}    // closed when that has come; guarded by mu
	again   chan struct{}    // closed when all is over after that; guarded by mu
	serving sync.WaitGroup   // connections
}

const sectorSize = 512

// newLossyDisk serves a raw disk image until the test ends.
func newLossyDisk(t *testing.T, image, dir string) *lossyDisk {
	t.Helper()
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	d := &lossyDisk{file: f, path: filepath.Join(dir, "nbd"), pending: map[int64][]byte{}}
	l, err := net.Listen("unix", d.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = l.Close(), f.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			d.serving.Add(1)
			go func() {
				defer d.serving.Done()
				defer c.Close()
				if err := d.serve(c); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, net.ErrClosed) {
					d.mu.Lock()
					d.err = errors.Join(d.err, err)
					d.mu.Unlock()
				}
			}()
		}
	}()
	return d
}

// written is how many requests to write have come.
func (d *lossyDisk) written() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.writes
}

// offAfter lets the disk do nothing any more after so many requests to write; the channel is closed then. cut ends it.
func (d *lossyDisk) offAfter(writes int) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.offAt, d.off, d.again = d.writes+writes+1, make(chan struct{}), make(chan struct{})
	return d.off
}

// count counts a request to write, and does not return before all is over when the power is off.
func (d *lossyDisk) count() error {
	d.mu.Lock()
	d.writes++
	again := d.again
	if d.writes != d.offAt {
		again = nil
	} else {
		close(d.off)
	}
	d.mu.Unlock()
	if again == nil {
		return nil
	}
	<-again
	return io.EOF
}

// cut is the power cut: call it when qemu has ended. It gives how many sectors were in the cache and how many of them are lost.
func (d *lossyDisk) cut(t *testing.T) (cached, lost int) {
	t.Helper()
	d.mu.Lock()
	d.offAt = 0
	if d.again != nil {
		close(d.again)
		d.again = nil
	}
	d.mu.Unlock()
	d.serving.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	for sector, data := range d.pending {
		cached++
		if rand.IntN(2) == 0 {
			lost++
		} else if _, err := d.file.WriteAt(data, sector*sectorSize); err != nil {
			t.Fatal(err)
		}
	}
	clear(d.pending)
	if d.err != nil {
		t.Fatalf("the disk: %v", d.err)
	}
	return cached, lost
}

func (d *lossyDisk) serve(c net.Conn) error {
	r := bufio.NewReaderSize(c, 1<<20)
	if err := d.greet(c, r); err != nil {
		return err
	}
	for {
		var q struct {
			Magic       uint32
			Flags, Type uint16
			Cookie      uint64
			Offset      int64
			Length      uint32
		}
		if err := endian.Read(r, endian.BigEndian, &q); err != nil {
			return err
		}
		if q.Magic != 0x25609513 || q.Offset%sectorSize != 0 || q.Length%sectorSize != 0 || q.Length > 64<<20 {
			return fmt.Errorf("request %+v", q)
		}
		data := make([]byte, q.Length)
		var err error
		switch q.Type {
		case 0:
			err = d.read(data, q.Offset)
		case 1:
			if _, err = io.ReadFull(r, data); err == nil {
				err = d.count()
			}
			if err == nil {
				err = d.write(data, q.Offset, q.Flags&1 != 0)
			}
			data = nil
		case 2:
			return nil
		case 3:
			err = d.flush()
		default:
			err = fmt.Errorf("request %+v", q)
		}
		if err != nil {
			return err
		}
		answer := endian.BigEndian.AppendUint64(endian.BigEndian.AppendUint64(nil, 0x67446698<<32), q.Cookie)
		if _, err := c.Write(append(answer, data...)); err != nil {
			return err
		}
	}
}

// greet is the handshake: one export, which flushes.
func (d *lossyDisk) greet(c net.Conn, r io.Reader) error {
	if _, err := c.Write([]byte("NBDMAGICIHAVEOPT\x00\x03")); err != nil {
		return err
	}
	if _, err := io.ReadFull(r, make([]byte, 4)); err != nil {
		return err
	}
	for {
		var o struct {
			Magic       [8]byte
			Option, Len uint32
		}
		if err := endian.Read(r, endian.BigEndian, &o); err != nil {
			return err
		}
		if _, err := io.CopyN(io.Discard, r, int64(o.Len)); err != nil {
			return err
		}
		reply := func(kind uint32, data []byte) error {
			b := endian.BigEndian.AppendUint64(nil, 0x0003e889045565a9)
			for _, v := range []uint32{o.Option, kind, uint32(len(data))} {
				b = endian.BigEndian.AppendUint32(b, v)
			}
			_, err := c.Write(append(b, data...))
			return err
		}
		const goOn, unsupported = 7, 1<<31 | 1
		if o.Option != goOn {
			if err := reply(unsupported, nil); err != nil {
				return err
			}
			continue
		}
		st, err := d.file.Stat()
		if err != nil {
			return err
		}
		const hasFlags, flush, fua = 1, 4, 8
		export := endian.BigEndian.AppendUint64([]byte{0, 0}, uint64(st.Size()))
		return errors.Join(reply(3, endian.BigEndian.AppendUint16(export, hasFlags|flush|fua)), reply(1, nil))
	}
}

func (d *lossyDisk) read(data []byte, at int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.file.ReadAt(data, at); err != nil {
		return err
	}
	for i := 0; i < len(data) && len(d.pending) > 0; i += sectorSize {
		copy(data[i:], d.pending[(at+int64(i))/sectorSize])
	}
	return nil
}

func (d *lossyDisk) write(data []byte, at int64, safe bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := 0; i < len(data); i += sectorSize {
		sector := (at + int64(i)) / sectorSize
		if safe {
			delete(d.pending, sector)
		} else {
			d.pending[sector] = data[i : i+sectorSize]
		}
	}
	if !safe {
		return nil
	}
	_, err := d.file.WriteAt(data, at)
	return err
}

func (d *lossyDisk) flush() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for sector, data := range d.pending {
		if _, err := d.file.WriteAt(data, sector*sectorSize); err != nil {
			return err
		}
	}
	clear(d.pending)
	return nil
}

// systemOf is the system in an upgrade file.
func systemOf(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var m struct{ Size int }
	if err := json.Unmarshal(data[12:12+endian.LittleEndian.Uint32(data[8:])], &m); err != nil {
		t.Fatal(err)
	}
	return data[len(data)-m.Size:]
}
