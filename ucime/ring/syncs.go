package ring

import (
	"net/netip"

	"imeproxy/ucime/learn"
)

// tooMany picks the connection that ends when more than `most` of a kind are open, nil else: of the network that has the most, of the member that has the most
// of them, the oldest. So whoever takes all places, with many certificates too, drives out itself, and a newcomer comes in. The lock is held.
func (w *wire) tooMany(most int, kind func(*inbound) bool) (victim *inbound) {
	var list []*inbound
	networks := map[netip.Prefix]int{}
	names := map[learn.PeerID]int{}
	for o := range w.open {
		if kind(o) {
			list = append(list, o)
			networks[o.network]++
			names[o.p.name]++
		}
	}
	if len(list) <= most {
		return nil
	}
	for _, o := range list {
		switch {
		case victim == nil,
			networks[o.network] > networks[victim.network],
			networks[o.network] == networks[victim.network] && names[o.p.name] > names[victim.p.name],
			networks[o.network] == networks[victim.network] && names[o.p.name] == names[victim.p.name] && o.number < victim.number:
			victim = o
		}
	}
	return victim
}

// cut ends a connection at once: close_notify would wait for an other side that does not read.
func (c *inbound) cut() {
	if t, ok := c.Conn.(counted); ok {
		t.NetConn().Close()
	}
	c.Close()
}
