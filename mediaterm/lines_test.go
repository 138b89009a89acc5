package mediaterm

import (
	"testing"
	"unsafe"
)

// What a packet needs of thousands of streams lies in as few cache lines as can be, and touch fetches all of them.
func TestHotStateLiesInFewLines(t *testing.T) {
	var l leg
	var s tproxyStream
	var u keyUse
	for what, bad := range map[string]bool{
		"a leg is not of whole lines":               unsafe.Sizeof(l)%cacheLine != 0,
		"legs begin within a line":                  (unsafe.Offsetof(s.relay)+unsafe.Offsetof(s.relay.legs))%cacheLine != 0,
		"a stream is not allocated at whole lines":  unsafe.Sizeof(s) > 1792 || unsafe.Sizeof(s) <= 1536,
		"a stream does not begin with what is hot":  unsafe.Offsetof(s.relay)+unsafe.Offsetof(s.relay.legs) != cacheLine,
		"class and relay are in two lines":          unsafe.Offsetof(s.class)/cacheLine != (unsafe.Offsetof(s.relay)+unsafe.Offsetof(s.relay.noRTCP))/cacheLine,
		"an entry takes more than a line":           unsafe.Sizeof(portEnd{}) > cacheLine || unsafe.Offsetof(s.ends)%cacheLine != 0,
		"what leaves needs the last line":           unsafe.Offsetof(l.source)+unsafe.Sizeof(l.source) > (legLines-1)*cacheLine,
		"what comes needs the first line":           unsafe.Offsetof(l.side) < cacheLine,
		"what comes needs more lines than legLines": unsafe.Offsetof(l.receptions)+unsafe.Offsetof(l.receptions.further) > legLines*cacheLine,
		"a packet needs more than 4 lines of a key": keyLines > 4,
		"a key is not allocated at whole lines":     unsafe.Sizeof(u) > 448 || unsafe.Sizeof(u) <= 416,
	} {
		if bad {
			t.Error(what)
		}
	}
	t.Logf("leg %d, stream %d, key %d bytes", unsafe.Sizeof(l), unsafe.Sizeof(s), unsafe.Sizeof(u))
}
