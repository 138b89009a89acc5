//go:build !amd64 && !arm64

package fallback

import "unsafe"

func prefetch(unsafe.Pointer, uintptr) {}
