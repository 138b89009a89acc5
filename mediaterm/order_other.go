//go:build !amd64

package mediaterm

import "sync/atomic"

// storeRelease writes a word after which nobody here may read or write what it guards.
func storeRelease(p *uint32, v uint32) { atomic.StoreUint32(p, v) }
