package backlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// leftover is a file as a crash leaves it: a batch that is being written, and a newer one.
func leftover(t testing.TB, dir string) []byte {
	t.Helper()
	f, err := Open(dir, "x", 2, testSize)
	if err != nil {
		t.Fatal(err)
	}
	f.Batches()[0].Append([]byte("one\ntwo\n"))
	f.Batches()[0].Writing(4, 100)
	f.Batches()[1].Append([]byte("three\n"))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "x"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// What is damaged is told and left out, what is whole beside it is kept, and the file serves again.
func TestDamagedLeftover(t *testing.T) {
	const first, second = 64, 64 + batchHead
	state := func(x []byte, at, n int, sum uint32) {
		binary.NativeEndian.PutUint64(x[at+headState:], uint64(n)<<32|uint64(sum))
	}
	of := func(x []byte, at int) uint32 { return uint32(binary.NativeEndian.Uint64(x[at+headState:])) }
	for name, c := range map[string]struct {
		damage func([]byte) []byte
		why    string
		left   string
	}{
		"whole":            {func(x []byte) []byte { return x }, "", "one\ntwo\n+three\n"},
		"empty":            {func(x []byte) []byte { return nil }, "", ""},
		"nothing but 0":    {func(x []byte) []byte { return make([]byte, len(x)) }, "", ""},
		"short":            {func(x []byte) []byte { return x[:len(x)-1] }, "bytes in the place of", ""},
		"head alone":       {func(x []byte) []byte { return x[:100] }, "bytes in the place of", ""},
		"long":             {func(x []byte) []byte { return append(x, 0) }, "bytes in the place of", ""},
		"other program":    {func(x []byte) []byte { x[0] = 'X'; return x }, "another version", ""},
		"other sizes":      {func(x []byte) []byte { x[20]++; return x }, "in the place of 2 of", ""},
		"a letter changed": {func(x []byte) []byte { x[fileHead] = 'X'; return x }, "batch 1: the sum", "three\n"},
		"number changed":   {func(x []byte) []byte { x[first+headSeq] ^= 0x40; return x }, "batch 1: the sum", "three\n"},
		"too long":         {func(x []byte) []byte { state(x, second, testSize+1, of(x, second)); return x }, "batch 2: it says", "one\ntwo\n"},
		"longer":           {func(x []byte) []byte { state(x, second, 7, of(x, second)); return x }, "batch 2: the sum", "one\ntwo\n"},
		"nothing, a sum":   {func(x []byte) []byte { state(x, second, 0, 1); return x }, "batch 2: the sum", "one\ntwo\n"},
		"place too far":    {func(x []byte) []byte { binary.NativeEndian.PutUint64(x[first+headPlace:], place(9, 0)); return x }, "batch 1: how much", "three\n"},
		"place in a line":  {func(x []byte) []byte { binary.NativeEndian.PutUint64(x[first+headPlace:], place(3, 0)); return x }, "batch 1: how much", "three\n"},
		"both damaged":     {func(x []byte) []byte { x[fileHead], x[fileHead+testSize] = 0, 0; return x }, "batch 2: the sum", ""},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "x"), c.damage(leftover(t, dir)), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := Open(dir, "x", 2, testSize)
		if (c.why == "") != (err == nil) || err != nil && (!errors.Is(err, ErrSkipped) || errors.Is(err, ErrMemory) || !strings.Contains(err.Error(), c.why)) {
			t.Errorf("%s: %v", name, err)
		}
		var left []string
		for _, b := range f.Left() {
			left = append(left, string(b.Bytes()))
			b.Clear()
		}
		if got := strings.Join(left, "+"); got != c.left {
			t.Errorf("%s: %q is left, want %q", name, got, c.left)
		}
		add(t, f.Batches()[1], "new\n")
		crash(t, f)
		f = open(t, dir)
		if left := f.Left(); len(left) != 1 || string(left[0].Bytes()) != "new\n" {
			t.Errorf("%s: the file does not serve again", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	text := leftover(f, f.TempDir())
	head := text[:64+2*batchHead]
	f.Add(head, text[fileHead:fileHead+8], text[fileHead+testSize:fileHead+testSize+6])
	f.Add(head, []byte("one\ntwo"), []byte(nil))
	f.Add(head[:70], []byte("\n"), []byte("\n"))
	f.Fuzz(func(t *testing.T, head, first, second []byte) {
		file := make([]byte, fileHead+2*testSize)
		copy(file[:fileHead], head)
		copy(file[fileHead:fileHead+testSize], first)
		copy(file[fileHead+testSize:], second)
		left, err := decode(file, 2, testSize)
		if left == nil && err == nil {
			t.Error("nothing, and no reason")
		}
		for i, h := range left {
			lines := file[fileHead+i*testSize:][:h.n]
			if h.from < 0 || h.from > h.n || h.at < -1 || h.n > 0 && !bytes.HasSuffix(lines, []byte{'\n'}) {
				t.Errorf("batch %d: %+v of %q", i, h, lines)
			}
		}
		if left, err := decode(file[:len(head)%len(file)], 2, testSize); left != nil || err == nil {
			t.Error("a short file was taken")
		}
	})
}

// With a sum that fits, so that what stands behind it is reached.
func FuzzDecodeBatch(f *testing.F) {
	f.Add(uint64(3), place(4, 100), []byte("one\ntwo\n"))
	f.Add(uint64(0), uint64(0), []byte("\n"))
	f.Add(uint64(1), place(0, -1), []byte("no end"))
	f.Add(uint64(1), ^uint64(0), []byte("one\n"))
	f.Fuzz(func(t *testing.T, seq, where uint64, lines []byte) {
		if len(lines) > testSize {
			return
		}
		m := Memory(1, testSize)
		m.seq = seq - 1
		b := m.Batches()[0]
		b.Clear()
		b.Append(lines)
		binary.NativeEndian.PutUint64(b.head[headPlace:], where)
		h, err := decodeBatch(b.head, b.data)
		if err != nil {
			if h.n != 0 {
				t.Errorf("%v, and %d bytes", err, h.n)
			}
			return
		}
		if h.n != len(lines) || h.seq != seq || len(lines) > 0 && h.begun != (where != 0) {
			t.Errorf("%+v", h)
		}
		if h.n > 0 && h.begun && place(h.from, h.at) != where {
			t.Errorf("written %d, the rest at %d, from %x", h.from, h.at, where)
		}
	})
}
