//go:build amd64 || arm64

package prefetch

import "unsafe"

// Lines has the processor fetch cache lines from p on, at least one, and does not wait for them. It is no access to memory: p may point
// anywhere, and need not be guarded.
//
//go:noescape
func Lines(p unsafe.Pointer, lines uintptr)
