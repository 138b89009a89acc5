package mediaterm

// storeRelease writes a word after which nobody here may read or write what it guards: everything before it in the program has happened when others
// see it. Go's atomic store is more, an exchange, which also waits until each earlier write has reached the cache, and so for every line that is
// still on its way there. This processor keeps loads and stores before a store in any case.
//
//go:noescape
func storeRelease(p *uint32, v uint32)
