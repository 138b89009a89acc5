package proxy

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"imeproxy/proxy/observe"
)

// The texts are those of proc(5), as a kernel 6.1 prints them.
func TestProcTexts(t *testing.T) {
	dev := deviceCounters(`Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    1864      22    0    0    0     0          0         0     1864      22    0    0    0     0       0          0
  eout:  123456     789    1    2    0     0          0         0   654321     987    3    4    0     0       0          0
`)
	want := [2]observe.Flow{{Packets: 789, Bytes: 123456, Errors: 1, Dropped: 2}, {Packets: 987, Bytes: 654321, Errors: 3, Dropped: 4}}
	if len(dev) != 2 || dev["eout"] != want {
		t.Errorf("counters: %+v", dev)
	}
	routes := routeTable(`Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eout	00000000	FEC8A5D1	0003	0	0	0	00000000	0	0	0
ein	000AA8C0	00000000	0001	0	0	2	00FFFFFF	0	0	0
`)
	if d := cmp.Diff([]observe.RouteEntry{
		{Network: "0.0.0.0/0", Gateway: "209.165.200.254", Interface: "eout"}, {Network: "192.168.10.0/24", Metric: 2, Interface: "ein"},
	}, routes.Routes); d != "" {
		t.Error(d)
	}
	arp := arpTable(`IP address       HW type     Flags       HW address            Mask     Device
209.165.200.254  0x1         0x2         02:00:5e:10:00:01     *        eout
192.168.10.77    0x1         0x0         00:00:00:00:00:00     *        ein
`)
	if d := cmp.Diff([]observe.ARPEntry{{Interface: "eout", Address: "209.165.200.254", MAC: "02:00:5e:10:00:01"}}, arp.Neighbors); d != "" {
		t.Error(d)
	}
}
