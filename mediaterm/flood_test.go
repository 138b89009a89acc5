package mediaterm

import (
	"net/netip"
	"testing"
	"time"
)

// Strangers use up their own share of a port, not that of the source that the stream hears; that one has a limit as well.
func TestFloodOfAPort(t *testing.T) {
	friend, stranger, another := netip.MustParseAddrPort("192.0.2.1:4000"), netip.MustParseAddrPort("198.51.100.1:4000"), netip.MustParseAddrPort("192.0.2.1:4001")
	e := &portEnd{friend: friend}
	at := 1000 * time.Second
	refused := func(src netip.AddrPort, n int) (out int) {
		for range n {
			if e.flooded(at, src, 10) {
				out++
			}
		}
		return out
	}
	if got := refused(stranger, 30) + refused(another, 5); got != 25 {
		t.Errorf("%d packets of strangers refused, want 25", got)
	}
	if got := refused(friend, 10); got != 0 {
		t.Errorf("%d packets of the call refused", got)
	}
	if got := refused(friend, 5); got != 5 {
		t.Errorf("beyond the limit %d of 5 packets of the call refused", got)
	}
	at += floodSlice
	if got := refused(friend, 10) + refused(stranger, 10); got != 0 {
		t.Errorf("in the next slice %d refused", got)
	}
}
