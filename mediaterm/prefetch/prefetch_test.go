package prefetch_test

import (
	"testing"
	"unsafe"

	"imeproxy/mediaterm/prefetch"
)

// It is asked for memory by a guess, which may be wrong: that must cost nothing but time, wherever it leads.
func TestAnywhere(t *testing.T) {
	held := make([]byte, 4096)
	for _, p := range []unsafe.Pointer{nil, unsafe.Add(nil, 1<<40), unsafe.Pointer(&held[0]), unsafe.Pointer(&held[4095])} {
		for _, lines := range []uintptr{1, 2, 1000} {
			prefetch.Lines(p, lines)
		}
	}
	for i, b := range held {
		if b != 0 {
			t.Fatalf("byte %d was written", i)
		}
	}
}

func BenchmarkLines(b *testing.B) {
	held := make([]byte, 64<<10)
	for n := range b.N {
		prefetch.Lines(unsafe.Pointer(&held[n&0x3ff<<6]), 1)
	}
}
