//go:build !amd64 && !arm64

package mediaterm

import "unsafe"

func prefetch(unsafe.Pointer, uintptr) {}
